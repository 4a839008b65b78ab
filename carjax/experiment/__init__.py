"""Is a classifier certain where the attribute is well shown? The test of carjax's hypothesis."""

"""carjax."""

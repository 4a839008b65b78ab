"""Photos and frames with labels: tables, published data sets, splits, views and feature caches."""

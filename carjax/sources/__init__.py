"""Where frames come from: videos, pictures, WebDataset shards, Parquet; local or by URL."""

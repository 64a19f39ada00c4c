"""Image sources -> Parquet shards."""

"""Shards -> batches of a rank by Ray Data."""

"""The format of the shards: manifest, row groups, ImageNet's classes."""

"""Training of detectors and segmenters: from shards with boxes or masks to a registered model."""

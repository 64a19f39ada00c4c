"""The cluster: shards, streams, training, sweeps and reports on Ray, MLflow and Arrow."""

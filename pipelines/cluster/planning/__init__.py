"""The nodes of a cluster, and what of them a job takes: planned before anything starts."""

"""What computes a network, one file an engine."""

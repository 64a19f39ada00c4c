"""The Ray cluster: connecting to it, a private one, its CPUs and GPUs by node."""

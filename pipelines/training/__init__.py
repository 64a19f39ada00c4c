"""Training of one run on Ray Train."""

"""A training that begins with trained weights, or is ended by its validation figures."""

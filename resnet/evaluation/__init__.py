"""Errors of a network: views of an image, scorer, summary, layer responses."""

"""Splits that are drawn: by class, by group; duplicates between them."""

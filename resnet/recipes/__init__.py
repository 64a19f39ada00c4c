"""Recipes of a training and their settings, by name."""

"""Checks of an image before it is decoded: its kind, its limits, its structure."""

"""Crops of training and evaluation, mirror images and colour shifts."""

"""Offline prediction of many images."""

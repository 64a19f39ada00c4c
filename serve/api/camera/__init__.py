"""Cameras: a WebSocket that takes frames and answers the newest, and its part of the page."""

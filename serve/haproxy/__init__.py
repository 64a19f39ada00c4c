"""HAProxy before Ray Serve: its environment, wrapper and configuration."""

"""Rented machines: what cluster.yaml still needs, notices of their end, what is kept of them, and their own end."""

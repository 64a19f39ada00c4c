"""Tests of trained networks on a cluster."""

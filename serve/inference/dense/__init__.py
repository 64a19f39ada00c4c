"""Inference of detectors and segmenters: boxes and masks of whole images."""

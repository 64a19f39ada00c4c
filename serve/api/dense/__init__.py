"""/v1/detect and /v1/segment: images in, boxes or masks out."""

"""Networks whose answer has places: a box an object (detection), a class a pixel (segmentation)."""

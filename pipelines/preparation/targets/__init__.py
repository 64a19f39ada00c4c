"""Sources whose images have boxes or masks: their layouts, and what is stored of each image."""

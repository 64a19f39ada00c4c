"""What a training needs of its device: compiled blocks, pinned buffers, crops made there, time that it waited."""

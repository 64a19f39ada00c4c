"""The machine: its hardware, its memory allocator, its scheduler."""

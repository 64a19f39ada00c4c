"""Services of a training's device: compiled blocks, captured steps, pinned buffers, crops made there, its waits."""

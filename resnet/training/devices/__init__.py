"""Services of a training's device: compiled blocks, pinned buffers, crops made there, time that it waited."""

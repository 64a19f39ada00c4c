"""Guards that keep a run whole: who works in its folder, what may be gone on with, and its state at an early end."""

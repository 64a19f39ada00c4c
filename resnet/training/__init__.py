"""Training in one process: step, optimiser, schedule, mixing, average, checkpoint."""

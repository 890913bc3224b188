"""Running the optimiser: steps, checkpoints, resume, progress."""

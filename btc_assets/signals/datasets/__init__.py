"""Data sets for learning: rows of slices with features and targets, split so that nothing of the test is known to the training."""

"""Where a stage's work is done: here, or on a cluster."""

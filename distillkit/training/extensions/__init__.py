"""Step extensions: what acts around the optimiser's step, and the one that ships with the core."""

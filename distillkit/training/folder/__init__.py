"""The folder of a run: its paths, checkpoints, lock, and where it comes from."""

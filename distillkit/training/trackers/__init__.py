"""Observers that send a run to a tracker of experiments."""

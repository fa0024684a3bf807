"""What the user sees of a run: the header, the progress, the time that a job takes."""

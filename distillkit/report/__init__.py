"""The page of a run: what was distilled, how well, and what it looks like, in one HTML file."""

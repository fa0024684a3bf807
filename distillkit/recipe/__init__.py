"""What a run is to do, as data."""

"""What codecs are trained for: the core's objectives."""

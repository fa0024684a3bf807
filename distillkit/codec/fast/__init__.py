"""The replaced arithmetic: the same codec, coded faster."""

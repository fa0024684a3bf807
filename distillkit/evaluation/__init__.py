"""Measuring trained codecs on real files."""

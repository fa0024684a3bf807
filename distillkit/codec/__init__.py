"""Compressed files, and the codec that writes and reads them."""

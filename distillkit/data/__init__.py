"""Training images: the reader of pictures, crops, shards."""

"""Places where features are captured, and the pair of codecs from which they are captured."""

"""Where features are listened to, and the pair of codecs that is listened to."""

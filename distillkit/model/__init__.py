"""One trained codec: adapters around it, its file, its first weights."""

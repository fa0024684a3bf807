"""What a codec costs on this machine: time by part, memory, size; against its teacher and classical codecs."""

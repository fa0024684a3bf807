"""What teaches: the frozen teacher, its rates, and what the loss terms measure of it."""

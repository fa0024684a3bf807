"""How fast the weights move: optimisers and schedules of the learning rate."""

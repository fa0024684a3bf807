"""One step of training: forward, backward, clipping and the optimisers, launched one by one or replayed."""

"""The ways to train an epoch: the textbook one, and faster ones that agree to rounding."""

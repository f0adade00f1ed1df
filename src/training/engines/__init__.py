"""The ways to train an epoch: one that reads as the algorithm, and faster ones that compute the same to rounding."""

"""What a training pass costs, beside PyTorch, scikit-learn and JAX: ``python -m tests.benchmarks``.

A pass of each is timed in turn, round after round, so that other work on the machine slows all of
them alike. A ratio is taken within a round.
"""

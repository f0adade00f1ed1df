"""What a training pass costs, beside PyTorch, scikit-learn and JAX: ``python -m tests.benchmarks``.

A pass of each is timed in turn, round after round, so that whatever else the machine does meets all of them alike; a ratio
is taken within a round.
"""

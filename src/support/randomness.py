"""A separate random stream for each purpose: changing one use of a seed changes no other."""

from typing import Literal

import numpy as np

# The numbers decide what a seed means. Append new streams; never renumber.
_STREAMS = {"weights": 0, "order": 1, "split": 2, "dropout": 3, "samples": 4}

Stream = Literal["weights", "order", "split", "dropout", "samples"]


def stream(seed: int, name: Stream, index: int = 0) -> np.random.Generator:
    """Return the generator for one purpose of the seed.

    ``index`` separates repeated draws for the same purpose: ``stream(seed, "order", 7)`` gives the
    order of epoch 7, whether or not the earlier epochs were drawn.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_STREAMS[name], index)))

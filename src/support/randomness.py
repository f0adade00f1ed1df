"""Named streams of random numbers, so that changing one use of the seed leaves every other alone."""

from typing import Literal

import numpy as np

# A stream's number is part of what a seed means: append, never renumber.
_STREAMS = {"weights": 0, "order": 1, "split": 2, "dropout": 3}

Stream = Literal["weights", "order", "split", "dropout"]


def stream(seed: int, name: Stream, index: int = 0) -> np.random.Generator:
    """Return the generator for one use of the seed.

    ``index`` separates repeated draws of one kind. The order of epoch 7 is drawn from
    ``stream(seed, "order", 7)``: it can be had without drawing the six before it.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_STREAMS[name], index)))

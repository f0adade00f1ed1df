"""The images that all of them train on."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from src.data import Splitting
from src.data.mnist import Mnist, cache_file
from src.nn.layers import Array


@dataclass(frozen=True)
class Images:
    """Images as bytes, which ours scales in every pass, and scaled once, for the others."""

    name: str
    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    @cached_property
    def scaled(self) -> Array:
        return self.pixels * np.float32(1 / 255)


def load() -> Images:
    """Return MNIST's training images if they are there, else random ones. Nothing is downloaded."""
    folder = os.environ.get("SCRATCHGRID_MNIST")
    if folder or cache_file().exists():
        path = Path(folder) if folder else None
        train = Mnist(split=Splitting(train=None, val=0, test="own"), path=path).load().train
        return Images("MNIST's training images", train.images.astype(np.uint8), train.labels)
    rng = np.random.default_rng(0)
    inked = rng.random((60_000, 784), np.float32) < 0.19  # of MNIST's pixels as many are not 0
    pixels = rng.integers(1, 256, inked.shape, np.uint8) * inked
    return Images(
        "random images of MNIST's shape and sparsity", pixels, rng.integers(0, 10, len(pixels))
    )

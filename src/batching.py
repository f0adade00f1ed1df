"""Which samples form an update: all of them, a few, or one."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from src.errors import require

# What picks a batch's rows: a slice where they stand in a row (a view, no copy), else their indices.
Rows = slice | npt.NDArray[np.intp]


class Batching(ABC):
    """Divides the training samples into batches, anew for each epoch."""

    @abstractmethod
    def batches(self, samples: int, rng: np.random.Generator) -> Iterator[Rows]:
        """Yield the rows of each batch of one epoch; together they hold each of the ``samples`` rows once."""

    @abstractmethod
    def updates(self, samples: int) -> int:
        """Return how many batches an epoch has."""

    def check(self, samples: int) -> None:
        """Raise InvalidValue where this batching can't divide so few samples."""


@dataclass(frozen=True)
class Full(Batching):
    """One batch of all samples in their order: gradient descent proper."""

    def batches(self, samples: int, rng: np.random.Generator) -> Iterator[Rows]:
        yield slice(0, samples)

    def updates(self, samples: int) -> int:
        return 1


@dataclass(frozen=True)
class Mini(Batching):
    """Batches of ``size`` samples; the last may be smaller, or is dropped."""

    size: int
    shuffle: bool = True
    drop_last: bool = False

    def __post_init__(self) -> None:
        require(self.size >= 1, "size", self.size, "must be 1 or more")

    def check(self, samples: int) -> None:
        require(self.size <= samples, "size", self.size, f"must be at most the {samples} training samples")

    def batches(self, samples: int, rng: np.random.Generator) -> Iterator[Rows]:
        end = samples - samples % self.size if self.drop_last else samples
        if self.shuffle:
            order = rng.permutation(samples)
            for start in range(0, end, self.size):
                yield order[start : start + self.size]
        else:
            for start in range(0, end, self.size):
                yield slice(start, min(start + self.size, samples))

    def updates(self, samples: int) -> int:
        return samples // self.size if self.drop_last else -(-samples // self.size)


@dataclass(frozen=True)
class Sample(Batching):
    """One sample an update: stochastic gradient descent in its first sense."""

    shuffle: bool = True

    def batches(self, samples: int, rng: np.random.Generator) -> Iterator[Rows]:
        return Mini(1, self.shuffle).batches(samples, rng)

    def updates(self, samples: int) -> int:
        return samples

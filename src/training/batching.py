"""Which samples form an update: all of them, a few, or one."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from src.support.errors import require

# Which rows: a slice if they are adjacent (which gives a view), else their indices.
Rows = slice | npt.NDArray[np.intp]


class Batching(ABC):
    """Divides the training samples of each epoch into batches: an order, cut into equal pieces."""

    shuffle: bool  # whether the order is drawn, and so another one for another seed

    @abstractmethod
    def order(self, samples: int, rng: np.random.Generator) -> Rows:
        """Return the rows of one epoch in the order of training, each at most once."""

    @abstractmethod
    def batch_size(self, samples: int) -> int:
        """Return how many rows an update takes; the last one may take fewer."""

    @abstractmethod
    def updates(self, samples: int) -> int:
        """Return how many batches an epoch has."""

    def order_by(self, seed: int) -> int | None:
        """Return a key that seeds with equal orders share: the seed, or None without shuffling."""
        return seed if self.shuffle else None

    def check(self, samples: int) -> None:
        """Raise InvalidValue if this batching cannot divide so few samples."""

    def batches(self, samples: int, rng: np.random.Generator) -> Iterator[Rows]:
        """Yield the rows of each batch of one epoch."""
        return batches(self.order(samples, rng), self.batch_size(samples))


def batches(order: Rows, size: int) -> Iterator[Rows]:
    """Yield the rows in pieces of a size; the last may be smaller."""
    for start in range(0, length(order), size):
        yield part(order, start, start + size)


def length(order: Rows) -> int:
    """Return how many rows an order has."""
    return order.stop - order.start if isinstance(order, slice) else len(order)


def part(order: Rows, start: int, end: int) -> Rows:
    """Return the rows of an order from its place ``start`` on, to ``end`` or to its last one."""
    if isinstance(order, slice):
        return slice(order.start + start, min(order.start + end, order.stop))
    return order[start:end]


@dataclass(frozen=True)
class Full(Batching):
    """One batch of all samples in their order: gradient descent proper."""

    shuffle = False

    def order(self, samples: int, rng: np.random.Generator) -> Rows:
        return slice(0, samples)

    def batch_size(self, samples: int) -> int:
        return samples

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
        require(
            self.size <= samples,
            "size",
            self.size,
            f"must be at most the {samples} training samples",
        )

    def order(self, samples: int, rng: np.random.Generator) -> Rows:
        end = samples - samples % self.size if self.drop_last else samples
        return rng.permutation(samples)[:end] if self.shuffle else slice(0, end)

    def batch_size(self, samples: int) -> int:
        return self.size

    def updates(self, samples: int) -> int:
        return samples // self.size if self.drop_last else -(-samples // self.size)


@dataclass(frozen=True)
class Sample(Batching):
    """One sample an update: stochastic gradient descent in its first sense."""

    shuffle: bool = True

    def order(self, samples: int, rng: np.random.Generator) -> Rows:
        return rng.permutation(samples) if self.shuffle else slice(0, samples)

    def batch_size(self, samples: int) -> int:
        return 1

    def updates(self, samples: int) -> int:
        return samples

"""The interface of the engines, which each compute an epoch in their own way."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from src.nn.layers import Array
from src.nn.losses import Labels, Loss
from src.nn.network import Network, Parameters
from src.training.batching import Rows
from src.training.optimizers import Optimizer, State


@dataclass(frozen=True)
class Arrays:
    """A set: ``x (n, features)`` as its source holds it, and ``labels (n,)``.

    The network sees ``scale`` · x in the precision ``dtype``. Pixels stay bytes until a batch needs
    them, which takes a quarter of the memory and no more time.
    """

    x: npt.NDArray[Any]
    labels: npt.NDArray[np.int64]
    scale: float = 1.0
    dtype: npt.DTypeLike | None = None  # by default that of x

    def rows(self, rows: Rows, out: Array | None = None) -> Array:
        """Return some samples as the network sees them: a view of x or ``out`` where possible."""
        if self.is_seen_as_it_is:
            if isinstance(rows, slice):
                return self.x[rows]
            # With mode="clip" NumPy writes into ``out`` at once, without a copy of its own.
            return np.take(self.x, rows, axis=0, out=out, mode="clip")
        x = self.x[rows] if isinstance(rows, slice) else self.x.take(rows, axis=0)
        if out is None:
            out = np.empty(x.shape, self.precision)
        np.copyto(out, x, casting="unsafe")  # two calls are faster than one that does both
        if self.scale != 1:
            out *= self.precision.type(self.scale)
        return out

    @property
    def is_seen_as_it_is(self) -> bool:
        """Whether x needs neither scaling nor another precision."""
        return self.scale == 1 and self.x.dtype == self.precision

    @property
    def place(self) -> tuple[int, int, float]:
        """What two sets have in common if they hold the same arrays at the same scale."""
        return id(self.x), id(self.labels), self.scale

    @property
    def precision(self) -> np.dtype[Any]:
        """The precision in which the network sees x."""
        return np.dtype(self.dtype or self.x.dtype)


@dataclass(frozen=True)
class OrderGroup:
    """Networks of a stack that see the same samples in the same order."""

    data: Arrays
    members: int  # how many networks


class Engine(ABC):
    """Trains k networks of one shape, each on its group's samples, epoch by epoch.

    A single network is a stack of one. The networks of the first order group come first, then those
    of the second, and so on.
    """

    def __init__(
        self,
        network: Network,
        parameters: Sequence[Parameters],
        states: Sequence[State],
        groups: Sequence[OrderGroup],
        *,
        loss: Loss,
        optimizers: Sequence[Optimizer],  # of one class, equal except for their weight decay
        batch_size: int,
    ) -> None:
        assert len(parameters) == sum(group.members for group in groups)
        self.network, self.groups, self.loss = network, groups, loss
        self.optimizers, self.batch_size = optimizers, batch_size
        # Replaced by every epoch, never written into: callers may keep them.
        self.parameters, self.states = list(parameters), list(states)
        self.dtype = np.dtype(groups[0].data.precision)

    @abstractmethod
    def epoch(
        self,
        orders: Sequence[Rows],
        rates: npt.NDArray[np.float64],
        masks: Sequence[np.random.Generator],
    ) -> list[Array]:
        """Train each group on its order, in batches; the last batch may be smaller.

        Network j makes update u at the learning rate ``rates[u, j]``, and draws its dropout masks
        from ``masks[j]``. Returns for each network the logits (n, classes) of its training passes,
        in the order of training.
        """

    def members(self) -> list[slice]:
        """Return where each group's networks stand in the stack."""
        ends = list(accumulate(group.members for group in self.groups))
        return [
            slice(end - group.members, end) for group, end in zip(self.groups, ends, strict=True)
        ]

    def labels(self, orders: Sequence[Rows]) -> Labels:
        """Return the labels (k, n) in the order in which each network sees them."""
        of_groups = [
            group.data.labels[order] for group, order in zip(self.groups, orders, strict=True)
        ]
        return np.repeat(of_groups, [group.members for group in self.groups], axis=0)


def stack(trees: Sequence[Any]) -> Any:
    """Return the networks' arrays, nested in tuples, stacked on a new first axis."""
    if isinstance(trees[0], tuple):
        return tuple(stack(parts) for parts in zip(*trees, strict=True))
    return np.stack(trees)


def member(tree: Any, j: int) -> Any:
    """Return copies of network j's arrays: ``stack`` undone."""
    if isinstance(tree, tuple):
        return tuple(member(part, j) for part in tree)
    return tree[j].copy()

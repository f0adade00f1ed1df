"""What every way of training an epoch is given, and what it gives back."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from src.nn.layers import Array
from src.nn.losses import Loss
from src.nn.network import Network, Parameters
from src.training.batching import Rows
from src.training.optimizers import Optimizer, State


@dataclass(frozen=True)
class Arrays:
    """A set: ``x (n, features)`` as its source holds it, which ``scale`` brings to what the network sees; ``labels (n,)``.

    Pixels stay bytes until a batch needs them: a quarter of the memory, and as quick.
    """

    x: npt.NDArray[Any]
    labels: npt.NDArray[np.int64]
    scale: float = 1.0
    dtype: npt.DTypeLike | None = None  # the network's precision, by default that of x

    def rows(self, rows: Rows, out: Array | None = None) -> Array:
        """Return some samples as the network sees them, in its precision; where nothing need be done, a view."""
        x = self.x[rows] if isinstance(rows, slice) else self.x.take(rows, axis=0)
        if self.is_seen_as_it_is and out is None:
            return x
        if out is None:
            out = np.empty(x.shape, self.precision)
        np.copyto(out, x, casting="unsafe")  # and scaled where it is: quicker than both in one call
        if self.scale != 1:
            out *= self.precision.type(self.scale)
        return out

    @property
    def is_seen_as_it_is(self) -> bool:
        """Whether x needs neither scaling nor another precision."""
        return self.scale == 1 and self.x.dtype == self.precision

    @property
    def place(self) -> tuple[int, int, float]:
        """What is equal of sets that hold the same arrays, seen at the same scale."""
        return id(self.x), id(self.labels), self.scale

    @property
    def precision(self) -> np.dtype[Any]:
        return np.dtype(self.dtype or self.x.dtype)


class Engine(ABC):
    """Trains one network, or a stack of them, on one set, epoch by epoch."""

    def __init__(
        self,
        network: Network,
        parameters: Parameters,
        data: Arrays,
        *,
        loss: Loss,
        optimizer: Optimizer,
    ) -> None:
        self.network, self.data, self.loss, self.optimizer = network, data, loss, optimizer
        self.parameters = parameters  # replaced by every epoch, never written into
        self.state: State = optimizer.start(parameters)

    @abstractmethod
    def epoch(
        self, order: Rows, size: int, rates: list[float], masks: np.random.Generator
    ) -> Array:
        """Train on the rows in their order, ``size`` an update, the last perhaps fewer; update u at the rate ``rates[u]``.

        Dropout draws from ``masks``. Returns the logits of every row (n, classes), as they were in its training pass.
        """

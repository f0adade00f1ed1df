"""How the learning rate changes during training: each update has its own factor of ``lr``.

Time t is counted in epochs and grows with each update: update u of U in epoch e is made at
t = e − 1 + u/U.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from src.support.errors import require
from src.training.metric_watch import MetricWatch

Times = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Schedule(ABC):
    """A factor by time, after a linear rise over the first ``warmup`` epochs.

    The rise is that of Goyal et al. 2017, section 2.2.

    A schedule's own clock starts when the warm-up ends.
    """

    warmup: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.warmup < math.inf, "warmup", self.warmup, "must be 0 epochs or more")

    @property
    def watch(self) -> MetricWatch | None:
        """The metric that the schedule uses, if any."""
        return None

    @abstractmethod
    def decay(self, t: Times, length: float, watched: Sequence[float]) -> Times:
        """Return the factors at times t after the warm-up, in a training of ``length`` epochs."""

    def factors(
        self, epoch: int, updates: int, epochs: int, watched: Sequence[float] = ()
    ) -> Times:
        """Return the factor of each of the ``updates`` of an epoch (from 1) of ``epochs``.

        ``watched`` holds the watched metric's value after each earlier epoch.
        """
        t = epoch - 1 + np.arange(updates) / updates
        after = watched[math.ceil(self.warmup) :]
        factors = self.decay(np.maximum(t - self.warmup, 0), epochs - self.warmup, after)
        if epoch - 1 >= self.warmup:
            return factors
        return np.where(t < self.warmup, np.minimum((t + 1 / updates) / self.warmup, 1), factors)


@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """Always 1."""

    def decay(self, t: Times, length: float, watched: Sequence[float]) -> Times:
        return np.ones_like(t)


@dataclass(frozen=True, kw_only=True)
class Step(Schedule):
    """factor^⌊t / every⌋: a fall after every so many epochs (PyTorch's StepLR)."""

    every: int
    factor: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.every >= 1, "every", self.every, "must be 1 epoch or more")
        require(0 < self.factor < 1, "factor", self.factor, "must lie between 0 and 1")

    def decay(self, t: Times, length: float, watched: Sequence[float]) -> Times:
        return self.factor ** np.floor(t / self.every)


@dataclass(frozen=True, kw_only=True)
class InverseScaling(Schedule):
    """1 / (1 + rate · t)^power (Bottou 2012, section 5.2).

    scikit-learn's invscaling counts samples instead of epochs: its ``rate`` is the number of
    training samples.
    """

    power: float
    rate: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.power < math.inf, "power", self.power, "must be positive and finite")
        require(0 < self.rate < math.inf, "rate", self.rate, "must be positive and finite")

    def decay(self, t: Times, length: float, watched: Sequence[float]) -> Times:
        return (1 + self.rate * t) ** -self.power


@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """Half a cosine from 1 to ``floor`` at the end (Loshchilov and Hutter 2017, eq. 5)."""

    floor: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.floor < 1, "floor", self.floor, "must be 0 or more and below 1")

    def decay(self, t: Times, length: float, watched: Sequence[float]) -> Times:
        share = np.minimum(t / length, 1) if length > 0 else np.ones_like(t)
        return self.floor + (1 - self.floor) * (1 + np.cos(np.pi * share)) / 2


@dataclass(frozen=True, kw_only=True)
class Plateau(Schedule):
    """``factor`` again after each run of more than ``patience`` epochs without improvement.

    PyTorch's ReduceLROnPlateau.
    """

    metric: str
    factor: float
    patience: int
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.factor < 1, "factor", self.factor, "must lie between 0 and 1")
        require(self.patience >= 0, "patience", self.patience, "must be 0 epochs or more")
        MetricWatch(self.metric, self.min_delta)

    @property
    def watch(self) -> MetricWatch:
        return MetricWatch(self.metric, self.min_delta)

    def decay(self, t: Times, length: float, watched: Sequence[float]) -> Times:
        falls = waited = 0
        for improved in self.watch.improvements(watched):
            waited = 0 if improved else waited + 1
            if waited > self.patience:
                falls, waited = falls + 1, 0
        return np.full_like(t, self.factor**falls)

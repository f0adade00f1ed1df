"""Where training starts: the first weights and biases are drawn, or read from a file.

The fan-in and fan-out of a weight matrix are its numbers of inputs and outputs.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from src.nn.layers import Array, Dense
from src.nn.network import Network, Parameters
from src.nn.weights import load_weights
from src.support.errors import require


class Distribution(ABC):
    """A distribution of weights or biases, which may depend on the fans of the layer."""

    @abstractmethod
    def draw(
        self, rng: np.random.Generator, shape: tuple[int, int], fan_in: int, fan_out: int
    ) -> npt.NDArray[np.float64]:
        """Return independent draws, always in double precision."""


@dataclass(frozen=True)
class XavierNormal(Distribution):
    """Normal, mean 0, variance 2 / (fan_in + fan_out) (Glorot and Bengio 2010, eq. 12)."""

    def draw(
        self, rng: np.random.Generator, shape: tuple[int, int], fan_in: int, fan_out: int
    ) -> npt.NDArray[np.float64]:
        return rng.normal(0, math.sqrt(2 / (fan_in + fan_out)), shape)


@dataclass(frozen=True)
class XavierUniform(Distribution):
    """Uniform in ±√(6 / (fan_in + fan_out)) (Glorot and Bengio 2010, eq. 16).

    It has the variance of XavierNormal.
    """

    def draw(
        self, rng: np.random.Generator, shape: tuple[int, int], fan_in: int, fan_out: int
    ) -> npt.NDArray[np.float64]:
        limit = math.sqrt(6 / (fan_in + fan_out))
        return rng.uniform(-limit, limit, shape)


@dataclass(frozen=True)
class HeNormal(Distribution):
    """Normal, mean 0, variance 2 / fan_in (He et al. 2015, eq. 10).

    It keeps the variance of the values from one ReLU layer to the next.
    """

    def draw(
        self, rng: np.random.Generator, shape: tuple[int, int], fan_in: int, fan_out: int
    ) -> npt.NDArray[np.float64]:
        return rng.normal(0, math.sqrt(2 / fan_in), shape)


@dataclass(frozen=True)
class LeCunNormal(Distribution):
    """Normal, mean 0, variance 1 / fan_in (LeCun et al. 1998, Efficient BackProp, eq. 16)."""

    def draw(
        self, rng: np.random.Generator, shape: tuple[int, int], fan_in: int, fan_out: int
    ) -> npt.NDArray[np.float64]:
        return rng.normal(0, math.sqrt(1 / fan_in), shape)


@dataclass(frozen=True)
class Normal(Distribution):
    """Normal, for layers of every size."""

    mean: float
    std: float

    def __post_init__(self) -> None:
        require(math.isfinite(self.mean), "mean", self.mean, "must be finite")
        require(0 < self.std < math.inf, "std", self.std, "must be positive and finite")

    def draw(
        self, rng: np.random.Generator, shape: tuple[int, int], fan_in: int, fan_out: int
    ) -> npt.NDArray[np.float64]:
        return rng.normal(self.mean, self.std, shape)


@dataclass(frozen=True)
class Uniform(Distribution):
    """Uniform in [low, high), for layers of every size."""

    low: float
    high: float

    def __post_init__(self) -> None:
        require(math.isfinite(self.low), "low", self.low, "must be finite")
        require(
            self.low < self.high < math.inf,
            "high",
            self.high,
            f"must be finite and greater than low, which is {self.low}",
        )

    def draw(
        self, rng: np.random.Generator, shape: tuple[int, int], fan_in: int, fan_out: int
    ) -> npt.NDArray[np.float64]:
        return rng.uniform(self.low, self.high, shape)


@dataclass(frozen=True)
class Zeros(Distribution):
    """All 0, the usual start for biases.

    As weights of a hidden layer, zeros keep all its units equal for the whole training.
    """

    def draw(
        self, rng: np.random.Generator, shape: tuple[int, int], fan_in: int, fan_out: int
    ) -> npt.NDArray[np.float64]:
        return np.zeros(shape)


class Initializer(ABC):
    """Makes a network's first parameters."""

    @abstractmethod
    def initialize(
        self, network: Network, rng: np.random.Generator, dtype: npt.DTypeLike
    ) -> Parameters:
        """Return a tuple of arrays per layer: ``(W, b)`` if it is dense, ``()`` if not."""


@dataclass(frozen=True)
class Random(Initializer):
    """Draws weights and biases, each from its distribution.

    The weights of the output layer can have a distribution of their own.
    """

    weights: Distribution
    biases: Distribution
    output: Distribution | None = None

    def __str__(self) -> str:
        output = f", output weights {self.output}" if self.output else ""
        return f"weights {self.weights}, biases {self.biases}{output}"

    def initialize(
        self, network: Network, rng: np.random.Generator, dtype: npt.DTypeLike
    ) -> Parameters:
        *_, last = (layer for layer in network if isinstance(layer, Dense))

        def draw(layer: Dense) -> tuple[Array, ...]:
            weights = self.output if layer is last and self.output else self.weights
            fans = (layer.fan_in, layer.fan_out)
            W = weights.draw(rng, fans, *fans)
            b = self.biases.draw(rng, (1, layer.fan_out), *fans)
            return W.astype(dtype), b.astype(dtype)

        return tuple(draw(layer) if isinstance(layer, Dense) else () for layer in network)


@dataclass(frozen=True)
class FromFile(Initializer):
    """Reads parameters from an ``.npz`` of ``W1, b1, W2, b2, …`` (see src.nn.weights)."""

    path: Path

    def __str__(self) -> str:
        return f"weights and biases from {self.path}"

    def initialize(
        self, network: Network, rng: np.random.Generator, dtype: npt.DTypeLike
    ) -> Parameters:
        """Raises DataError if the file is unreadable or does not fit the network."""
        return load_weights(self.path, network, dtype)

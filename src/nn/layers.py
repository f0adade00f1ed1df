"""The layers of a network: each knows its forward map and, as the mirror of it, its gradients.

A layer holds no arrays. Its parameters come in as a tuple and its gradients go out as one, so that a layer
is a plain value and the same code serves one network and a stack of them.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from src.support.errors import require

Array = npt.NDArray[np.floating]


class Layer(ABC):
    """A differentiable map from ``x (..., batch, in)`` to ``y (..., batch, out)``."""

    @property
    def parameter_shapes(self) -> tuple[tuple[int, int], ...]:
        """The shapes of one network's parameters of this layer; most layers have none."""
        return ()

    @abstractmethod
    def forward(self, parameters: tuple[Array, ...], x: Array) -> Array:
        """Return y."""

    @abstractmethod
    def input_gradient(self, parameters: tuple[Array, ...], x: Array, y: Array, dy: Array) -> Array:
        """Return ∂L/∂x, of x's shape, given ``dy`` = ∂L/∂y and both ends of the forward map."""

    def parameter_gradients(self, x: Array, dy: Array) -> tuple[Array, ...]:
        """Return ∂L/∂p for each of the layer's parameters p."""
        return ()


@dataclass(frozen=True)
class Dense(Layer):
    """The affine map ``y = x W + b``, with parameters ``W (..., fan_in, fan_out)`` and ``b (..., 1, fan_out)``."""

    fan_in: int
    fan_out: int

    @property
    def parameter_shapes(self) -> tuple[tuple[int, int], ...]:
        return (self.fan_in, self.fan_out), (1, self.fan_out)

    def forward(self, parameters: tuple[Array, ...], x: Array) -> Array:
        W, b = parameters
        return x @ W + b

    def input_gradient(self, parameters: tuple[Array, ...], x: Array, y: Array, dy: Array) -> Array:
        W, _ = parameters
        return dy @ W.swapaxes(-1, -2)

    def parameter_gradients(self, x: Array, dy: Array) -> tuple[Array, ...]:
        return x.swapaxes(-1, -2) @ dy, dy.sum(axis=-2, keepdims=True)

    def __str__(self) -> str:
        return f"dense {self.fan_in}→{self.fan_out}"


class Activation(Layer):
    """An element-wise map: every y depends on the x in its own place only."""

    # Whether y levels off on both sides, so that a unit can saturate; any other can only die.
    saturates: ClassVar[bool] = False
    # The greatest derivative there is.
    steepest: ClassVar[float] = 1.0

    @abstractmethod
    def apply(self, x: Array) -> Array:
        """Return y = f(x)."""

    @abstractmethod
    def derivative(self, x: Array, y: Array) -> Array:
        """Return f'(x), from whichever of x and y makes it cheapest."""

    def forward(self, parameters: tuple[Array, ...], x: Array) -> Array:
        return self.apply(x)

    def input_gradient(self, parameters: tuple[Array, ...], x: Array, y: Array, dy: Array) -> Array:
        return dy * self.derivative(x, y)

    def __str__(self) -> str:
        return type(self).__name__.lower()


@dataclass(frozen=True)
class ReLU(Activation):
    """max(0, x) (Nair and Hinton 2010); the derivative at 0 is taken as 0."""

    def apply(self, x: Array) -> Array:
        return np.maximum(x, 0)

    def derivative(self, x: Array, y: Array) -> Array:
        return (y > 0).astype(y.dtype)


@dataclass(frozen=True)
class LeakyReLU(Activation):
    """x where it is positive, else ``slope`` · x (Maas, Hannun and Ng 2013): no unit can die."""

    slope: float = 0.01

    def __post_init__(self) -> None:
        require(0 < self.slope < 1, "slope", self.slope, "must lie between 0 and 1")

    def apply(self, x: Array) -> Array:
        y: Array = np.maximum(x, self.slope * x)  # the greater of the two, the slope being below 1
        return y

    def derivative(self, x: Array, y: Array) -> Array:
        derivative: Array = np.where(y > 0, y.dtype.type(1), y.dtype.type(self.slope))
        return derivative

    def __str__(self) -> str:
        return "leaky relu"


@dataclass(frozen=True)
class GELU(Activation):
    """x · Φ(x), Φ the normal distribution's function, in the form ½ x (1 + tanh(√(2/π) (x + 0.044715 x³))).

    Hendrycks and Gimpel 2016, section 2; it differs from the exact form by 5e-4 at most.
    """

    steepest: ClassVar[float] = 1.13

    def apply(self, x: Array) -> Array:
        y: Array = 0.5 * x * (1 + self._tanh(x))
        return y

    def derivative(self, x: Array, y: Array) -> Array:
        t = self._tanh(x)
        inner = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
        derivative: Array = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * inner
        return derivative

    @staticmethod
    def _tanh(x: Array) -> Array:
        t: Array = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))
        return t


@dataclass(frozen=True)
class Sigmoid(Activation):
    """1 / (1 + e⁻ˣ), in the form ½ + ½ tanh(x/2), which can't overflow."""

    saturates: ClassVar[bool] = True
    steepest: ClassVar[float] = 0.25

    def apply(self, x: Array) -> Array:
        y: Array = 0.5 + 0.5 * np.tanh(0.5 * x)
        return y

    def derivative(self, x: Array, y: Array) -> Array:
        return y * (1 - y)


@dataclass(frozen=True)
class Tanh(Activation):
    """The hyperbolic tangent (LeCun et al. 1998, Efficient BackProp, section 4.4, without their scaling)."""

    saturates: ClassVar[bool] = True

    def apply(self, x: Array) -> Array:
        y: Array = np.tanh(x)
        return y

    def derivative(self, x: Array, y: Array) -> Array:
        return 1 - y * y


@dataclass(frozen=True)
class Identity(Activation):
    """y = x: a network of dense layers alone, which is as expressive as one of them."""

    def apply(self, x: Array) -> Array:
        return x

    def derivative(self, x: Array, y: Array) -> Array:
        return np.ones_like(x)


@dataclass(frozen=True)
class Dropout(Layer):
    """Silences each unit with probability ``rate`` while training, each batch and sample anew (Srivastava et al. 2014).

    In a training pass the layer's tuple holds that pass's mask; otherwise it is empty and y = x. The units that stay
    are scaled up by 1 / (1 − rate), so that nothing need be scaled afterwards.
    """

    units: int
    rate: float

    def mask(self, batch: tuple[int, ...], rng: np.random.Generator, dtype: npt.DTypeLike) -> Array:
        """Return factors of shape (*batch, units): 0 or 1 / (1 − rate)."""
        stays = rng.random((*batch, self.units), dtype=np.float32) >= self.rate
        mask: Array = stays.astype(dtype) / (1 - self.rate)
        return mask

    def forward(self, parameters: tuple[Array, ...], x: Array) -> Array:
        return x * parameters[0] if parameters else x

    def input_gradient(self, parameters: tuple[Array, ...], x: Array, y: Array, dy: Array) -> Array:
        return dy * parameters[0] if parameters else dy

    def __str__(self) -> str:
        return f"dropout {self.rate:g}"

"""The layers of a network: each computes its output and, as the mirror of that, its gradients.

A layer holds no arrays. Its parameters come in as a tuple and its gradients go out as one. So a
layer is a plain value, and the same code serves one network and a stack of networks.
"""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

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
    """The affine map ``y = x W + b``: ``W (..., fan_in, fan_out)``, ``b (..., 1, fan_out)``."""

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
    """An element-wise map: each entry of y depends on the same entry of x only.

    A new activation needs ``apply`` and ``derivative``. The rest has defaults. To be as fast as
    ReLU it also overrides ``apply_into`` and ``derivative_into``, and sets ``derivative_from_y``.
    """

    # Whether y levels off on both sides. Such units can saturate; all others can only die.
    saturates: ClassVar[bool] = False
    # The greatest slope.
    steepest: ClassVar[float] = 1.0
    # Where the derivative jumps. Finite differences mean nothing across such a point.
    corners: ClassVar[tuple[float, ...]] = ()
    # Whether the derivative needs y only, so that a fast engine may write y over x.
    # ``derivative`` and ``derivative_into`` are then given y in place of x.
    derivative_from_y: ClassVar[bool] = False

    @abstractmethod
    def apply(self, x: Array) -> Array:
        """Return y = f(x)."""

    @abstractmethod
    def derivative(self, x: Array, y: Array) -> Array:
        """Return f'(x), from whichever of x and y makes it cheapest."""

    def apply_into(self, x: Array, out: Array) -> None:
        """Write f(x) into ``out``, which may be x itself."""
        out[...] = self.apply(x)

    def derivative_into(self, x: Array, y: Array, out: Array) -> None:
        """Write f'(x) into ``out``, which is neither x nor y."""
        out[...] = self.derivative(x, y)

    def calls(self, dtype: np.dtype[Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """Return calls like ``apply_into`` and ``derivative_into``, for a few numbers at a time.

        An override may save the time that a method takes beside so little work.
        """
        return self.apply_into, self.derivative_into

    def forward(self, parameters: tuple[Array, ...], x: Array) -> Array:
        return self.apply(x)

    def input_gradient(self, parameters: tuple[Array, ...], x: Array, y: Array, dy: Array) -> Array:
        return dy * self.derivative(x, y)

    def __str__(self) -> str:
        return type(self).__name__.lower()


@dataclass(frozen=True)
class ReLU(Activation):
    """max(0, x) (Nair and Hinton 2010); the derivative at 0 is taken as 0."""

    corners: ClassVar[tuple[float, ...]] = (0.0,)
    derivative_from_y: ClassVar[bool] = True

    def apply(self, x: Array) -> Array:
        return np.maximum(x, 0)

    def derivative(self, x: Array, y: Array) -> Array:
        return (y > 0).astype(y.dtype)

    def apply_into(self, x: Array, out: Array) -> None:
        np.maximum(x, _number(0, x.dtype), out=out)

    def derivative_into(self, x: Array, y: Array, out: Array) -> None:
        np.sign(y, out=out)

    def calls(self, dtype: np.dtype[Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
        return functools.partial(np.maximum, np.zeros((), dtype)), self.derivative_into


@dataclass(frozen=True)
class LeakyReLU(Activation):
    """x where it is positive, else ``slope`` · x (Maas, Hannun and Ng 2013): no unit can die."""

    corners: ClassVar[tuple[float, ...]] = (0.0,)
    derivative_from_y: ClassVar[bool] = True

    slope: float = 0.01

    def __post_init__(self) -> None:
        require(0 < self.slope < 1, "slope", self.slope, "must lie between 0 and 1")

    def apply(self, x: Array) -> Array:
        y: Array = np.maximum(x, self.slope * x)  # right because the slope is below 1
        return y

    def derivative(self, x: Array, y: Array) -> Array:
        derivative: Array = np.where(y > 0, y.dtype.type(1), y.dtype.type(self.slope))
        return derivative

    def apply_into(self, x: Array, out: Array) -> None:
        np.maximum(x, x * _number(self.slope, x.dtype), out=out)

    def derivative_into(self, x: Array, y: Array, out: Array) -> None:
        np.sign(y, out=out)
        np.maximum(out, _number(self.slope, y.dtype), out=out)

    def __str__(self) -> str:
        return "leaky relu"


@dataclass(frozen=True)
class GELU(Activation):
    """x · Φ(x), in the form ½ x (1 + tanh(√(2/π) (x + 0.044715 x³))).

    Φ is the normal distribution's function. Hendrycks and Gimpel 2016, section 2; the form differs
    from the exact value by 5e-4 at most.
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
    """1 / (1 + e⁻ˣ), in the form ½ + ½ tanh(x/2), which cannot overflow."""

    saturates: ClassVar[bool] = True
    steepest: ClassVar[float] = 0.25
    derivative_from_y: ClassVar[bool] = True

    def apply(self, x: Array) -> Array:
        y: Array = 0.5 + 0.5 * np.tanh(0.5 * x)
        return y

    def derivative(self, x: Array, y: Array) -> Array:
        return y * (1 - y)

    def apply_into(self, x: Array, out: Array) -> None:
        half = _number(0.5, x.dtype)
        np.multiply(x, half, out=out)
        np.tanh(out, out=out)
        np.multiply(out, half, out=out)
        np.add(out, half, out=out)

    def derivative_into(self, x: Array, y: Array, out: Array) -> None:
        np.subtract(_number(1, y.dtype), y, out)
        np.multiply(out, y, out)

    def calls(self, dtype: np.dtype[Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
        from scipy.special import expit  # one call, slower per number; its import takes long

        one = np.ones((), dtype)

        def derivative(x: Array, y: Array, out: Array) -> None:
            np.subtract(one, y, out)
            np.multiply(out, y, out)

        return expit, derivative


@dataclass(frozen=True)
class Tanh(Activation):
    """The hyperbolic tangent (LeCun et al. 1998, Efficient BackProp, section 4.4), not scaled."""

    saturates: ClassVar[bool] = True
    derivative_from_y: ClassVar[bool] = True

    def apply(self, x: Array) -> Array:
        y: Array = np.tanh(x)
        return y

    def derivative(self, x: Array, y: Array) -> Array:
        return 1 - y * y

    def apply_into(self, x: Array, out: Array) -> None:
        np.tanh(x, out=out)

    def derivative_into(self, x: Array, y: Array, out: Array) -> None:
        np.multiply(y, y, out=out)
        np.subtract(_number(1, y.dtype), out, out=out)


@dataclass(frozen=True)
class Identity(Activation):
    """y = x: dense layers alone, which together can express no more than one of them."""

    derivative_from_y: ClassVar[bool] = True

    def apply(self, x: Array) -> Array:
        return x

    def derivative(self, x: Array, y: Array) -> Array:
        return np.ones_like(x)


@dataclass(frozen=True)
class Dropout(Layer):
    """Silences each unit with probability ``rate`` in training (Srivastava et al. 2014).

    Each sample of each batch has its own mask. In a training pass the layer's tuple holds the
    mask; otherwise it is empty and y = x. The units that stay are scaled up by 1 / (1 − rate), so
    that nothing has to be scaled afterwards.
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


@functools.cache
def _number(value: float, dtype: np.dtype[Any]) -> Array:
    """Return a number as an array. NumPy converts a Python number at every call, which is slow."""
    return np.array(value, dtype)

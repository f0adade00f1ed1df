"""The layers of a network: each knows its forward map and, as the mirror of it, its gradients.

A layer holds no arrays. Its parameters come in as a tuple and its gradients go out as one, so that a layer
is a plain value and the same code serves one network and a stack of them.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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
    """max(0, x); the derivative at 0 is taken as 0."""

    def apply(self, x: Array) -> Array:
        return np.maximum(x, 0)

    def derivative(self, x: Array, y: Array) -> Array:
        return (y > 0).astype(y.dtype)


@dataclass(frozen=True)
class Sigmoid(Activation):
    """1 / (1 + e⁻ˣ), in the form ½ + ½ tanh(x/2), which can't overflow."""

    def apply(self, x: Array) -> Array:
        y: Array = 0.5 + 0.5 * np.tanh(0.5 * x)
        return y

    def derivative(self, x: Array, y: Array) -> Array:
        return y * (1 - y)


@dataclass(frozen=True)
class Tanh(Activation):
    """The hyperbolic tangent."""

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


ACTIVATIONS: dict[str, Activation] = {
    "relu": ReLU(),
    "sigmoid": Sigmoid(),
    "tanh": Tanh(),
    "identity": Identity(),
}

"""What an update does with the gradients: p ← p − lr · direction, a direction per optimizer."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from src.nn.layers import Array
from src.nn.network import Parameters
from src.support.errors import require

# What an optimizer keeps of one array of parameters between updates: arrays of the same shape.
Buffers = tuple[Array, ...]


@dataclass(frozen=True)
class State:
    """What an optimizer keeps between updates: their number, and the buffers of each array."""

    updates: int
    buffers: tuple[tuple[Buffers, ...], ...]  # by layer and array, as the parameters are

    @staticmethod
    def of(updates: int, parameters: Parameters, buffers: Sequence[Parameters]) -> "State":
        """Return the state with these buffers, each given in the form of the parameters."""
        arrays = tuple(
            tuple(tuple(buffer[i][a] for buffer in buffers) for a in range(len(layer)))
            for i, layer in enumerate(parameters)
        )
        return State(updates, arrays)

    def buffer(self, number: int) -> Parameters:
        """Return one buffer of all arrays, in the form of the parameters."""
        return tuple(tuple(of[number] for of in layer) for layer in self.buffers)


@dataclass(frozen=True, kw_only=True)
class Optimizer(ABC):
    """A rule that moves the parameters against their gradients.

    ``clip_norm`` bounds the length of the whole gradient, with all parameters taken as one vector
    (Pascanu, Mikolov and Bengio 2013, algorithm 1, with PyTorch's 1e-6 added to the divisor).
    ``weight_decay`` λ then adds λW to the gradient of the weights, as a penalty of λ/2 · ΣW² beside
    the mean loss would; biases have no penalty. This is PyTorch's convention: Nielsen's λ and n are
    λ/n here. scikit-learn divides its alpha by the number of samples in each batch: alpha over the
    batch size is the same here where every batch is full, and less where the last one is smaller.

    A new optimizer needs ``buffer_count`` and ``direction``. To be faster in the fast engines it
    also overrides ``step``, and ``linear`` where its update is linear.
    """

    weight_decay: float = 0.0
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        require(
            0 <= self.weight_decay < math.inf,
            "weight_decay",
            self.weight_decay,
            "must be 0 or more, and finite",
        )
        if self.clip_norm is not None:
            require(
                0 < self.clip_norm < math.inf,
                "clip_norm",
                self.clip_norm,
                "must be positive and finite, or null",
            )

    @property
    @abstractmethod
    def buffer_count(self) -> int:
        """How many buffers each array of parameters has."""

    @property
    def is_vanilla(self) -> bool:
        """Whether an update is W ← (1 − lr λ) W − lr g, which engines may rearrange."""
        return False

    def linear(
        self, lr: npt.NDArray[np.float64], decay: float | npt.NDArray[np.float64]
    ) -> tuple[Array, Array] | None:
        """Return A and B of updates that take a state s to A s − B g; None if not linear.

        The state is an array of m = 1 + ``buffer_count`` numbers: a parameter and its buffers. For
        learning rates and weight decays that broadcast to (...), A is (..., m, m), and B (..., m).
        They hold for every update, however many were before. Engines may rearrange such updates.
        """
        return None

    @abstractmethod
    def direction(self, gradient: Array, buffers: Buffers, updates: int) -> tuple[Array, Buffers]:
        """Return where one array of parameters moves, before the learning rate, and its buffers.

        ``updates`` counts from 1.
        """

    def step(
        self,
        p: Array,
        gradient: Array,
        buffers: Buffers,
        lr: float | Array,
        updates: int,
        scratch: Array,
    ) -> None:
        """Move p and its buffers in place; ``gradient`` and ``scratch``, of p's shape, are used up.

        ``lr`` is a number, or an array that broadcasts to p's shape.
        """
        direction, moved = self.direction(gradient, buffers, updates)
        p -= np.multiply(direction, lr, out=scratch)
        for buffer, new in zip(buffers, moved, strict=True):
            buffer[...] = new

    def check(self, dtype: np.dtype[Any]) -> None:
        """Raise InvalidValue if a setting vanishes in this precision."""

    def start(self, parameters: Parameters) -> State:
        """Return the state before the first update: all buffers 0."""
        zeros = [
            tuple(tuple(np.zeros_like(p) for p in layer) for layer in parameters)
            for _ in range(self.buffer_count)
        ]
        return State.of(0, parameters, zeros)

    def update(
        self,
        parameters: Parameters,
        gradients: Parameters,
        state: State,
        lr: float | Array,
        weight_decay: float | Array | None = None,
    ) -> tuple[Parameters, State]:
        """Return parameters and state after one step.

        For a stack, ``lr`` is an array (k, 1, 1), and so is a ``weight_decay`` that replaces the
        optimizer's own.
        """
        decay = self.weight_decay if weight_decay is None else weight_decay
        if self.clip_norm is not None:
            gradients = clipped(gradients, self.clip_norm)
        if np.any(decay):
            gradients = decayed(parameters, gradients, decay)
        updates = state.updates + 1
        moved, kept = [], []
        for layer, layer_gradients, layer_buffers in zip(
            parameters, gradients, state.buffers, strict=True
        ):
            directions = [
                self.direction(g, buffers, updates)
                for g, buffers in zip(layer_gradients, layer_buffers, strict=True)
            ]
            moved.append(tuple(p - lr * d for p, (d, _) in zip(layer, directions, strict=True)))
            kept.append(tuple(buffers for _, buffers in directions))
        return tuple(moved), State(updates, tuple(kept))


def decayed(parameters: Parameters, gradients: Parameters, decay: float | Array) -> Parameters:
    """Return the gradients with the penalty's; a layer's first array is its weights."""
    return tuple(
        (g[0] + decay * p[0], *g[1:]) if g else g
        for p, g in zip(parameters, gradients, strict=True)
    )


def norm(gradients: Parameters) -> Array:
    """Return the length of each network's whole gradient, of shape (..., 1, 1)."""
    squares = [(g * g).sum(axis=(-2, -1), keepdims=True) for layer in gradients for g in layer]
    length: Array = np.sqrt(reduce(np.add, squares))
    return length


def clip_factor(length: Array, most: float) -> Array:
    """Return what gradients of some length are scaled by, so that none is longer than ``most``."""
    factor: Array = np.minimum(most / (length + 1e-6), 1)
    return factor


def clipped(gradients: Parameters, most: float) -> Parameters:
    """Return the gradients, those of each network scaled down if they are longer than ``most``."""
    factor = clip_factor(norm(gradients), most)
    return tuple(tuple(g * factor for g in layer) for layer in gradients)


@dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """Gradient descent, vanilla or with momentum μ.

    With momentum v ← μv + g, and the direction is v, or g + μv with ``nesterov``. Polyak 1964;
    Nesterov's in the form of Sutskever et al. 2013. As in PyTorch, the learning rate is not in v.
    """

    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.momentum < 1, "momentum", self.momentum, "must be 0 or more and below 1")
        require(
            not self.nesterov or self.momentum > 0,
            "nesterov",
            self.nesterov,
            "needs a momentum above 0",
        )

    @property
    def buffer_count(self) -> int:
        return 1 if self.momentum else 0

    @property
    def is_vanilla(self) -> bool:
        return not self.momentum and self.clip_norm is None

    def linear(
        self, lr: npt.NDArray[np.float64], decay: float | npt.NDArray[np.float64]
    ) -> tuple[Array, Array] | None:
        if self.clip_norm is not None:
            return None
        if not self.momentum:
            return (1 - lr * decay)[..., None, None], lr[..., None]
        # The buffer v becomes μv + λp + g. Nesterov's direction has a second share of it.
        mu, ones = self.momentum, np.ones(np.broadcast_shapes(lr.shape, np.shape(decay)))
        of_v, of_g = (mu * mu, 1 + mu) if self.nesterov else (mu, 1.0)
        A = np.array([[1 - lr * of_g * decay, -lr * of_v * ones], [decay * ones, mu * ones]])
        B = np.array([lr * of_g * ones, -ones])
        return np.moveaxis(A, (0, 1), (-2, -1)), np.moveaxis(B, 0, -1)

    def direction(self, gradient: Array, buffers: Buffers, updates: int) -> tuple[Array, Buffers]:
        if not self.momentum:
            return gradient, buffers
        velocity = self.momentum * buffers[0] + gradient
        return gradient + self.momentum * velocity if self.nesterov else velocity, (velocity,)

    def step(
        self,
        p: Array,
        gradient: Array,
        buffers: Buffers,
        lr: float | Array,
        updates: int,
        scratch: Array,
    ) -> None:
        direction = gradient
        for velocity in buffers:  # one with momentum, else none
            velocity *= self.momentum
            velocity += gradient
            direction = velocity
            if self.nesterov:
                gradient += np.multiply(velocity, self.momentum, out=scratch)
                direction = gradient
        p -= np.multiply(direction, lr, out=scratch)


@dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    """The gradient's running mean over the root of its running square.

    Kingma and Ba 2015, algorithm 1.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.beta1 < 1, "beta1", self.beta1, "must be 0 or more and below 1")
        require(0 <= self.beta2 < 1, "beta2", self.beta2, "must be 0 or more and below 1")
        require(0 < self.epsilon < math.inf, "epsilon", self.epsilon, "must be positive and finite")

    def check(self, dtype: np.dtype[Any]) -> None:
        require(dtype.type(self.epsilon) > 0, "epsilon", self.epsilon, f"is 0 in {dtype}")

    @property
    def buffer_count(self) -> int:
        return 2

    def direction(self, gradient: Array, buffers: Buffers, updates: int) -> tuple[Array, Buffers]:
        mean = self.beta1 * buffers[0] + (1 - self.beta1) * gradient
        square = self.beta2 * buffers[1] + (1 - self.beta2) * gradient * gradient
        # Both start at 0. Divided by these they are means over what has been seen so far.
        unbiased_mean = mean / (1 - self.beta1**updates)
        unbiased_square = square / (1 - self.beta2**updates)
        return unbiased_mean / (np.sqrt(unbiased_square) + self.epsilon), (mean, square)

    def step(
        self,
        p: Array,
        gradient: Array,
        buffers: Buffers,
        lr: float | Array,
        updates: int,
        scratch: Array,
    ) -> None:
        mean, square = buffers
        mean *= self.beta1
        mean += np.multiply(gradient, 1 - self.beta1, out=scratch)
        np.multiply(gradient, gradient, out=scratch)
        square *= self.beta2
        square += np.multiply(scratch, 1 - self.beta2, out=scratch)
        root = np.multiply(square, 1 / (1 - self.beta2**updates), out=scratch)
        np.sqrt(root, out=root)
        root += self.epsilon
        step = np.multiply(mean, lr / (1 - self.beta1**updates), out=gradient)
        p -= np.divide(step, root, out=step)

"""What an update does with the gradients: p ← p − lr · direction, and each optimizer has its own direction."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from src.nn.layers import Array
from src.nn.network import Parameters
from src.support.errors import require

# What an optimizer remembers of one array of parameters from update to update: arrays of its shape.
Memory = tuple[Array, ...]


@dataclass(frozen=True)
class State:
    """What an optimizer knows between updates: how many it has made, and its memory of each array of parameters."""

    updates: int
    memory: tuple[tuple[Memory, ...], ...]  # by layer and array, as the parameters are


@dataclass(frozen=True, kw_only=True)
class Optimizer(ABC):
    """A rule that moves the parameters against their gradients.

    ``clip_norm`` bounds the length of the whole gradient, all parameters taken as one vector (Pascanu, Mikolov and
    Bengio 2013, algorithm 1), with PyTorch's 1e-6 added to the divisor. ``weight_decay`` λ then adds λW to the gradient
    of the weights, as a penalty of λ/2 · ΣW² beside the mean loss would; biases are left alone. This is PyTorch's
    convention: Nielsen's λ and n are λ/n here, and scikit-learn's alpha is alpha over the batch size.
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
    def remembers(self) -> int:
        """How many arrays are remembered of each array of parameters."""

    @abstractmethod
    def direction(self, gradient: Array, memory: Memory, updates: int) -> tuple[Array, Memory]:
        """Return where one array of parameters moves, before the learning rate, and what to remember.

        ``updates`` counts from 1.
        """

    def check(self, dtype: np.dtype[Any]) -> None:
        """Raise InvalidValue where a setting comes to nothing in this precision."""

    def start(self, parameters: Parameters) -> State:
        """Return the state before the first update: all memory 0."""
        memory = tuple(
            tuple(tuple(np.zeros_like(p) for _ in range(self.remembers)) for p in layer)
            for layer in parameters
        )
        return State(0, memory)

    def update(
        self, parameters: Parameters, gradients: Parameters, state: State, lr: float | Array
    ) -> tuple[Parameters, State]:
        """Return parameters and state after one step; ``lr`` is a number, or for a stack an array (..., 1, 1)."""
        if self.clip_norm is not None:
            gradients = clipped(gradients, self.clip_norm)
        updates = state.updates + 1
        moved, memories = [], []
        for layer, layer_gradients, layer_memory in zip(
            parameters, gradients, state.memory, strict=True
        ):
            steps = []
            for i, (p, g, memory) in enumerate(
                zip(layer, layer_gradients, layer_memory, strict=True)
            ):
                if self.weight_decay and i == 0:  # a layer's first array is its weights
                    g = g + self.weight_decay * p
                direction, memory = self.direction(g, memory, updates)
                steps.append((p - lr * direction, memory))
            moved.append(tuple(p for p, _ in steps))
            memories.append(tuple(memory for _, memory in steps))
        return tuple(moved), State(updates, tuple(memories))


def norm(gradients: Parameters) -> Array:
    """Return the length of each network's whole gradient, of shape (..., 1, 1)."""
    squares = [(g * g).sum(axis=(-2, -1), keepdims=True) for layer in gradients for g in layer]
    length: Array = np.sqrt(reduce(np.add, squares))
    return length


def clip_factor(gradients: Parameters, most: float) -> Array:
    """Return what each network's gradient is to be scaled by, of shape (..., 1, 1), so that it is no longer than ``most``."""
    factor: Array = np.minimum(most / (norm(gradients) + 1e-6), 1)
    return factor


def clipped(gradients: Parameters, most: float) -> Parameters:
    """Return the gradients, those of each network scaled down where together they are longer than ``most``."""
    factor = clip_factor(gradients, most)
    return tuple(tuple(g * factor for g in layer) for layer in gradients)


@dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """Gradient descent, plain or with momentum μ: v ← μv + g, and the direction is v, or g + μv with ``nesterov``.

    Polyak 1964; Nesterov's in the form of Sutskever et al. 2013. As in PyTorch, the learning rate is no part of v.
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
    def remembers(self) -> int:
        return 1 if self.momentum else 0

    def direction(self, gradient: Array, memory: Memory, updates: int) -> tuple[Array, Memory]:
        if not self.momentum:
            return gradient, memory
        velocity = self.momentum * memory[0] + gradient
        return gradient + self.momentum * velocity if self.nesterov else velocity, (velocity,)


@dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    """The gradient's running mean over the root of its running square (Kingma and Ba 2015, algorithm 1)."""

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
    def remembers(self) -> int:
        return 2

    def direction(self, gradient: Array, memory: Memory, updates: int) -> tuple[Array, Memory]:
        mean = self.beta1 * memory[0] + (1 - self.beta1) * gradient
        square = self.beta2 * memory[1] + (1 - self.beta2) * gradient * gradient
        # Both began at 0: divided by these, they are means over what has been seen so far.
        unbiased_mean = mean / (1 - self.beta1**updates)
        unbiased_square = square / (1 - self.beta2**updates)
        return unbiased_mean / (np.sqrt(unbiased_square) + self.epsilon), (mean, square)

"""The mathematics of ``src.nn`` and ``src.training.optimizers`` over memory that is already there: no array is made in a step.

What has no twin here is computed by its own class, so that whatever is added there works here at once.
"""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg.blas import ddot, dgemm, sdot, sgemm

from src.nn.layers import Activation, Array, Identity, LeakyReLU, ReLU, Sigmoid, Tanh
from src.nn.losses import Labels, Loss, SoftmaxCrossEntropy
from src.nn.network import Parameters
from src.training.optimizers import SGD, Adam, Optimizer, clip_factor


class Curve(ABC):
    """An activation that writes y over x, and f'(x) · dy over dy, for up to as many rows."""

    def __init__(self, activation: Any, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self.activation = activation
        self.scratch = np.empty(shape, dtype)
        # As arrays: of a Python number one would be made at every call, which takes as long as a call on few numbers.
        self.zero, self.half, self.one = (np.array(number, dtype) for number in (0, 0.5, 1))

    @abstractmethod
    def apply(self, x: Array) -> None:
        """Turn x into y."""

    @abstractmethod
    def multiply(self, dy: Array, y: Array) -> None:
        """Turn dy into dx, given y."""


class _ReLU(Curve):
    def apply(self, x: Array) -> None:
        np.maximum(x, self.zero, out=x)

    def multiply(self, dy: Array, y: Array) -> None:
        np.multiply(dy, np.sign(y, out=self.scratch[..., : y.shape[-2], :]), out=dy)


class _LeakyReLU(Curve):
    def apply(self, x: Array) -> None:
        np.maximum(
            x, np.multiply(x, self.activation.slope, out=self.scratch[..., : x.shape[-2], :]), out=x
        )

    def multiply(self, dy: Array, y: Array) -> None:
        np.multiply(dy, self.activation.slope, out=dy, where=np.less_equal(y, 0))


class _Sigmoid(Curve):
    def apply(self, x: Array) -> None:
        np.multiply(x, self.half, out=x)
        np.tanh(x, out=x)
        np.multiply(x, self.half, out=x)
        np.add(x, self.half, out=x)

    def multiply(self, dy: Array, y: Array) -> None:
        slope = np.subtract(self.one, y, out=self.scratch[..., : y.shape[-2], :])
        np.multiply(slope, y, out=slope)
        np.multiply(dy, slope, out=dy)


class _Tanh(Curve):
    def apply(self, x: Array) -> None:
        np.tanh(x, out=x)

    def multiply(self, dy: Array, y: Array) -> None:
        slope = np.multiply(y, y, out=self.scratch[..., : y.shape[-2], :])
        np.subtract(self.one, slope, out=slope)
        np.multiply(dy, slope, out=dy)


class _Identity(Curve):
    def apply(self, x: Array) -> None:
        pass

    def multiply(self, dy: Array, y: Array) -> None:
        pass


_CURVES: dict[type, type[Curve]] = {
    ReLU: _ReLU, LeakyReLU: _LeakyReLU, Sigmoid: _Sigmoid, Tanh: _Tanh, Identity: _Identity,
}  # fmt: skip


def curve(activation: Activation, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Curve | None:
    """Return the twin of an activation; None where it has none, since its derivative can't be had from y alone."""
    twin = _CURVES.get(type(activation))
    return twin(activation, shape, dtype) if twin else None


class Softmax:
    """Writes the softmax over the first axis of up to ``n`` columns, each times a factor of its own."""

    def __init__(self, classes: int, n: int, dtype: npt.DTypeLike) -> None:
        self._ones, self._totals = np.ones(classes, dtype), np.empty(n, dtype)
        self._inner = sdot if dtype == np.float32 else ddot

    def __call__(self, logits: Array, factors: float | Array, out: Array) -> None:
        """Write factors (n,) · softmax of the logits (classes, n)."""
        np.exp(logits, out=out)
        if not self._normalize(out, factors):
            np.exp(logits - logits.max(axis=0), out=out)
            self._normalize(out, factors)

    def _normalize(self, p: Array, factors: float | Array) -> bool:
        """Scale exponentials; tell whether none that counts was too great or too small for that."""
        totals = self._totals[: p.shape[1]]
        self._ones.dot(p, totals)
        none_great = self._inner(totals, totals) < 1e30
        np.divide(factors, totals, out=totals)
        np.multiply(p, totals, out=p)
        return bool(none_great and self._inner(totals, totals) < 1e30)


class LossGradient:
    """Writes ∂L/∂logits of a batch into memory of up to ``rows`` rows."""

    def __init__(self, loss: Loss, shape: tuple[int, int], dtype: npt.DTypeLike) -> None:
        self.loss = loss
        self._dlogits = np.empty(shape, dtype)
        self._softmax = Softmax(shape[1], shape[0], np.dtype(dtype))
        self._row_numbers = np.arange(shape[0])

    def __call__(self, logits: Array, labels: Labels, samples: int) -> Array:
        """Return the gradient of the mean over ``samples``, of which these rows may be a part."""
        n, classes = logits.shape
        if type(self.loss) is not SoftmaxCrossEntropy:
            gradient: Array = self.loss.gradient(logits, labels)
            return gradient if n == samples else gradient * (n / samples)
        p, smoothing = self._dlogits[:n], self.loss.smoothing
        self._softmax(logits.T, 1 / samples, p.T)
        p[self._row_numbers[:n], labels] -= (1 - smoothing) / samples
        if smoothing:
            p -= smoothing / classes / samples
        return p


def add_product(alpha: float, x: Array, y: Array, beta: float, out: Array) -> None:
    """Set ``out`` (m, n) to alpha · xᵀ y + beta · out, for ``x (batch, m)`` and ``y (batch, n)``, in one pass.

    NumPy's own product would need memory for xᵀ y, and two more passes to bring it to where it belongs. BLAS counts
    columns first, so it is shown the transposes of everything.
    """
    gemm = sgemm if out.dtype == np.float32 else dgemm
    gemm(alpha, y.T, x.T, beta=beta, c=out.T, trans_b=1, overwrite_c=1)


class Rule:
    """An optimizer's update of one array, over its own memory: the twin of ``direction`` and the step along it."""

    def __init__(
        self, optimizer: Optimizer, p: Array, memory: tuple[Array, ...], *, decays: bool
    ) -> None:
        self.optimizer, self.p, self.memory = optimizer, p, memory
        self.decay = optimizer.weight_decay if decays else 0.0
        self.scratch = np.empty_like(p)

    def step(self, g: Array, lr: float, updates: int) -> None:
        """Move the array along its gradient, which is used up; ``updates`` counts from 1."""
        p, optimizer, scratch = self.p, self.optimizer, self.scratch
        if self.decay:
            g += np.multiply(p, self.decay, out=scratch)
        if isinstance(optimizer, SGD):
            if optimizer.momentum:
                (velocity,) = self.memory
                velocity *= optimizer.momentum
                velocity += g
                if optimizer.nesterov:
                    g += np.multiply(velocity, optimizer.momentum, out=scratch)
                else:
                    g = velocity
            p -= np.multiply(g, lr, out=scratch)
        elif isinstance(optimizer, Adam):
            mean, square = self.memory
            mean *= optimizer.beta1
            mean += np.multiply(g, 1 - optimizer.beta1, out=scratch)
            np.multiply(g, g, out=g)
            square *= optimizer.beta2
            square += np.multiply(g, 1 - optimizer.beta2, out=g)
            root = np.sqrt(np.multiply(square, 1 / (1 - optimizer.beta2**updates), out=g), out=g)
            root += optimizer.epsilon
            step = np.multiply(mean, lr / (1 - optimizer.beta1**updates), out=scratch)
            p -= np.divide(step, root, out=scratch)
        else:
            direction, self.memory = optimizer.direction(g, self.memory, updates)
            p -= lr * direction


def clip(gradients: Parameters, optimizer: Optimizer) -> None:
    """Scale the gradients down where together they are longer than the optimizer allows."""
    if optimizer.clip_norm is not None:
        factor = clip_factor(gradients, optimizer.clip_norm)
        for layer in gradients:
            for g in layer:
                g *= factor

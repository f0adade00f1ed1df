"""What training makes small: each loss gives its value and its gradient with respect to the logits.

A loss is a mean over the batch and a sum over the classes. A penalty on the weights is no part of
it: the optimizer adds that to the gradient.
"""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from src.nn.layers import Activation, Array, Sigmoid
from src.support.errors import require

Labels = npt.NDArray[np.integer]


class Loss(ABC):
    """A mean over the batch, of ``logits (..., batch, classes)`` and ``labels (..., batch)``.

    A new loss needs ``value``, ``gradient`` and ``probabilities``. To be as fast as softmax
    cross-entropy it also overrides ``gradient_into``.
    """

    @abstractmethod
    def value(self, logits: Array, labels: Labels) -> Array:
        """Return the mean loss of the batch, of shape (...)."""

    @abstractmethod
    def gradient(self, logits: Array, labels: Labels) -> Array:
        """Return ∂value/∂logits, of the logits' shape."""

    def gradient_into(
        self, logits: Array, labels: Labels, factors: float | Array, out: Array
    ) -> None:
        """Write each sample's own gradient, multiplied by ``factors``, into ``out``.

        ``factors`` is a number, or one per network (..., 1, 1). A factor of 1 / batch gives
        ``gradient``; fast engines also put the learning rate into it, or the size of a batch of
        which these samples are a part.
        """
        np.multiply(self.gradient(logits, labels), factors * logits.shape[-2], out=out)

    def least(self, classes: int) -> float:
        """Return the least value that is possible."""
        return 0.0

    @abstractmethod
    def probabilities(self, logits: Array) -> Array:
        """Return the class probabilities that this loss sees in the logits; each row sums to 1."""


def log_softmax(logits: Array) -> Array:
    """Return log(eᶻ / Σ eᶻ) over the last axis.

    Subtracting the maximum keeps every exponential at most 1.
    """
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_sum: Array = np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    result: Array = shifted - log_sum
    return result


def one_hot(labels: Labels, like: Array) -> Array:
    """Return targets (..., batch, classes) in the precision of ``like``: 1 at the label, else 0."""
    targets: Array = np.eye(like.shape[-1], dtype=like.dtype)[labels]
    return targets


class CrossEntropy(Loss):
    """A loss whose gradient is the outputs minus the targets, over the batch size."""

    @abstractmethod
    def outputs(self, logits: Array) -> Array:
        """Return what is compared with the targets, of the logits' shape."""

    @abstractmethod
    def outputs_into(self, logits: Array, factors: float | Array, out: Array) -> None:
        """Write factors · outputs, with the classes on the first axis: ``logits (classes, n)``.

        ``factors`` is a number or (n,).
        """

    def add_outputs(self, logits: Array) -> Callable[[float, Array], object]:
        """Return a call that adds factor · outputs of ``logits (classes,)`` to an array.

        It reads the logits anew each time. An override may be faster for a single sample.
        """
        outputs = np.empty_like(logits)

        def add(factor: float, total: Array) -> None:
            self.outputs_into(logits, factor, outputs)
            np.add(total, outputs, out=total)

        return add

    def targets(self, classes: int, dtype: npt.DTypeLike) -> Array:
        """Return the targets of each label, (labels, classes)."""
        return np.eye(classes, dtype=dtype)

    def gradient(self, logits: Array, labels: Labels) -> Array:
        targets = self.targets(logits.shape[-1], logits.dtype)[labels]
        gradient: Array = (self.outputs(logits) - targets) / logits.shape[-2]
        return gradient

    def gradient_into(
        self, logits: Array, labels: Labels, factors: float | Array, out: Array
    ) -> None:
        *_, n, classes = logits.shape
        targets = _targets(self, classes, logits.dtype).take(labels, axis=0)
        np.multiply(targets, factors, out=targets)
        of_rows = factors if isinstance(factors, float) else np.repeat(factors, n)
        self.outputs_into(logits.reshape(-1, classes).T, of_rows, out.reshape(-1, classes).T)
        np.subtract(out, targets, out=out)


@functools.lru_cache
def _targets(loss: CrossEntropy, classes: int, dtype: np.dtype[Any]) -> Array:
    return loss.targets(classes, dtype)


@dataclass(frozen=True)
class SoftmaxCrossEntropy(CrossEntropy):
    """−Σ t log p with p the softmax of the logits, in nats.

    The targets t are 1 at the label. With ``smoothing`` ε they are 1 − ε there, and every class has
    ε / classes more (Szegedy et al. 2016, section 7). The gradient is p − t over the batch size
    (Bishop, Pattern Recognition and Machine Learning, eq. 4.109).
    """

    smoothing: float = 0.0

    def __post_init__(self) -> None:
        require(
            0 <= self.smoothing < 1, "smoothing", self.smoothing, "must be 0 or more and below 1"
        )

    def targets(self, classes: int, dtype: npt.DTypeLike) -> Array:
        one_hot = np.eye(classes)
        smoothed: Array = (1 - self.smoothing) * one_hot + self.smoothing / classes
        return smoothed.astype(dtype)

    def least(self, classes: int) -> float:
        """Return the entropy of the targets."""
        targets = self.targets(classes, np.float64)[0].tolist()
        return -math.fsum(t * math.log(t) for t in targets if t)

    def value(self, logits: Array, labels: Labels) -> Array:
        targets = self.targets(logits.shape[-1], logits.dtype)[labels]
        each = np.einsum("...c,...c->...", targets, log_softmax(logits))  # Σ t log p
        mean: Array = -each.mean(axis=-1)
        return mean

    def outputs(self, logits: Array) -> Array:
        return self.probabilities(logits)

    def outputs_into(self, logits: Array, factors: float | Array, out: Array) -> None:
        np.exp(logits, out=out)
        if not _normalize(out, factors):
            np.exp(logits - logits.max(axis=0), out=out)
            _normalize(out, factors)

    def add_outputs(self, logits: Array) -> Callable[[float, Array], object]:
        from scipy.linalg import blas  # its import takes long

        double = logits.dtype == np.float64
        dot, axpy = (blas.ddot, blas.daxpy) if double else (blas.sdot, blas.saxpy)
        exponentials, ones = np.empty_like(logits), np.ones_like(logits)

        def add(factor: float, total: Array) -> None:
            np.exp(logits, out=exponentials)
            scale = dot(exponentials, ones)
            if not 1e-30 < scale < 1e30:  # see _normalize
                np.exp(logits - logits.max(), out=exponentials)
                scale = dot(exponentials, ones)
            axpy(exponentials, total, len(ones), factor / scale)

        return add

    def probabilities(self, logits: Array) -> Array:
        probabilities: Array = np.exp(log_softmax(logits))
        return probabilities


def _normalize(exponentials: Array, factors: float | Array) -> bool:
    """Scale exponentials (classes, n) to sums of ``factors``.

    Returns whether every sum was of a size that leaves all digits to the exponentials that count.
    """
    totals = _ones(len(exponentials), exponentials.dtype).dot(exponentials)
    not_too_great = np.dot(totals, totals) < 1e30
    scale = np.divide(factors, totals, dtype=exponentials.dtype)
    not_too_small = np.dot(scale, scale) < 1e30
    np.multiply(exponentials, scale, out=exponentials)
    return bool(not_too_great and not_too_small)


@functools.lru_cache
def _ones(n: int, dtype: np.dtype[Any]) -> Array:
    return np.ones(n, dtype)


@dataclass(frozen=True)
class SigmoidCrossEntropy(CrossEntropy):
    """−Σ (t log a + (1 − t) log(1 − a)) with a the sigmoid of its logit: a question per class.

    Nielsen, Neural Networks and Deep Learning, eq. 63. Computed as max(z, 0) − t z +
    log(1 + e^−|z|), which cannot overflow. The gradient is a − t over the batch size.
    """

    def value(self, logits: Array, labels: Labels) -> Array:
        each = (
            np.maximum(logits, 0)
            - one_hot(labels, logits) * logits
            + np.log1p(np.exp(-np.abs(logits)))
        )
        mean: Array = each.sum(axis=-1).mean(axis=-1)
        return mean

    def outputs(self, logits: Array) -> Array:
        return Sigmoid().apply(logits)

    def outputs_into(self, logits: Array, factors: float | Array, out: Array) -> None:
        Sigmoid().apply_into(logits, out)
        np.multiply(out, factors, out=out)

    def probabilities(self, logits: Array) -> Array:
        # By logarithms, so that a row whose sigmoids are all 0 in this precision has a sum, too.
        log_sigmoid = np.minimum(logits, 0) - np.log1p(np.exp(-np.abs(logits)))
        probabilities: Array = np.exp(log_softmax(log_sigmoid))
        return probabilities


@dataclass(frozen=True)
class SquaredError(Loss):
    """½ Σ (a − t)² with a the ``output`` activation of the logits.

    Nielsen, eq. 6, uses the sigmoid; the identity gives least squares. The gradient is
    (a − t) · f'(z) over the batch size: small where the output saturates, however wrong it is.
    """

    output: Activation

    def value(self, logits: Array, labels: Labels) -> Array:
        error = self.output.apply(logits) - one_hot(labels, logits)
        mean: Array = 0.5 * (error * error).sum(axis=-1).mean(axis=-1)
        return mean

    def gradient(self, logits: Array, labels: Labels) -> Array:
        a = self.output.apply(logits)
        error = a - one_hot(labels, logits)
        gradient: Array = error * self.output.derivative(logits, a) / logits.shape[-2]
        return gradient

    def probabilities(self, logits: Array) -> Array:
        """Return the distribution that is nearest to the outputs by this same error."""
        return _nearest_distribution(self.output.apply(logits))


def _nearest_distribution(a: Array) -> Array:
    """Return the projection of each row onto the probability simplex: max(a − τ, 0), of sum 1.

    Duchi et al. 2008, figure 1.
    """
    a = a - a.max(axis=-1, keepdims=True)  # a shift changes nothing but the rounding
    descending = -np.sort(-a, axis=-1)
    excess = descending.cumsum(axis=-1) - 1
    rank = np.arange(1, a.shape[-1] + 1, dtype=a.dtype)
    support = np.maximum(np.count_nonzero(descending * rank > excess, axis=-1, keepdims=True), 1)
    tau = np.take_along_axis(excess, support - 1, axis=-1) / support.astype(a.dtype)
    projected: Array = np.maximum(a - tau, 0)
    return projected

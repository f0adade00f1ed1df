"""What training makes small: each loss gives its value and its gradient with respect to the logits.

A loss is a mean over the batch and a sum over the classes, whatever a penalty on the weights may add to its gradient.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from src.nn.layers import Activation, Array, Sigmoid
from src.support.errors import require

Labels = npt.NDArray[np.integer]


class Loss(ABC):
    """A mean over the batch, of ``logits (..., batch, classes)`` against integer ``labels (..., batch)``."""

    @abstractmethod
    def value(self, logits: Array, labels: Labels) -> Array:
        """Return the mean loss of the batch, of shape (...)."""

    @abstractmethod
    def gradient(self, logits: Array, labels: Labels) -> Array:
        """Return ∂value/∂logits, of the logits' shape."""

    def least(self, classes: int) -> float:
        """Return the least value there is."""
        return 0.0

    @abstractmethod
    def probabilities(self, logits: Array) -> Array:
        """Return the class probabilities that this loss reads out of the logits, of their shape, each row of sum 1."""


def log_softmax(logits: Array) -> Array:
    """Return log(eᶻ / Σ eᶻ) over the last axis; subtracting the maximum keeps every exponential at most 1."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_sum: Array = np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    result: Array = shifted - log_sum
    return result


def one_hot(labels: Labels, like: Array) -> Array:
    """Return targets of the shape and precision of ``like (..., batch, classes)``: 1 at the label, else 0."""
    classes = np.arange(like.shape[-1])
    targets: Array = np.broadcast_to(labels[..., None] == classes, like.shape).astype(like.dtype)
    return targets


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Loss):
    """−Σ t log p with p the softmax of the logits: one stable piece, in nats.

    The targets t are 1 at the label, or with ``smoothing`` ε: 1 − ε there, and ε / classes more for every class (Szegedy
    et al. 2016, section 7). The gradient is p − t (Bishop, Pattern Recognition and Machine Learning, eq. 4.109), over the
    batch size.
    """

    smoothing: float = 0.0

    def __post_init__(self) -> None:
        require(
            0 <= self.smoothing < 1, "smoothing", self.smoothing, "must be 0 or more and below 1"
        )

    def least(self, classes: int) -> float:
        """Return the entropy of the targets."""
        others = self.smoothing / classes
        targets = [1 - self.smoothing + others] + [others] * (classes - 1)
        return -math.fsum(t * math.log(t) for t in targets if t)

    def value(self, logits: Array, labels: Labels) -> Array:
        log_probabilities = log_softmax(logits)
        at_label = np.take_along_axis(log_probabilities, _index(labels, logits), axis=-1)
        mean: Array = -at_label.mean(axis=(-2, -1))
        if self.smoothing:
            uniform = -log_probabilities.mean(axis=(-2, -1))
            mean = (1 - self.smoothing) * mean + self.smoothing * uniform
        return mean

    def gradient(self, logits: Array, labels: Labels) -> Array:
        gradient = self.probabilities(logits)
        index = _index(labels, logits)
        at_label = np.take_along_axis(gradient, index, axis=-1)
        np.put_along_axis(gradient, index, at_label - (1 - self.smoothing), axis=-1)
        if self.smoothing:
            gradient -= self.smoothing / logits.shape[-1]
        gradient /= logits.shape[-2]
        return gradient

    def probabilities(self, logits: Array) -> Array:
        probabilities: Array = np.exp(log_softmax(logits))
        return probabilities


@dataclass(frozen=True)
class SigmoidCrossEntropy(Loss):
    """Each class a question of its own: −Σ (t log a + (1 − t) log(1 − a)) with a the sigmoid of its logit.

    Nielsen, Neural Networks and Deep Learning, eq. 63; computed as max(z, 0) − t z + log(1 + e^−|z|), which can't
    overflow. The gradient is a − t, over the batch size.
    """

    def value(self, logits: Array, labels: Labels) -> Array:
        each = (
            np.maximum(logits, 0)
            - one_hot(labels, logits) * logits
            + np.log1p(np.exp(-np.abs(logits)))
        )
        mean: Array = each.sum(axis=-1).mean(axis=-1)
        return mean

    def gradient(self, logits: Array, labels: Labels) -> Array:
        gradient: Array = (Sigmoid().apply(logits) - one_hot(labels, logits)) / logits.shape[-2]
        return gradient

    def probabilities(self, logits: Array) -> Array:
        # The log of a, so that a row whose every sigmoid is 0 in this precision still has a sum to divide by.
        log_sigmoid = np.minimum(logits, 0) - np.log1p(np.exp(-np.abs(logits)))
        probabilities: Array = np.exp(log_softmax(log_sigmoid))
        return probabilities


@dataclass(frozen=True)
class SquaredError(Loss):
    """½ Σ (a − t)² with a the ``output`` activation of the logits (Nielsen, eq. 6, has the sigmoid; identity is least squares).

    The gradient is (a − t) · f'(z), over the batch size: small where the output saturates, however wrong it is.
    """

    output: Activation

    def value(self, logits: Array, labels: Labels) -> Array:
        error = self.output.apply(logits) - one_hot(labels, logits)
        mean: Array = 0.5 * (error * error).sum(axis=-1).mean(axis=-1)
        return mean

    def gradient(self, logits: Array, labels: Labels) -> Array:
        a = self.output.apply(logits)
        gradient: Array = (
            (a - one_hot(labels, logits)) * self.output.derivative(logits, a) / logits.shape[-2]
        )
        return gradient

    def probabilities(self, logits: Array) -> Array:
        """Return the distribution that is nearest to the outputs by this very error."""
        return _nearest_distribution(self.output.apply(logits))


def _index(labels: Labels, logits: Array) -> Labels:
    """Return the labels in the form that picks one entry of each row of the logits."""
    return np.broadcast_to(labels, logits.shape[:-1])[..., None]


def _nearest_distribution(a: Array) -> Array:
    """Return the projection of each row onto the probability simplex: max(a − τ, 0), of sum 1 (Duchi et al. 2008, figure 1)."""
    a = a - a.max(axis=-1, keepdims=True)  # a shift changes nothing but what rounding takes
    descending = -np.sort(-a, axis=-1)
    excess = descending.cumsum(axis=-1) - 1
    rank = np.arange(1, a.shape[-1] + 1, dtype=a.dtype)
    support = np.maximum(np.count_nonzero(descending * rank > excess, axis=-1, keepdims=True), 1)
    tau = np.take_along_axis(excess, support - 1, axis=-1) / support.astype(a.dtype)
    projected: Array = np.maximum(a - tau, 0)
    return projected

"""What training makes small: each loss gives its value and its gradient with respect to the logits."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from src.nn.layers import Array

Labels = npt.NDArray[np.integer]


class Loss(ABC):
    """A mean over the batch, of ``logits (..., batch, classes)`` against integer ``labels (..., batch)``."""

    @abstractmethod
    def value(self, logits: Array, labels: Labels) -> Array:
        """Return the mean loss of the batch, of shape (...)."""

    @abstractmethod
    def gradient(self, logits: Array, labels: Labels) -> Array:
        """Return ∂value/∂logits, of the logits' shape."""

    @abstractmethod
    def probabilities(self, logits: Array) -> Array:
        """Return the class probabilities that this loss reads out of the logits, of their shape."""


def log_softmax(logits: Array) -> Array:
    """Return log(eᶻ / Σ eᶻ) over the last axis; subtracting the maximum keeps every exponential at most 1."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_sum: Array = np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    result: Array = shifted - log_sum
    return result


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Loss):
    """−log p(label), with p the softmax of the logits: one stable piece, in nats.

    Its gradient is p − onehot(label) (Bishop, Pattern Recognition and Machine Learning, eq. 4.109), over the batch size.
    """

    def value(self, logits: Array, labels: Labels) -> Array:
        log_probabilities = log_softmax(logits)
        index = np.broadcast_to(labels, logits.shape[:-1])[..., None]
        mean: Array = -np.take_along_axis(log_probabilities, index, axis=-1).mean(axis=(-2, -1))
        return mean

    def gradient(self, logits: Array, labels: Labels) -> Array:
        gradient = self.probabilities(logits)
        index = np.broadcast_to(labels, logits.shape[:-1])[..., None]
        at_label = np.take_along_axis(gradient, index, axis=-1)
        np.put_along_axis(gradient, index, at_label - 1, axis=-1)
        gradient /= logits.shape[-2]
        return gradient

    def probabilities(self, logits: Array) -> Array:
        probabilities: Array = np.exp(log_softmax(logits))
        return probabilities

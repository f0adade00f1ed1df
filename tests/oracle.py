"""Independent answers in double precision: written sample by sample from the definitions, or taken from SciPy."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

Float = npt.NDArray[np.float64]

ACTIVATIONS: dict[str, Callable[[Float], Float]] = {
    "relu": lambda x: np.where(x > 0, x, 0.0),
    "sigmoid": special.expit,
    "tanh": lambda x: (np.exp(x) - np.exp(-x)) / (np.exp(x) + np.exp(-x)),
    "identity": lambda x: x,
    "leaky relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "gelu": lambda x: (
        x / (1 + np.exp(-2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    ),  # (1 + tanh u) / 2 is σ(2u)
}


def mean_cross_entropy(logits: Float, labels: npt.NDArray[np.integer]) -> float:
    """Return the mean of −log softmax at the label, one sample at a time in Python's own arithmetic."""
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        top = max(row)
        total -= row[label] - top - math.log(math.fsum(math.exp(z - top) for z in row))
    return total / len(logits)


def targets(labels: npt.NDArray[np.integer], classes: int, smoothing: float = 0.0) -> Float:
    """Return what each output is to be: 1 at the label, or with smoothing a little less, and a little elsewhere."""
    rows = [
        [float(k == label) * (1 - smoothing) + smoothing / classes for k in range(classes)]
        for label in labels.tolist()
    ]
    return np.array(rows)


def mean_smoothed_cross_entropy(
    logits: Float, labels: npt.NDArray[np.integer], smoothing: float
) -> float:
    """Return the mean of −Σ t log softmax, for smoothed targets t."""
    return float(
        -(targets(labels, logits.shape[-1], smoothing) * special.log_softmax(logits, axis=-1)).sum()
        / len(logits)
    )


def mean_sigmoid_cross_entropy(logits: Float, labels: npt.NDArray[np.integer]) -> float:
    """Return the mean of the sum over the classes of −log of the probability of the right answer, yes or no."""
    sign = 2 * targets(labels, logits.shape[-1]) - 1
    return float(-special.log_expit(sign * logits).sum() / len(logits))


def mean_squared_error(outputs: Float, labels: npt.NDArray[np.integer]) -> float:
    """Return the mean of half the squared distance to the targets."""
    total = 0.0
    for row, target in zip(
        outputs.tolist(), targets(labels, outputs.shape[-1]).tolist(), strict=True
    ):
        total += 0.5 * math.fsum((a - t) ** 2 for a, t in zip(row, target, strict=True))
    return total / len(outputs)


def logits(parameters: list[tuple[Float, Float]], activation: str, x: Float) -> Float:
    """Return a multilayer perceptron's logits for ``x (batch, in)``, one sum over the inputs at a time."""
    for k, (W, b) in enumerate(parameters):
        x = np.einsum("ni,io->no", x, W) + b.reshape(-1)
        if k < len(parameters) - 1:
            x = ACTIVATIONS[activation](x)
    return x


def central_difference(
    f: Callable[[], float], array: npt.NDArray[Any], *, step: float = 1e-6
) -> Float:
    """Return ∂f/∂array, entry by entry, by moving each entry a step both ways; the array is left as it was."""
    gradient = np.empty_like(array)
    for index in np.ndindex(array.shape):
        before = array[index]
        array[index] = before + step
        above = f()
        array[index] = before - step
        below = f()
        array[index] = before
        gradient[index] = (above - below) / (2 * step)
    return gradient

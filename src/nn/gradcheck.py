"""Compares backpropagation with the definition of a derivative, to find a wrong gradient."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from src.nn.layers import Activation, Array
from src.nn.losses import Loss, SquaredError
from src.nn.network import Network, Parameters, backward, forward
from src.nn.weights import names

# The largest relative error that passes. Rounding and curvature alone give about 1e-8.
TOLERANCE = 1e-5
_STEP = 1e-5
# How many entries of each array are checked: half where the gradient is largest, half at random.
_ENTRIES = 40


@dataclass(frozen=True)
class Entry:
    """The derivative of the loss with respect to one parameter, computed in both ways."""

    name: str  # such as W2[3, 7]
    backpropagation: float
    differences: float
    error: float  # the difference between the two, relative to the larger one


@dataclass(frozen=True)
class Check:
    """The result of a check: the entry with the largest error, and the number of entries."""

    worst: Entry
    checked: int
    skipped: int  # entries whose step crosses a corner, where a difference quotient means nothing

    @property
    def passed(self) -> bool:
        """Whether the two derivatives of every checked entry agree."""
        return self.worst.error <= TOLERANCE

    def __str__(self) -> str:
        entry = self.worst
        corners = f" ({self.skipped} at corners skipped)" if self.skipped else ""
        return (
            f"worst of {self.checked} entries{corners}: {entry.name} "
            f"by backpropagation {entry.backpropagation:.12g}, "
            f"by centred differences {entry.differences:.12g}, "
            f"relative error {entry.error:.1e}"
        )


def check_gradient(
    network: Network, parameters: Parameters, loss: Loss, x: Array, labels: npt.NDArray[np.integer]
) -> Check:
    """Compare the gradient of the mean loss over ``x (batch, in)`` with centred differences.

    The difference quotient is (f(p + h) − f(p − h)) / 2h. Everything is computed in double
    precision, and the given parameters stay as they are.
    """
    parameters = tuple(tuple(p.astype(np.float64) for p in layer) for layer in parameters)
    x = x.astype(np.float64)
    values = forward(network, parameters, x)
    gradients = backward(network, parameters, values, loss.gradient(values[-1], labels))
    # The difference of two rounded losses has few digits where a gradient is small. Such entries
    # are compared with the scale of the largest one, not with themselves.
    floor = 1e-3 * max(float(np.abs(g).max()) for layer in gradients for g in layer)

    entries: list[Entry] = []
    skipped = 0
    for name, p, g in _arrays(network, parameters, gradients):
        for index in _chosen(g):
            above, below = _beside(network, parameters, x, p, index)
            if _corner_between(network, loss, above, below):
                skipped += 1
                continue
            difference = loss.value(above[-1], labels) - loss.value(below[-1], labels)
            numeric, analytic = float(difference) / (2 * _STEP), float(g[index])
            error = _relative_error(numeric, analytic, floor)
            place = f"{name}[{', '.join(map(str, index))}]"
            entries.append(Entry(place, analytic, numeric, error))
    worst = max(entries, key=lambda entry: entry.error, default=Entry("none", 0.0, 0.0, 0.0))
    return Check(worst, len(entries), skipped)


def _arrays(
    network: Network, parameters: Parameters, gradients: Parameters
) -> Iterator[tuple[str, Array, Array]]:
    """Yield each array of parameters by name, with its gradient."""
    for layer in zip(names(network), parameters, gradients, strict=True):
        yield from zip(*layer, strict=True)


def _chosen(gradient: Array) -> list[tuple[int, ...]]:
    """Return the indices of the entries to check; all of them if there are few."""
    flat = np.arange(gradient.size)
    if gradient.size > _ENTRIES:
        largest = np.argsort(-np.abs(gradient), axis=None)[: _ENTRIES // 2]
        others = np.random.default_rng(0).permutation(gradient.size)[: _ENTRIES // 2]
        flat = np.union1d(largest, others)
    return [tuple(int(i) for i in np.unravel_index(k, gradient.shape)) for k in flat]


def _beside(
    network: Network, parameters: Parameters, x: Array, p: Array, index: tuple[int, ...]
) -> tuple[list[Array], list[Array]]:
    """Return the values of a forward pass with one entry of p a step higher, and a step lower."""
    kept = p[index]
    p[index] = kept + _STEP
    above = forward(network, parameters, x)
    p[index] = kept - _STEP
    below = forward(network, parameters, x)
    p[index] = kept
    return above, below


def _corner_between(network: Network, loss: Loss, above: list[Array], below: list[Array]) -> bool:
    """Return whether any unit lies on different sides of a corner in the two passes."""
    steps = (*network, loss.output) if isinstance(loss, SquaredError) else network
    return any(
        ((above[i] > corner) != (below[i] > corner)).any()
        for i, layer in enumerate(steps)
        if isinstance(layer, Activation)
        for corner in layer.corners
    )


def _relative_error(numeric: float, analytic: float, floor: float) -> float:
    """Return the error relative to the larger value; infinity if a value is not finite."""
    largest = max(abs(numeric), abs(analytic), floor)
    if not np.isfinite(largest):
        return np.inf
    return abs(numeric - analytic) / largest if largest else 0.0

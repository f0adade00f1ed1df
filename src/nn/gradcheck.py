"""Checks backpropagation against the definition of a derivative: what the loss does when one parameter is moved."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from src.nn.layers import Array, LeakyReLU, ReLU
from src.nn.losses import Loss, SquaredError
from src.nn.network import Network, Parameters, backward, forward
from src.nn.weights import names

TOLERANCE = (
    1e-5  # of the difference, relative to the gradient: rounding and curvature leave about 1e-8
)
_STEP = 1e-5
_ENTRIES = 40  # of each array: half of them where the gradient is greatest, half at random


@dataclass(frozen=True)
class Entry:
    """One parameter's derivative in both ways."""

    name: str  # such as W2[3, 7]
    backpropagation: float
    differences: float
    error: float  # of the one against the other, relative to the greater of them


@dataclass(frozen=True)
class Check:
    """What came of a check: the entry with the greatest error, and how many entries were looked at."""

    worst: Entry
    checked: int
    skipped: int  # where a step leads across a corner of a ReLU, and the difference quotient means nothing

    @property
    def passed(self) -> bool:
        return self.worst.error <= TOLERANCE

    def __str__(self) -> str:
        entry = self.worst
        corners = f", {self.skipped} at corners left out" if self.skipped else ""
        return (
            f"worst of {self.checked} entries{corners}: {entry.name} by backpropagation {entry.backpropagation:.12g}, "
            f"by centred differences {entry.differences:.12g}, relative error {entry.error:.1e}"
        )


def check_gradient(
    network: Network, parameters: Parameters, loss: Loss, x: Array, labels: npt.NDArray[np.integer]
) -> Check:
    """Compare the gradient of the mean loss over ``x (batch, in)`` by (f(p + h) − f(p − h)) / 2h, in double precision."""
    parameters = tuple(
        tuple(p.astype(np.float64) for p in layer) for layer in parameters
    )  # copies, which are moved
    x = x.astype(np.float64)
    values = forward(network, parameters, x)
    gradients = backward(network, parameters, values, loss.gradient(values[-1], labels))
    # Entries far below the greatest are differences of rounded losses: relative to themselves they would say nothing.
    # Of small entries, the difference of two rounded losses leaves too few digits: they are judged beside the greatest.
    floor = 1e-3 * max(float(np.abs(g).max()) for layer in gradients for g in layer)
    rng = np.random.default_rng(0)
    entries: list[Entry] = []
    skipped = 0
    for layer_names, layer, layer_gradients in zip(
        names(network), parameters, gradients, strict=True
    ):
        for name, p, g in zip(layer_names, layer, layer_gradients, strict=True):
            for index in _chosen(g, rng):
                kept = p[index]
                p[index] = kept + _STEP
                above = forward(network, parameters, x)
                p[index] = kept - _STEP
                below = forward(network, parameters, x)
                p[index] = kept
                if _corner_between(network, loss, above, below):
                    skipped += 1
                    continue
                difference = loss.value(above[-1], labels) - loss.value(below[-1], labels)
                numeric, analytic = float(difference) / (2 * _STEP), float(g[index])
                error = abs(numeric - analytic) / max(abs(numeric), abs(analytic), floor, 1e-300)
                place = f"{name}[{', '.join(map(str, index))}]"
                entries.append(
                    Entry(place, analytic, numeric, error if np.isfinite(error) else np.inf)
                )
    if not entries:
        entries = [Entry("none", 0.0, 0.0, 0.0)]
        return Check(entries[0], 0, skipped)
    return Check(max(entries, key=lambda entry: entry.error), len(entries), skipped)


def _chosen(gradient: Array, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Return the indices of the entries to look at: all of them where there are few."""
    half = _ENTRIES // 2
    greatest = np.argsort(-np.abs(gradient), axis=None)[:half]
    others = rng.permutation(gradient.size)[:half]
    flat = range(gradient.size) if gradient.size <= _ENTRIES else np.union1d(greatest, others)
    return [tuple(int(i) for i in np.unravel_index(k, gradient.shape)) for k in flat]


def _corner_between(network: Network, loss: Loss, above: list[Array], below: list[Array]) -> bool:
    """Tell whether any unit of a piecewise linear activation is on different pieces in two passes."""
    steps = (*network, loss.output) if isinstance(loss, SquaredError) else network
    cornered = [i for i, layer in enumerate(steps) if isinstance(layer, ReLU | LeakyReLU)]
    return any(((above[i] > 0) != (below[i] > 0)).any() for i in cornered)

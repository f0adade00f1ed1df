"""The pictures of a run: its curves, what it confuses, what it got wrong, and what its first layer looks for."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from src.diagnostics import LayerState, measurements
from src.predictions import Predictions
from src.training import Epoch

COLOURS = {"train": "#4269d0", "val": "#efb118", "test": "#3ca951"}
_PUBLISHED = "#222222"


def _figure(width: float, height: float) -> Figure:
    """Return a figure that needs no screen and leaves no global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def curves(
    history: Sequence[Epoch], published: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None
) -> Figure:
    """Draw loss and accuracy by epoch; ``published`` gives (epochs, values) by metric, drawn over ours."""
    figure = _figure(10, 4)
    epochs = [epoch.number for epoch in history]
    for axes, measure in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for name in history[-1].scores:
            values = [getattr(epoch.scores[name], measure) for epoch in history]
            axes.plot(
                epochs,
                values,
                color=COLOURS[name],
                label=f"{name} {values[-1]:.4f}",
                marker="o" if len(epochs) == 1 else None,
            )
        for metric, (at, there) in (published or {}).items():
            if metric.endswith(f"/{measure}"):
                axes.plot(at, there, color=_PUBLISHED, linestyle=":", linewidth=2, label=f"published {metric}")
        axes.set(xlabel="epoch", title=measure)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    return figure


def published_curve(
    ours: npt.NDArray[np.float64], epochs: Sequence[float], published: Sequence[float], title: str, metric: str
) -> Figure:
    """Draw ``ours (seeds, epochs)``, their mean and every single one, under the published curve."""
    figure = _figure(7, 4.5)
    axes = figure.subplots()
    colour = COLOURS[metric.split("/")[0]]
    at = np.arange(1, ours.shape[1] + 1)
    for k, curve in enumerate(ours):
        axes.plot(at, curve, color=colour, alpha=0.35, linewidth=1, label="each seed" if k == 0 else None)
    axes.plot(at, ours.mean(axis=0), color=colour, linewidth=2, label=f"here, mean of {len(ours)} seeds")
    axes.plot(epochs, published, color=_PUBLISHED, linestyle=":", linewidth=2, label="published")
    axes.set(xlabel="epoch", title=f"{title}: {metric}")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def confusion(predictions: Predictions, classes: int) -> Figure:
    """Draw how often each class is taken for each other; right answers are left pale so that errors stand out."""
    counts = np.zeros((classes, classes), dtype=int)
    np.add.at(counts, (predictions.labels, predictions.predicted), 1)
    errors = np.where(np.eye(classes, dtype=bool), 0, counts)
    size = min(12.0, 2.5 + 0.4 * classes)
    figure = _figure(size, size)
    axes = figure.subplots()
    darkest = max(errors.max(), 0.1 * counts.sum() / classes)  # a tenth of a class, or more where there is more
    axes.imshow(errors, cmap="Reds", vmin=0, vmax=darkest)
    if classes <= 26:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                dark = errors[row, column] > darkest / 2
                axes.text(
                    column,
                    row,
                    str(count),
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="white" if dark else "#888888" if row == column else "black",
                )
        axes.set(xticks=range(classes), yticks=range(classes))
    axes.set(xlabel="predicted", ylabel="true", title=f"{predictions.part}: {errors.sum():,} of {counts.sum():,} wrong")
    return figure


def predictions(
    images: npt.NDArray[np.generic],
    predictions: Predictions,
    shape: tuple[int, ...],
    *,
    rows: int = 5,
    columns: int = 10,
) -> Figure:
    """Draw a page of images with what the network made of them: the surest errors first, then the least sure right ones."""
    labels, predicted = predictions.labels, predictions.predicted
    sureness = predictions.probabilities.max(axis=-1)
    wrong = ~predictions.right
    order = np.lexsort((np.where(wrong, -sureness, sureness), ~wrong))[: rows * columns]
    figure = _figure(columns * 0.95, rows * 1.2 + 0.4)
    figure.suptitle(
        f"{predictions.part}: wrong ones first, the surest leading; then right ones, the least sure leading", fontsize=9
    )
    for axes, i in zip(figure.subplots(rows, columns, squeeze=False).flat, order, strict=False):
        axes.imshow(images[i].reshape(shape), cmap="gray_r")
        text = f"{predicted[i]}, is {labels[i]}" if wrong[i] else f"{predicted[i]}"
        axes.set_title(f"{text}\n{sureness[i]:.0%}", fontsize=7, color="#c1272d" if wrong[i] else "#2b7a2b", pad=2)
    for axes in figure.axes:
        axes.axis("off")
    return figure


def first_layer(W: npt.NDArray[np.floating], shape: tuple[int, ...], *, most: int = 64) -> Figure:
    """Draw what each unit of the first layer looks for: its weights ``W (features, units)`` as an image, blue for negative."""
    units = min(W.shape[1], most)
    columns = min(units, 16 if units > 32 else 8)
    rows = math.ceil(units / columns)
    figure = _figure(columns * 0.8 + 1, rows * 0.8 + 0.6)
    shown = f"the first {units} of {W.shape[1]} units" if units < W.shape[1] else f"{units} units"
    figure.suptitle(f"first-layer weights, {shown}", fontsize=9)
    grid = figure.subplots(rows, columns, squeeze=False)
    grey = W.T.reshape(W.shape[1], *shape)
    grey = grey.mean(axis=-1) if len(shape) == 3 else grey
    limit = float(np.abs(grey).max()) or 1.0
    for axes, weights in zip(grid.flat, grey[:units], strict=False):
        drawn = axes.imshow(weights, cmap="RdBu_r", vmin=-limit, vmax=limit)
    for axes in grid.flat:
        axes.axis("off")
    figure.colorbar(drawn, ax=grid, shrink=0.8)
    return figure


_DIAGNOSED = {
    "saturated": "share of saturated units",
    "dead": "share of dead units",
    "update_ratio": "size of an update / size of the weights",
    "gradient_norm": "length of the gradient",
}


def layers(looks: Mapping[int, Sequence[LayerState]]) -> Figure:
    """Draw what each layer does by epoch: its flat and dead units, and the sizes of its updates and gradients."""
    found = {epoch: measurements(states) for epoch, states in looks.items()}
    known = set().union(*found.values())
    count = len(next(iter(looks.values())))
    drawn = {
        title: {k: name for k in range(1, count + 1) if (name := f"layer{k}/{key}") in known}
        for key, title in _DIAGNOSED.items()
    }
    drawn = {title: names for title, names in drawn.items() if names}
    figure = _figure(10, 6)
    for axes, (title, names) in zip(figure.subplots(2, 2).flat, drawn.items(), strict=False):
        for k, name in names.items():
            at = [epoch for epoch in found if name in found[epoch]]
            axes.plot(
                at,
                [found[epoch][name] for epoch in at],
                marker="o",
                markersize=3,
                label=f"layer {k}",
                color=f"C{k - 1}",
            )
        axes.set(xlabel="epoch", title=title)
        if title.startswith("share"):
            axes.set_ylim(-0.02, 1.02)
        elif any(found[epoch].get(name, 0) > 0 for epoch in found for name in names.values()):
            axes.set_yscale("log")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    for axes in figure.axes[len(drawn) :]:
        axes.axis("off")
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a picture as PNG; equal figures give equal bytes."""
    figure.savefig(path, dpi=110, metadata={"Software": None})

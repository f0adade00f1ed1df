"""The pictures of a run: its curves, what it confuses, what it got wrong, and what its first layer looks for."""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextPath
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Affine2D, IdentityTransform, Transform

from src.experiment.predictions import Predictions
from src.training.diagnostics import LayerState, measurements
from src.training.training_run import Epoch

COLOURS = {"train": "#4269d0", "val": "#efb118", "test": "#3ca951"}
RIGHT, WRONG = "#2b7a2b", "#c1272d"
_PUBLISHED = "#222222"
_GRID = "#e7e7e7"
_DPI = 110
_TITLE = 10  # points
_LEGIBLE = 26  # so many classes have their counts written into the matrix

Floats = npt.NDArray[np.floating]


def _figure(width: float, height: float) -> Figure:
    """Return a figure of so many inches that needs no screen and leaves no global state."""
    figure = Figure(figsize=(width, height), dpi=_DPI)
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a picture as PNG; equal figures give equal bytes."""
    # The default level, 6, takes up to four times as long for files that are little smaller.
    figure.savefig(path, dpi=_DPI, metadata={"Software": None}, pil_kwargs={"compress_level": 1})


# Words. Matplotlib's Text lays each letter out and fits it to the pixels anew: a hundred of them take longer than all
# the rest of a picture. Here the shapes of words are kept, and many are drawn at once.


@lru_cache(maxsize=4096)
def _outline(word: str, size: float, align: float) -> Outline:
    """Return the shape of a word in points; (0, 0) is where ``align`` says, at half the height of its digits."""
    drawn = TextPath((0, 0), word, size=size)
    left, right = _ends(drawn)
    middle = left + align * (right - left), 0.365 * size  # a digit is 0.73 of the size high
    return Outline(np.asarray(drawn.vertices) - middle, drawn.codes)


def _ends(outline: Outline) -> tuple[float, float]:
    """Return how far to the left and to the right a shape reaches; to ask it for its extents takes far longer."""
    x = np.asarray(outline.vertices)[np.asarray(outline.codes) != Outline.CLOSEPOLY, 0]
    return float(x.min()), float(x.max())


def _length(word: str, size: float) -> float:
    """Return how many pixels long a word is drawn."""
    left, right = _ends(_outline(word, size, 0))
    return (right - left) * _DPI / 72


class Words(PathCollection):
    """Words in axes, each at its own place and in its own colour.

    Args:
        axes: What they are drawn in.
        words: None of them empty.
        places: (n, 2), in ``units``.
        size: In points.
        colours: One for all or one for each.
        align: 0 if a word begins at its place, 0.5 if that is its middle, 1 if it ends there.
        units: What the places are measured in; by default the scales of the axes.
    """

    def __init__(
        self,
        axes: Axes,
        words: Sequence[str],
        places: npt.ArrayLike,
        size: float,
        colours: str | Sequence[str] = "black",
        *,
        align: float = 0.5,
        units: Transform | None = None,
    ) -> None:
        super().__init__(
            [_outline(word, size, align) for word in words],
            offsets=places,
            offset_transform=units or axes.transData,
            facecolors=colours,
            linewidths=0,
            clip_on=False,
        )
        self.words = tuple(words)
        self.set_transform(Affine2D().scale(_DPI / 72))  # from points to pixels
        axes.add_collection(self, autolim=False)


# Charts: curves by epoch. Matplotlib's ticks and legend are some hundred objects, and its constrained layout draws them
# twice; here a chart's grid is one object, its words are a few, and its margins are given.


def _charts(count: int, width: int, height: int) -> tuple[Figure, list[Axes]]:
    """Return a figure of so many pixels, and in it axes beside each other for the curves of so many charts."""
    figure = _figure(width / _DPI, height / _DPI)
    each = width / count
    charts = []
    for k in range(count):
        axes = figure.add_axes(
            ((k * each + 70) / width, 52 / height, (each - 86) / width, (height - 120) / height)
        )
        axes.set_axis_off()
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(6))
        charts.append(axes)
    return figure, charts


def _label(axes: Axes, title: str) -> None:
    """Give a chart whose curves are drawn its title, its grid and numbers, and the names of its curves."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    x = [at for at in axes.get_xticks() if left <= at <= right]
    y = [at for at in axes.get_yticks() if bottom <= at <= top]
    grid = [((at, bottom), (at, top)) for at in x] + [((left, at), (right, at)) for at in y]
    edges = [((left, bottom), (left, top)), ((left, bottom), (right, bottom))]
    colours = [_GRID] * len(grid) + ["black"] * len(edges)
    axes.add_collection(
        LineCollection(grid + edges, colors=colours, linewidths=0.8, clip_on=False, zorder=1),
        autolim=False,
    )

    pixels, box = IdentityTransform(), axes.bbox
    below = axes.transData.transform([(at, bottom) for at in x]) - (0, 14)
    beside = axes.transData.transform([(left, at) for at in y]) - (8, 0)
    Words(axes, _numbers(x), below, 9, units=pixels)
    Words(axes, _numbers(y), beside, 9, units=pixels, align=1)
    Words(axes, ["epoch"], [((box.x0 + box.x1) / 2, box.y0 - 36)], 10, units=pixels)
    head = _name_curves(axes)
    Words(axes, [title], [((box.x0 + box.x1) / 2, head + 11)], 12, units=pixels)


def _numbers(values: Sequence[float]) -> list[str]:
    """Write numbers with equally many decimals, unless they are very large or small."""
    short = [f"{value:g}" for value in values]
    if any("e" in number for number in short):
        return short
    decimals = max(len(number.partition(".")[2]) for number in short)
    return [f"{value:.{decimals}f}" for value in values]


def _name_curves(axes: Axes) -> float:
    """Write the names of the curves above a chart, each behind a piece of its line; return how high that reaches."""
    curves = [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
    names = [str(line.get_label()) for line in curves]
    box, size, piece, gap = axes.bbox, 9, 16, 12
    x, row, places = box.x0, 0, []
    for name in names:
        length = piece + 6 + _length(name, size)
        if x + length > box.x1 and x > box.x0:  # a new row
            x, row = box.x0, row + 1
        places.append((x, row))
        x += length + gap
    at = [
        (x, box.y1 + 12 + 14 * (places[-1][1] - row)) for x, row in places
    ]  # the last row is next to the chart

    colours = [to_rgba(line.get_color(), line.get_alpha()) for line in curves]
    styles = [line.get_linestyle() for line in curves]
    pieces = [((x, y), (x + piece, y)) for x, y in at]
    pixels = IdentityTransform()
    axes.add_collection(
        LineCollection(
            pieces, colors=colours, linestyles=styles, linewidths=2, transform=pixels, clip_on=False
        ),
        autolim=False,
    )
    Words(axes, names, [(x + piece + 6, y) for x, y in at], size, units=pixels, align=0)
    return float(at[0][1]) + 8


def curves(
    history: Sequence[Epoch],
    published: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
) -> Figure:
    """Draw loss and accuracy by epoch; ``published`` gives (epochs, values) by metric, drawn over ours."""
    figure, charts = _charts(2, 1100, 444)
    epochs = [epoch.number for epoch in history]
    for axes, measure in zip(charts, ("loss", "accuracy"), strict=True):
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
                axes.plot(
                    at,
                    there,
                    color=_PUBLISHED,
                    linestyle=":",
                    linewidth=2,
                    label=f"published {metric}",
                )
        _label(axes, measure)
    return figure


def published_curve(
    ours: npt.NDArray[np.float64],
    epochs: Sequence[float],
    published: Sequence[float],
    title: str,
    metric: str,
) -> Figure:
    """Draw ``ours (seeds, epochs)``, their mean and every single one, under the published curve."""
    figure, (axes,) = _charts(1, 770, 495)
    colour = COLOURS[metric.split("/")[0]]
    at = np.arange(1, ours.shape[1] + 1)
    for k, curve in enumerate(ours):
        axes.plot(
            at, curve, color=colour, alpha=0.35, linewidth=1, label="each seed" if k == 0 else None
        )
    axes.plot(
        at, ours.mean(axis=0), color=colour, linewidth=2, label=f"here, mean of {len(ours)} seeds"
    )
    axes.plot(epochs, published, color=_PUBLISHED, linestyle=":", linewidth=2, label="published")
    _label(axes, f"{title}: {metric}")
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
    figure.subplots_adjust(left=0.07, right=0.985, bottom=0.085, top=0.95, wspace=0.2, hspace=0.35)
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


# Pages of images. Axes are dear: a page has only one, which shows all its images as a single canvas.


def _page(width: int, height: int, title: str) -> tuple[Figure, Axes]:
    """Return a titled figure and axes that cover it, both blank; places are in pixels from the upper left corner."""
    lacking = _length(title, _TITLE) + 30 - width
    beside = max(0, math.ceil(lacking / 2))  # what is narrower than its title stands in the middle
    figure = _figure((width + 2 * beside) / _DPI, height / _DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(-beside, width + beside), ylim=(height, 0))
    Words(axes, [title], [(width / 2, 16)], _TITLE)
    return figure, axes


def _paint(
    axes: Axes, canvas: npt.NDArray[Any], left: float, top: float, scale: int, **colours: Any
) -> None:
    """Draw a canvas with its upper left corner at (left, top) of a page, each of its pixels ``scale`` wide and high."""
    height, width = canvas.shape[:2]
    extent = (left, left + width * scale, top + height * scale, top)
    axes.imshow(canvas, extent=extent, aspect="auto", interpolation="nearest", **colours)


def confusion(predictions: Predictions, classes: int) -> Figure:
    """Draw how often each class is taken for each other; right answers are left pale so that errors stand out."""
    counts = np.zeros((classes, classes), dtype=int)
    np.add.at(counts, (predictions.labels, predictions.predicted), 1)
    errors = np.where(np.eye(classes, dtype=bool), 0, counts)
    darkest = max(
        errors.max(), 0.1 * counts.sum() / classes
    )  # a tenth of a class, or more where there is more

    cell = max(1, min(max(46 * classes, 300), 1100) // classes)
    side, left, top = cell * classes, 56, 32
    title = f"{predictions.part}: {errors.sum():,} of {counts.sum():,} wrong"
    figure, axes = _page(left + side + 20, top + side + 46, title)
    _paint(axes, errors, left, top, cell, cmap="Reds", vmin=0, vmax=darkest)
    axes.add_patch(Rectangle((left, top), side, side, fill=False, linewidth=0.8))

    named = range(0, classes, math.ceil(classes / _LEGIBLE))
    Words(
        axes,
        [str(k) for k in named],
        [(left + (k + 0.5) * cell, top + side + 13) for k in named],
        9,
    )
    Words(axes, [str(k) for k in named], [(left - 16, top + (k + 0.5) * cell) for k in named], 9)
    axes.text(left + side / 2, top + side + 33, "predicted", ha="center", va="center")
    axes.text(16, top + side / 2, "true", ha="center", va="center", rotation=90)

    if classes <= _LEGIBLE:
        rows, columns = np.nonzero(counts)
        places = np.column_stack([left + (columns + 0.5) * cell, top + (rows + 0.5) * cell])
        pale = np.where(rows == columns, "#888888", "black")
        colours = np.where(errors[rows, columns] > darkest / 2, "white", pale)
        Words(axes, [str(count) for count in counts[rows, columns]], places, 8, colours.tolist())
    return figure


def _tiled(images: Floats, columns: int, upper: int, side: int) -> Floats:
    """Return ``images (n, height, width)`` or ``(n, height, width, 3)`` row by row on one canvas.

    So many pixels stay free above each (``upper``) and on both sides of it (``side``).
    """
    count, height, width, *colour = images.shape
    rows = math.ceil(count / columns)
    free = 1.0 if colour else np.nan  # white among colours; elsewhere NaN, which is not drawn
    cells = np.full((rows * columns, upper + height, side + width + side, *colour), free)
    cells[:count, upper:, side : side + width] = images
    high, wide = cells.shape[1:3]
    grid = cells.reshape(rows, columns, high, wide, *colour)
    return grid.swapaxes(1, 2).reshape(rows * high, columns * wide, *colour)


def _mosaic(
    images: Floats,
    columns: int,
    title: str,
    *,
    above: int,
    wide: int = 0,
    below: int = 0,
    **colours: Any,
) -> tuple[Figure, Axes, Floats]:
    """Draw images of one size row by row on a page.

    Args:
        images: (n, height, width), or (n, height, width, 3) of 0 to 1.
        columns: How many images a row has.
        title: Of the page.
        above: How much stays free above each image, in the page's pixels.
        wide: How wide a column is at least.
        below: How much stays free at the foot of the page.
        **colours: What imshow takes.

    Returns:
        The figure, its axes, and the middle of each image's upper edge on the page, (n, 2).
    """
    step = math.ceil(max(images.shape[1:3]) / 128)
    images = images[:, ::step, ::step]  # a huge image would have to be shrunk anyway
    if images.shape[1] == 1:
        images = images.repeat(
            math.ceil(images.shape[2] / 4), axis=1
        )  # a table's line of features becomes a bar
    count, height, width = images.shape[:3]
    scale = max(
        1, round(96 / max(height, width))
    )  # a whole number, so that all pixels are drawn equally large
    upper = math.ceil(above / scale)
    side = math.ceil(max(6, (wide - width * scale) / 2) / scale)
    canvas = _tiled(images, columns, upper, side)

    left, top = 4, 24
    down, across = (size * scale for size in canvas.shape[:2])
    figure, axes = _page(left + across + left, top + down + 10 + below, title)
    _paint(axes, canvas, left, top, scale, **colours)
    row, column = np.divmod(np.arange(count), columns)
    x = left + (column + 0.5) * (side + width + side) * scale
    y = top + (row * (upper + height) + upper) * scale
    return figure, axes, np.column_stack([x, y])


def _pictures(images: npt.NDArray[Any], shape: tuple[int, ...]) -> Floats:
    """Return ``images (n, pixels)`` in their shape, each with its least value brought to 0 and its greatest to 1."""
    values = images.astype(np.float64)
    values -= values.min(axis=1, keepdims=True)
    greatest = values.max(axis=1, keepdims=True)
    values /= np.where(greatest > 0, greatest, 1)
    pictures = values.reshape(-1, *shape)
    if len(shape) == 3:
        # What other channels than red, green and blue look like is not known: they are drawn grey.
        return pictures[..., :3] if shape[2] in (3, 4) else pictures.mean(axis=-1)
    return pictures


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
    title = f"{predictions.part}: wrong ones first, the surest leading; then right ones, the least sure leading"
    pictures = _pictures(images[order], shape)
    figure, axes, tops = _mosaic(
        pictures, columns, title, above=40, wide=76, cmap="gray_r", vmin=0, vmax=1
    )
    said = [f"{predicted[i]}, is {labels[i]}" if wrong[i] else f"{predicted[i]}" for i in order]
    colours = [WRONG if wrong[i] else RIGHT for i in order]
    Words(axes, said, tops - (0, 22), 7, colours)
    Words(axes, [f"{sureness[i]:.0%}" for i in order], tops - (0, 9), 7, colours)
    return figure


def first_layer(W: Floats, shape: tuple[int, ...], *, most: int = 64) -> Figure:
    """Draw what each unit of the first layer looks for: its weights ``W (features, units)`` as an image, blue for negative."""
    units = min(W.shape[1], most)
    weights = W.T.reshape(W.shape[1], *shape)
    weights = weights.mean(axis=-1) if len(shape) == 3 else weights
    limit = float(np.abs(weights).max()) or 1.0
    shown = f"the first {units} of {W.shape[1]}" if units < W.shape[1] else str(units)
    title = f"first-layer weights, {shown} {'unit' if units == 1 else 'units'}"
    columns = min(units, 16 if units > 32 else 8)
    colours: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
    figure, axes, _ = _mosaic(weights[:units], columns, title, above=12, below=24, **colours)
    middle, y = sum(axes.get_xlim()) / 2, axes.get_ylim()[0] - 16
    _paint(
        axes,
        np.linspace(-limit, limit, 120)[np.newaxis].repeat(10, axis=0),
        middle - 60,
        y - 5,
        1,
        **colours,
    )
    Words(axes, [f"−{limit:.2g}"], [(middle - 68, y)], 8, align=1)
    Words(axes, [f"{limit:.2g}"], [(middle + 68, y)], 8, align=0)
    return figure

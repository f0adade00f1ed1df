"""Draws pages of images: training samples, predictions, and the weights of the first layer."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from src.runs.pictures.style import (
    MUTED,
    RIGHT,
    WRONG,
    add_title,
    in_our_style,
    new_figure,
)
from src.runs.predictions import Predictions

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.int64]

_SIDE = 0.8  # inches of an image's longer side; of a unit's weights, of which there are more
_WEIGHTS_SIDE = 0.55
_LINE = 0.15  # inches of a line of text above an image
_PAGE = 50  # images on a page
_ROW = 10  # images side by side
_BARS = 10  # classes in a chart of probabilities


@in_our_style
def samples(images: npt.NDArray[Any], labels: Integers, shape: tuple[int, ...]) -> Figure:
    """Draw a page of training samples with their labels.

    The samples are evenly spaced over the set, so that a set that is sorted by its labels shows
    more than its first class.

    Args:
        images: (n, features), the whole training set.
        labels: (n,).
        shape: Of one image: (height, width) or (height, width, channels).
    """
    shown = np.unique(np.linspace(0, len(labels) - 1, _PAGE).astype(int))
    figure, _ = _page(
        _viewable(images[shown], shape),
        [str(label) for label in labels[shown]],
        [MUTED] * len(shown),
        cmap="gray_r",
    )
    add_title(figure, f"train: {len(shown)} of {len(labels):,} samples, evenly spaced")
    return figure


@in_our_style
def predictions(
    images: npt.NDArray[Any], predictions: Predictions, shape: tuple[int, ...]
) -> Figure:
    """Draw a page of predictions: the most confident errors, then the least confident right ones.

    Above each image stands the predicted class, the true one where it differs, and the probability
    of the predicted one. ``images (n, features)`` are the samples that were predicted, in order.
    """
    confidence = predictions.probabilities.max(axis=-1)
    wrong = ~predictions.right
    order = np.lexsort((np.where(wrong, -confidence, confidence), ~wrong))[:_PAGE]
    figure, _ = _page(
        _viewable(images[order], shape),
        [f"{_answer(predictions, i)}\n{confidence[i]:.0%}" for i in order],
        [WRONG if wrong[i] else RIGHT for i in order],
        cmap="gray_r",
    )
    add_title(
        figure,
        f"{predictions.part}: {np.count_nonzero(wrong):,} of {len(wrong):,} wrong",
        "the most confident errors first, then the least confident correct predictions",
    )
    return figure


@in_our_style
def chosen_samples(
    images: npt.NDArray[Any],
    predictions: Predictions,
    numbers: Sequence[int],
    shape: tuple[int, ...],
) -> Figure:
    """Draw samples, each above a chart of the probabilities that the network gives to its classes.

    Args:
        images: (n, features), the samples that were predicted.
        predictions: Of all n samples.
        numbers: Which samples to draw, counted from 0.
        shape: Of one image.
    """
    columns = min(len(numbers), 6)
    rows = math.ceil(len(numbers) / columns)
    figure = new_figure(max(2.1 * columns, 4), 3.2 * rows)
    panels = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[2, 1] * rows)
    viewable = _viewable(images[list(numbers)], shape)
    for k, number in enumerate(numbers):
        row, column = 2 * (k // columns), k % columns
        colour = RIGHT if predictions.right[number] else WRONG
        axes = panels[row, column]
        axes.imshow(viewable[k], cmap="gray_r", vmin=0, vmax=1, aspect=_aspect(viewable[k]))
        axes.set_axis_off()
        axes.set_title(
            f"{predictions.part} sample {number}\n{_answer(predictions, number)}",
            fontsize=9,
            color=colour,
        )
        _draw_probabilities(panels[row + 1, column], predictions, number, colour)
    for k in range(len(numbers), rows * columns):
        for offset in (0, 1):
            panels[2 * (k // columns) + offset, k % columns].set_axis_off()
    return figure


@in_our_style
def disagreement(
    images: npt.NDArray[Any], labels: Integers, names: tuple[str, str], shares: Floats
) -> Figure:
    """Draw a page of samples that one of two configurations gets right more often than the other.

    Args:
        images: (n, height, width), those that differ most first.
        labels: (n,), the right answers.
        names: Of the two.
        shares: (n, 2), the share of the networks of each that are right.
    """
    shown = min(len(images), _PAGE)
    first, second = names
    figure, _ = _page(
        _viewable(images[:shown].reshape(shown, -1), images.shape[1:]),
        [
            f"{labels[k]}\n{first} {shares[k, 0]:.0%}\n{second} {shares[k, 1]:.0%}"
            for k in range(shown)
        ],
        [RIGHT if shares[k, 0] > shares[k, 1] else WRONG for k in range(shown)],
        cmap="gray_r",
    )
    add_title(
        figure,
        f"{shown} of {len(images):,} samples on which {first} and {second} disagree",
        "above each: the label, and how many of the networks of each are right",
    )
    return figure


@in_our_style
def first_layer(W: Floats, shape: tuple[int, ...], *, most: int = 64) -> Figure:
    """Draw the weights of each first-layer unit as an image: positive ones red, negative ones blue.

    Args:
        W: (features, units).
        shape: Of one image; the weights of several channels are averaged.
        most: So many units are drawn at most.
    """
    units = min(W.shape[1], most)
    weights = W.T[:units].reshape(units, *shape)
    weights = weights.mean(axis=-1) if len(shape) == 3 else weights
    limit = float(np.abs(weights).max()) or 1.0
    norm = Normalize(-limit, limit)
    columns = 16 if units > 32 else 8
    figure, axes = _page(
        weights, columns=columns, norm=norm, cmap="RdBu_r", side=_WEIGHTS_SIDE, gap=0.06
    )
    count = f"the first {units} of {W.shape[1]} units" if units < W.shape[1] else f"{units} units"
    add_title(figure, f"first-layer weights: {count if units > 1 else '1 unit'}")
    figure.colorbar(
        ScalarMappable(norm, "RdBu_r"), ax=axes, label="weight", fraction=0.03, shrink=0.8
    )
    return figure


def _page(
    images: Floats,
    captions: Sequence[str] = (),
    colours: Sequence[str] = (),
    *,
    columns: int = _ROW,
    side: float = _SIDE,
    gap: float = 0.15,
    norm: Normalize | None = None,
    cmap: str,
) -> tuple[Figure, Axes]:
    """Draw images of one size row by row, each below its caption; return the figure and its axes.

    All are in the same axes, whose unit is an inch: a page of 50 axes would take a second to draw.
    An image's longer side is ``side`` inches long, and two images are ``gap`` inches apart.
    """
    height, width = images.shape[1:3]
    across = side * width / max(height, width)
    down = max(side * height / max(height, width), side / 4)  # a line of features becomes a bar
    lines = 1 + max((caption.count("\n") for caption in captions), default=-1)
    cell_width = max(across, side if captions else 0) + gap
    cell_height = down + lines * _LINE + gap
    rows, columns = math.ceil(len(images) / columns), min(len(images), columns)

    page_width, page_height = columns * cell_width, rows * cell_height
    figure = new_figure(max(page_width, 6) + 0.2, page_height + 0.9)
    axes = figure.subplots()
    for k, image in enumerate(images):
        left = (k % columns) * cell_width + (cell_width - across) / 2
        bottom = -(k // columns + 1) * cell_height + gap / 2
        extent = (left, left + across, bottom, bottom + down)
        axes.imshow(image, cmap=cmap, norm=norm or Normalize(0, 1), extent=extent)
        if captions:
            axes.text(
                left + across / 2,
                bottom + down + 0.03,
                captions[k],
                color=colours[k],
                fontsize=8,
                linespacing=1.0,
                horizontalalignment="center",
                verticalalignment="bottom",
            )
    axes.set(xlim=(0, page_width), ylim=(-page_height, 0))
    axes.set_axis_off()
    return figure, axes


def _draw_probabilities(axes: Axes, predictions: Predictions, number: int, colour: str) -> None:
    """Draw the probabilities of the classes of one sample as bars; of many classes, the highest."""
    probabilities = predictions.probabilities[number]
    highest = np.sort(np.argsort(probabilities)[-_BARS:])
    colours = [colour if k == predictions.predicted[number] else MUTED for k in highest]
    axes.bar(range(len(highest)), probabilities[highest], color=colours)
    axes.set(ylim=(0, 1), yticks=(0, 0.5, 1), xticks=range(len(highest)))
    axes.set_xticklabels([str(k) for k in highest], fontsize=7)
    axes.tick_params(axis="y", labelsize=7)
    axes.grid(visible=False, axis="x")
    at = int(predictions.predicted[number])
    axes.set_xlabel(f"P({at}) = {probabilities[at]:.1%}", fontsize=8, color=colour)


def _answer(predictions: Predictions, number: int) -> str:
    """Return the predicted class of a sample, and the true one where it differs."""
    predicted, label = predictions.predicted[number], predictions.labels[number]
    return f"{predicted}" if predicted == label else f"{predicted}, true {label}"


def _aspect(image: Floats) -> str:
    """Return how an image fills its axes: a line of features is stretched into a bar."""
    return "auto" if image.shape[0] == 1 else "equal"


def _viewable(images: npt.NDArray[Any], shape: tuple[int, ...]) -> Floats:
    """Return ``images (n, features)`` in their shape, each stretched to the range from 0 to 1."""
    values = images.astype(np.float64)
    values -= values.min(axis=1, keepdims=True)
    greatest = values.max(axis=1, keepdims=True)
    values /= np.where(greatest > 0, greatest, 1)
    shaped = values.reshape(-1, *shape)
    if len(shape) == 3:
        # Only three or four channels are known to be colours: any others are drawn in grey.
        return shaped[..., :3] if shape[2] in (3, 4) else shaped.mean(axis=-1)
    return shaped

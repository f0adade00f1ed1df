"""Draws the confusion matrix: how often each class is taken for each other one."""

import math

import numpy as np
from matplotlib.figure import Figure

from src.runs.pictures.style import MUTED, in_our_style, new_figure
from src.runs.predictions import Predictions

_MOST_COUNTED = 26  # up to so many classes, the counts fit into their cells


@in_our_style
def confusion(predictions: Predictions, classes: int) -> Figure:
    """Draw the confusion matrix of a set: true classes down, predicted ones across.

    Only errors are coloured, so that they stand out from the many correct answers on the diagonal.
    """
    counts = np.zeros((classes, classes), dtype=int)
    np.add.at(counts, (predictions.labels, predictions.predicted), 1)
    errors = counts.copy()
    np.fill_diagonal(errors, 0)
    # The darkest colour stands for a tenth of a class at least: few errors must not look like many.
    darkest = max(1, errors.max(), math.ceil(0.1 * counts.sum() / classes))

    side = min(max(4.2, 0.42 * classes), 10)
    figure = new_figure(side + 0.6, side + 0.7)
    axes = figure.subplots()
    image = axes.imshow(np.ma.masked_equal(errors, 0), cmap="Oranges", vmin=0, vmax=darkest)
    ticks = range(0, classes, math.ceil(classes / _MOST_COUNTED))
    axes.set(xlabel="predicted", ylabel="true", xticks=ticks, yticks=ticks)
    axes.set_title(f"{predictions.part}: {errors.sum():,} of {counts.sum():,} wrong")
    axes.grid(visible=False)
    if classes > _MOST_COUNTED:
        figure.colorbar(image, ax=axes, label="errors", shrink=0.6)
        return figure
    for true, predicted in zip(*np.nonzero(counts), strict=True):
        dark = errors[true, predicted] > 0.6 * darkest
        colour = "white" if dark else MUTED if true == predicted else "black"
        axes.text(
            predicted,
            true,
            str(counts[true, predicted]),
            color=colour,
            fontsize=8,
            horizontalalignment="center",
            verticalalignment="center",
        )
    return figure

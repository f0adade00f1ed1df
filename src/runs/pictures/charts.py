"""Draws what changes by epoch: loss and accuracy, published curves, the state of the layers."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from src.runs.pictures.style import PUBLISHED, SPLIT_COLOURS, in_our_style, new_figure

Values = npt.NDArray[np.float64]

_LAYER_MEASURES = {
    "saturated": "share of saturated units",
    "dead": "share of dead units",
    "update_ratio": "update ratio ‖ΔW‖ / ‖W‖",
    "gradient_norm": "gradient norm ‖∂L/∂W‖",
}


@in_our_style
def curves(
    history: Mapping[str, Values],
    published: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
) -> Figure:
    """Draw the loss and the accuracy of each set by epoch.

    Args:
        history: The columns of ``history.csv``: ``epoch``, ``train/loss``, ``train/accuracy``, …
        published: The epochs and the values of published curves by metric, drawn over ours.
    """
    figure = new_figure(10, 4.2)
    epochs = history["epoch"]
    for axes, measure in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for part, colour in SPLIT_COLOURS.items():
            if f"{part}/{measure}" in history:
                values = history[f"{part}/{measure}"]
                label = f"{part} {values[-1]:.4f}"
                axes.plot(epochs, _finite(values), color=colour, label=label, **_marker(epochs))
        for metric, (at, reached) in (published or {}).items():
            if metric.endswith(f"/{measure}"):
                axes.plot(at, reached, color=PUBLISHED, linestyle=":", label=f"published {metric}")
        _label(axes, measure)
    return figure


@in_our_style
def published_curve(
    ours: Values, epochs: Sequence[float], published: Sequence[float], title: str, metric: str
) -> Figure:
    """Draw a metric of several seeds and their mean with the published curve over them.

    Args:
        ours: (seeds, epochs), from epoch 1 on.
        epochs: Where the published curve is known.
        published: Its value at each of these epochs.
        title: The name of the recipe.
        metric: The name of the metric, such as ``train/loss``.
    """
    figure = new_figure(7.5, 4.5)
    axes = figure.subplots()
    colour = SPLIT_COLOURS[metric.split("/")[0]]
    at = np.arange(1, ours.shape[1] + 1)
    for k, seed in enumerate(ours):
        label = "each seed" if k == 0 else None
        axes.plot(at, seed, color=colour, alpha=0.35, linewidth=1, label=label)
    axes.plot(at, ours.mean(axis=0), color=colour, label=f"ours, mean of {len(ours)} seeds")
    axes.plot(epochs, published, color=PUBLISHED, linestyle=":", label="published")
    _label(axes, f"{title}: {metric}")
    return figure


@in_our_style
def layers(measured: Mapping[int, Mapping[str, float]]) -> Figure:
    """Draw the state of each layer by epoch: saturated and dead units, updates and gradients.

    Args:
        measured: The metrics of ``src.training.diagnostics`` by epoch, 0 being the start.
    """
    names = sorted({name for metrics in measured.values() for name in metrics})
    drawn = {
        measure: [name for name in names if name.endswith(f"/{measure}")]
        for measure in _LAYER_MEASURES
    }
    drawn = {measure: found for measure, found in drawn.items() if found}
    figure = new_figure(10, 3.2 * ((len(drawn) + 1) // 2))
    panels = figure.subplots((len(drawn) + 1) // 2, 2, squeeze=False).flat
    for axes, (measure, found) in zip(panels, drawn.items(), strict=False):
        for name in found:
            _draw_layer(axes, name, measured)
        if measure in ("saturated", "dead"):
            axes.set_ylim(-0.02, 1.02)
        elif any(np.max(line.get_ydata(), initial=0) > 0 for line in axes.get_lines()):
            axes.set_yscale("log")
        _label(axes, _LAYER_MEASURES[measure])
    for axes in figure.axes[len(drawn) :]:
        axes.set_axis_off()
    return figure


def _draw_layer(axes: Axes, name: str, measured: Mapping[int, Mapping[str, float]]) -> None:
    """Draw one metric of one layer, such as ``layer2/dead``, in the colour of the layer."""
    number = int(name.split("/")[0].removeprefix("layer"))
    epochs = [epoch for epoch in sorted(measured) if name in measured[epoch]]
    values = [measured[epoch][name] for epoch in epochs]
    axes.plot(
        epochs, values, color=f"C{number - 1}", marker="o", markersize=3, label=f"layer {number}"
    )


def _label(axes: Axes, title: str) -> None:
    axes.set(title=title, xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    axes.legend()


def _finite(values: Values) -> Values:
    """Return the values with gaps in place of infinite ones: one would flatten all the others."""
    return np.where(np.isfinite(values), values, np.nan)


def _marker(epochs: Values) -> dict[str, str]:
    """Return a marker for a curve of one point, which would not be seen otherwise."""
    return {"marker": "o"} if len(epochs) == 1 else {}

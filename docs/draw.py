"""Draws the pictures of the documentation that follow from the code: ``python -m docs.draw``."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from src.config.reader import option
from src.nn.layers import Activation
from src.runs.pictures.style import BLUE, VERMILION, in_our_style, new_figure, save
from src.support.paths import CONF

PICTURES = Path(__file__).parent / "pictures"


def activations() -> list[Activation]:
    """Return every activation that ``conf/activation`` offers, with its default settings."""
    names = sorted(path.stem for path in (CONF / "activation").glob("*.yaml"))
    return [option(Activation, name) for name in names]


@in_our_style
def draw_activations() -> Figure:
    """Draw each activation f(x) and its derivative f′(x) for x from −5 to 5."""
    chosen = activations()
    columns = 3
    rows = -(-len(chosen) // columns)
    figure = new_figure(3.2 * columns, 2.6 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    x = np.linspace(-5, 5, 1001)
    for axes, activation in zip(panels, chosen, strict=False):
        y = activation.apply(x)
        axes.plot(x, y, color=BLUE, label="f(x)")
        axes.plot(x, activation.derivative(x, y), color=VERMILION, linestyle="--", label="f′(x)")
        axes.set(title=str(activation), ylim=(-1.5, 2.5), xticks=range(-4, 5, 2))
    for axes in figure.axes[len(chosen) :]:
        axes.set_axis_off()
    figure.axes[0].legend()
    return figure


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    save(draw_activations(), PICTURES / "activations.png")

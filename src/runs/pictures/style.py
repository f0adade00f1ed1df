"""The look that all pictures share, and the way from a figure to a file."""

import textwrap
import warnings
from pathlib import Path

from cycler import cycler
from matplotlib import style
from matplotlib.figure import Figure

from src.support.files import whole_file

# The palette of Okabe and Ito (Color Universal Design, 2008), which is safe for colour-blind
# readers.
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, BLACK = "#CC79A7", "#56B4E9", "#000000"

SPLIT_COLOURS = {"train": BLUE, "val": ORANGE, "test": GREEN}
PUBLISHED, RIGHT, WRONG = BLACK, BLUE, VERMILION
MUTED = "#6B6B6B"

# Decorates whatever makes or saves a figure: the user's own style must not change our pictures.
in_our_style = style.context(
    [
        "default",
        {
            "figure.dpi": 110,
            "savefig.dpi": "figure",
            "font.size": 9,
            "axes.titlesize": 11,
            "axes.titlelocation": "left",
            "axes.titlepad": 8,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": MUTED,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.prop_cycle": cycler(color=[BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK]),
            "grid.color": "#E6E6E6",
            "lines.linewidth": 1.8,
            "legend.frameon": False,
        },
    ]
)

_CAPTION_SIZE = 7  # points
_CAPTION_CHARACTERS = 17  # per inch, at that size


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches, which lays out its axes by itself."""
    return Figure(figsize=(width, height), layout="constrained")


@in_our_style
def add_title(figure: Figure, *lines: str) -> None:
    """Write a title at the top left of a figure whose axes have none."""
    figure.suptitle("\n".join(lines), x=0.01, horizontalalignment="left", fontsize=11)


@in_our_style
def add_caption(figure: Figure, name: str, settings: str) -> None:
    """Write a run's name and its settings in small letters at the bottom of a figure."""
    width = int(figure.get_figwidth() * _CAPTION_CHARACTERS)
    lines = [textwrap.shorten(name, width, placeholder=" …"), *textwrap.wrap(settings, width)]
    figure.supxlabel(
        "\n".join(lines),
        x=0.01,
        horizontalalignment="left",
        fontsize=_CAPTION_SIZE,
        color=MUTED,
        parse_math=False,  # a name may contain a dollar sign
    )


@in_our_style
def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file; equal figures give equal bytes."""
    with warnings.catch_warnings():
        # A run's name may contain letters that Matplotlib's font lacks: they become boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        # The version of Matplotlib is left out of the file. The usual compression level, 6,
        # takes four times as long and saves little.
        with whole_file(path) as file:
            figure.savefig(
                file, format="png", metadata={"Software": None}, pil_kwargs={"compress_level": 1}
            )

"""Turns numbers, settings and statuses into the words of the page."""

import math
from typing import Any

import numpy as np

NOTHING = "–"


def number(value: object, digits: int = 4) -> str:
    """Return a number for a table: so many decimals, or three digits and an exponent.

    A missing number is a dash.
    """
    figure = real(value)
    if figure is None:
        return NOTHING
    if abs(figure) < 1e-12:  # the standard deviation of equal numbers, up to rounding
        figure = 0.0
    if figure == 0 or 1e-3 <= abs(figure) < 1e4:
        return f"{figure:.{digits}f}"
    return f"{figure:.3g}"


def span(low: object, high: object, digits: int = 4) -> str:
    """Return an interval, or a dash if it has no ends."""
    if real(low) is None or real(high) is None:
        return NOTHING
    return f"{number(low, digits)} to {number(high, digits)}"


def duration(value: object) -> str:
    """Return seconds for a table."""
    figure = real(value)
    if figure is None:
        return NOTHING
    return f"{figure:.2f}" if figure < 10 else f"{figure:.0f}"


def share(value: object) -> str:
    """Return a share as a percentage."""
    figure = real(value)
    return NOTHING if figure is None else f"{100 * figure:.0f}%"


def setting(value: object) -> str:
    """Return a setting's value as a user would write it; a setting that is not there is a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NOTHING
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def real(value: Any) -> float | None:
    """Return a finite number as a float, or None for anything else."""
    if value is None or isinstance(value, str):
        return None
    figure = float(value)
    return figure if math.isfinite(figure) else None

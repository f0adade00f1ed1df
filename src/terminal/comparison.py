"""Prints a comparison: the configurations, the answer, and what to know beside it."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from src.terminal.console import console, count, fact, table
from src.terminal.console import paragraph as _sentence

if TYPE_CHECKING:
    from src.comparison.comparison import Comparison, Pair

_MOST_ROWS = 30
_TIED = "≈"
_BAR = 24  # characters
_EFFECTS = 8
_LEAST_SHARE = 0.005  # of an effect that is shown
_REASONS = 5


def comparison_table(comparison: "Comparison") -> None:
    """Print a row per configuration, the best first, and what all of them share."""
    frame = comparison.configurations
    shown = frame.head(_MOST_ROWS)
    common = {key: value for key, value in comparison.common.items() if "." not in key}
    if common:
        _sentence("all", " ".join(f"{key}={value}" for key, value in common.items()))
    has_interval, has_test = shown["low"].notna().any(), shown["test_mean"].notna().any()
    is_tested = frame["p"].notna().any()
    measure = comparison.metric.rpartition("/")[2]
    has_test = has_test and not comparison.metric.startswith("test/")
    headings = [
        "",
        *([_TIED] if is_tested else []),
        *comparison.differing,
        "runs",
        comparison.metric,
        *(["95% interval", "worst", "best"] if has_interval else []),
        *([f"test/{measure}"] if has_test else []),
        "seconds",
    ]
    made = table(*headings)
    for label, row in shown.iterrows():
        made.add_row(
            str(label),
            *([_TIED if row["tied"] and label != frame.index[0] else ""] if is_tested else []),
            *(_plain(row[key]) for key in comparison.differing),
            _runs(row),
            _number(row["mean"]),
            *(_interval(row) if has_interval else []),
            *([_number(row["test_mean"])] if has_test else []),
            _number(row["seconds"], 1),
        )
    console().print(made)
    if len(frame) > len(shown):
        fact("more", f"{count(len(frame) - len(shown), 'configuration')}: --csv FILE writes all")
    if shown["tied"].iloc[1:].any() and is_tested:
        fact(_TIED, "may be as good as the best")


def comparison_answer(comparison: "Comparison") -> None:
    """Print what the runs say, and how to know more where seeds are single."""
    for number, sentence in enumerate(comparison.answer):
        _sentence("" if number else "answer", sentence)
    if comparison.advice:
        _sentence("note", comparison.advice)


def comparison_details(comparison: "Comparison") -> None:
    """Print what matters, why configurations lag, and what to know beside the numbers."""
    effects = comparison.importance()
    if not effects.empty:
        fact("matters", f"{effects['method'].iloc[0]}; 95% intervals in parentheses")
        for row in effects[effects["share"] >= _LEAST_SHARE].head(_EFFECTS).itertuples():
            bar = "█" * round(_BAR * row.share)
            ends = f"{row.low:.0%} to {row.high:.0%}"
            fact("", f"{row.share:>4.0%} {bar:<{_BAR}} {row.effect} ({ends})")
    reasons = comparison.explanations
    for number, (label, reason) in enumerate(list(reasons.items())[:_REASONS]):
        _sentence("" if number else "why", f"{label}: {reason}")
    if len(reasons) > _REASONS:
        fact("", f"… and {len(reasons) - _REASONS} more in the report: --html FILE")
    notes = [note for note in comparison.notes if note != comparison.advice]
    for number, note in enumerate(notes):
        _sentence("" if number or comparison.advice else "note", note)


def comparison_pair(pair: "Pair", metric: str, first: str, second: str) -> None:
    """Print two configurations compared; ``first`` and ``second`` say what they are."""
    fact(pair.first, first)
    fact(pair.second, second)
    from src.comparison.wording import pair_on_samples, pair_over_seeds  # they import pandas

    _sentence("difference", pair_over_seeds(pair, metric))
    _sentence("samples", pair_on_samples(pair))


def _runs(row: Any) -> str:
    """Return how many runs finished, and what became of the others."""
    lost = {name: int(row[name]) for name in ("diverged", "failed", "pruned") if row[name]}
    if row["finished"] == row["n"]:
        return str(row["n"])
    said = ", ".join(f"{number} {name}" for name, number in lost.items())
    return f"{row['finished']} of {row['n']}" + (f" ({said})" if said else "")


def _interval(row: Any) -> Sequence[str]:
    ends = "" if math.isnan(row["low"]) else f"{row['low']:.4f}–{row['high']:.4f}"
    return [ends, _number(row["worst"]), _number(row["best"])]


def _number(value: float, digits: int = 4) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def _plain(value: object) -> str:
    if value != value:  # the configuration has no such setting
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)

"""Collects what the page's charts draw, as one value that JSON can hold."""

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from src.comparison.importance import HIGHER, LEFT, NOISE
from src.comparison.page.inlined import picture
from src.comparison.page.tables import status
from src.comparison.page.wording import real, setting
from src.comparison.wording import pair_on_samples, pair_over_seeds

if TYPE_CHECKING:
    import pandas as pd

    from src.comparison.comparison import Comparison

METRICS = ("train/loss", "val/loss", "train/accuracy", "val/accuracy")
BUDGETS = ("epoch", "updates", "samples", "seconds")

# From here on each run's curve is thinned out, so that a page of 1,000 runs stays small and draws
# quickly.
MOST_POINTS = 60_000
# Digits of a drawn number. A screen shows about three.
_DIGITS = 4
# The configurations that can be compared in pairs, from the best one on, and the samples that
# are shown of each pair.
COMPARED, SAMPLES = 6, 24


def payload(comparison: "Comparison") -> dict[str, Any]:
    """Return the data of all charts. It holds no number that is not finite: None stands for it."""
    curves = comparison.curves(METRICS)
    every = max(1, -(-len(curves) // MOST_POINTS))
    return {
        "metric": comparison.metric,
        "largerIsBetter": comparison.larger_is_better,
        "settings": comparison.differing,
        "configurations": _configurations(comparison),
        "runs": _runs(comparison),
        "curves": _curves(curves, every),
        "every": every,
        "importance": _effects(comparison.importance()),
        "front": _records(comparison.front(), "configuration", "seconds", "value", "on_front"),
        "classes": [str(name) for name in comparison.class_names or ()],
        **_pairs(comparison),
    }


def _configurations(comparison: "Comparison") -> list[dict[str, Any]]:
    """Return the configurations from the best to the worst, with settings as words."""
    frame = comparison.configurations
    numbers = [
        name for name in ("mean", "low", "high", "best", "worst", "seconds") if name in frame
    ]
    return [
        {"label": str(label)}
        | {name: real(row[name]) for name in numbers}
        | {"tied": bool(row["tied"])}
        | {"settings": [setting(row[name]) for name in comparison.differing]}
        for label, row in zip(frame.index, frame.to_dict("records"), strict=True)
    ]


def _runs(comparison: "Comparison") -> dict[str, dict[str, Any]]:
    """Return the runs by the number with which the curves refer to them."""
    frame = comparison.runs
    return {
        str(number): {
            "name": str(row["name"]),
            "configuration": str(row["configuration"]),
            "seed": _seed(comparison, row),
            "status": status(row),
        }
        for number, row in zip(frame.index, frame.to_dict("records"), strict=True)
    }


def _seed(comparison: "Comparison", row: "pd.Series") -> str:
    seed = setting(row["seed"])
    return f"{seed}, division {setting(row['division'])}" if comparison.has_divisions else seed


def _curves(curves: "pd.DataFrame", every: int) -> dict[str, dict[str, list[float | None]]]:
    """Return for each run its columns: what it was drawn over, and its metrics.

    Of every ``every`` epochs one is kept, and the first and the last of each run.
    """
    columns = [name for name in (*BUDGETS, *METRICS) if name in curves]
    rounded = {name: _rounded(curves[name].to_numpy(float)) for name in columns}
    found = {}
    for run, positions in curves.groupby("run", sort=True).indices.items():
        kept = positions[::every]
        if kept[-1] != positions[-1]:
            kept = np.append(kept, positions[-1])
        found[str(run)] = {name: _listed(rounded[name][kept]) for name in columns}
    return found


def _rounded(values: "np.ndarray[Any, np.dtype[np.float64]]") -> Any:
    """Return the values with so few digits that their text is short."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        magnitude = np.floor(np.log10(np.abs(values)))
        usable = np.isfinite(magnitude)
        scale = 10.0 ** (_DIGITS - 1 - np.where(usable, magnitude, 0))
        result = np.round(values * scale) / scale
    return np.where(usable & np.isfinite(result), result, values)


def _listed(values: "np.ndarray[Any, np.dtype[np.float64]]") -> list[float | None]:
    """Return a list for JSON: integers without a fraction, None for what is not finite."""
    finite = np.isfinite(values)
    if finite.all():
        listed: list[float | None] = values.tolist()
        if (values == np.floor(values)).all() and np.abs(values).max(initial=0) < 2**53:
            return [int(value) for value in values]
        return listed
    return [value if ok else None for value, ok in zip(values.tolist(), finite, strict=True)]


def _effects(frame: "pd.DataFrame") -> list[dict[str, Any]]:
    """Return the effects with their shares and the ends of these.

    A rest is what no setting or pair explains.
    """
    rests = {NOISE, HIGHER, LEFT}
    rows = _records(frame, "effect", "share", "low", "high")
    return [row | {"rest": row["effect"] in rests} for row in rows]


def _records(frame: "pd.DataFrame", *names: str) -> list[dict[str, Any]]:
    """Return a frame's rows with these columns; numbers are finite or None."""
    rows = frame[list(names)].to_dict("records")
    return [{name: _plain(value) for name, value in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    return value if isinstance(value, str) else real(value)


def _pairs(comparison: "Comparison") -> dict[str, Any]:
    """Return confusion matrices of the best configurations, and what each pair disagrees on."""
    labels = [str(label) for label in comparison.configurations.index]
    confusions: dict[str, list[list[float]]] = {}
    for label in labels:
        if len(confusions) == COMPARED:
            break
        matrix = comparison.confusion(label)
        if matrix is not None:
            confusions[label] = matrix.tolist()
    pairs, images = [], {}
    for a, b in combinations(confusions, 2):
        frame = comparison.disagreement(a, b)
        differing = frame[frame["a"] != frame["b"]]
        order = (differing["a"] - differing["b"]).abs().sort_values(ascending=False, kind="stable")
        shown = differing.loc[order.index[:SAMPLES]].to_dict("records")
        for row in shown:
            sample = int(row["sample"])
            if sample not in images:
                images[sample] = picture(comparison.image(sample))
        pair = comparison.pair(a, b)
        verdict = [pair_over_seeds(pair, comparison.metric), pair_on_samples(pair)]
        pairs.append(
            {
                "a": a,
                "b": b,
                "differing": len(differing),
                "verdict": " ".join(verdict),
                "samples": [
                    [int(row["sample"]), int(row["label"]), real(row["a"]), real(row["b"])]
                    for row in shown
                ],
            }
        )
    kept = {str(sample): address for sample, address in images.items() if address}
    return {"confusion": confusions, "pairs": pairs, "images": kept}

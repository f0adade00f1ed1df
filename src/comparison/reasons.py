"""Why configurations differ: what the diagnosis of the layers and the curves say of each."""

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from src.config.reader import option
from src.nn.layers import Activation
from src.nn.losses import Loss, SquaredError
from src.support.errors import UserError
from src.training.diagnostics import HUGE_UPDATE, MANY_DEAD, MANY_SATURATED

_LAYER = re.compile(r"layer(\d+)/update_ratio")
_Layers = dict[int, dict[str, float]]  # the columns below by layer
_COLUMNS = ("dead", "saturated", "update_ratio", "gradient_first", "gradient_last")
_SMALL = 0.2  # an update this much smaller than the best one's is named
_STILL = 0.1  # share of the training in which a loss that goes on falling is looked for
_FALLING = 0.03  # a loss of which this share of the whole fall came then has not settled


def by_layer(history: pd.DataFrame, configuration: pd.Series) -> pd.DataFrame:
    """Return a row per configuration and layer: the means over its runs.

    ``dead`` and ``saturated`` are shares of the units at the end, ``update_ratio`` is that of the
    last look, and the gradient's norm is that of the first look after an epoch and of the last.

    Args:
        history: The epochs of the runs, with ``layer1/…`` where they were diagnosed.
        configuration: The label of each run's configuration, by the run's number.
    """
    names = [column for column in history.columns if _LAYER.fullmatch(str(column))]
    layers = sorted(int(name[len("layer") : -len("/update_ratio")]) for name in names)
    parts = []
    for layer in layers:
        columns = {
            name: f"layer{layer}/{name}"
            for name in ("dead", "saturated", "update_ratio", "gradient_norm")
        }
        looks = history.reindex(columns=["run", "epoch", *columns.values()])
        looks = looks.dropna(subset=[columns["update_ratio"]])
        last = looks.groupby("run").last()
        first = looks.groupby("run").first()
        frame = pd.DataFrame(
            {
                "configuration": configuration.reindex(last.index),
                "dead": last[columns["dead"]],
                "saturated": last[columns["saturated"]],
                "update_ratio": last[columns["update_ratio"]],
                "gradient_first": first[columns["gradient_norm"]],
                "gradient_last": last[columns["gradient_norm"]],
            }
        )
        means = frame.groupby("configuration", sort=False).mean().reset_index()
        means.insert(1, "layer", layer)
        parts.append(means)
    if not parts:
        return pd.DataFrame(columns=["configuration", "layer", *_COLUMNS])
    found = pd.concat(parts, ignore_index=True)
    rank = found["configuration"].str[1:].astype(int)
    order = pd.DataFrame({"rank": rank, "layer": found["layer"]}).sort_values(["rank", "layer"])
    return found.loc[order.index].reset_index(drop=True)


def sentences(layers: pd.DataFrame, best: str, worse: Sequence[str]) -> dict[str, str]:
    """Return by label what sets worse configurations apart from the best, where something does."""
    found = {}
    by_label: dict[str, _Layers] = {}
    for row in layers.to_dict("records"):
        own = by_label.setdefault(str(row["configuration"]), {})
        own[int(row["layer"])] = {name: float(row[name]) for name in _COLUMNS}
    if best not in by_label:
        return {}
    for label in worse:
        if label in by_label:
            said = _sentence(by_label[label], by_label[best], best)
            if said:
                found[label] = said
    return found


def _sentence(own: _Layers, best: _Layers, name: str) -> str | None:
    """Return the most serious difference from the best, of the layer that shows it most."""
    for column, many in (("saturated", MANY_SATURATED), ("dead", MANY_DEAD)):
        layer = max(own, key=lambda number: _known(own[number][column], -1))
        share = _known(own[layer][column], -1)
        theirs = best.get(layer, {}).get(column, math.nan)
        if share >= many and not share <= theirs:
            beside = "" if math.isnan(theirs) else f" ({name}: {theirs:.0%})"
            return f"{share:.0%} of the units of layer {layer} are {column}{beside}"
    layer = max(own, key=lambda number: own[number]["update_ratio"])
    update = own[layer]["update_ratio"]
    if update > HUGE_UPDATE >= max(one["update_ratio"] for one in best.values()):
        return f"an update changes layer {layer} by {update:.0%} of its weights: lr is too large"
    shared = [number for number in own if number in best]
    if not shared:
        return None
    layer = min(shared, key=lambda k: own[k]["update_ratio"] / (best[k]["update_ratio"] or 1.0))
    update, theirs = own[layer]["update_ratio"], best[layer]["update_ratio"]
    if update < _SMALL * theirs:
        return (
            f"an update changes layer {layer} by {update:.1e} of its weights "
            f"({name}: {theirs:.1e}): it learns slowly"
        )
    return None


def _known(value: float, otherwise: float) -> float:
    return otherwise if math.isnan(value) else value


def still_learning(history: pd.DataFrame, configuration: pd.Series, guess: pd.Series) -> pd.Series:
    """Return by label which share of its loss's fall below a guess came in the last tenth.

    A mean over runs of the validation loss, or else of the training loss. NaN where a run has fewer
    than ten epochs, is not below a guess or has no known one.

    Args:
        history: The epochs of the runs.
        configuration: The label of each run's configuration, by the run's number.
        guess: The loss of a network that gives all classes the same output, by the run's number.
    """
    loss = next((f"{part}/loss" for part in ("val", "train") if f"{part}/loss" in history), None)
    if loss is None:
        return pd.Series(dtype=float)
    known = history.dropna(subset=[loss])
    by_run = known.groupby("run")
    last, end = by_run["epoch"].last(), by_run[loss].last()
    since = (last * (1 - _STILL)).round().astype(int)
    before = known[known["epoch"] == known["run"].map(since)].set_index("run")[loss]
    fall = guess.reindex(end.index) - end
    share = (before.reindex(end.index) - end) / fall
    share = share.where((last >= 1 / _STILL) & (fall > 0))
    return share.groupby(configuration.reindex(share.index)).mean()


def guessed_loss(settings: Mapping[str, str]) -> float:
    """Return the loss of a network that gives all classes the same output; NaN if not known.

    An untrained network is near it: ln(classes) for softmax cross-entropy, with any smoothing.
    """
    name, classes = settings.get("loss", ""), settings.get("model.outputs", "")
    output = settings.get("loss.output")  # of a squared error
    if not classes.isdecimal() or int(classes) < 2:
        return math.nan
    try:
        loss = SquaredError(option(Activation, output)) if output else option(Loss, name)
    except UserError:  # an option of a plugin that is not here
        return math.nan
    return float(loss.value(np.zeros((1, int(classes))), np.zeros(1, int)))


def ending_at_chance(
    said: Mapping[int, str | None], configuration: pd.Series
) -> dict[str, tuple[int, str]]:
    """Return by label how many runs end at chance, and what is said of the first of them.

    Args:
        said: By the run's number, that it is at chance and why, or None.
        configuration: The label of each run's configuration, by the run's number.
    """
    found: dict[str, tuple[int, str]] = {}
    for run, text in said.items():
        if text:
            label = str(configuration[run])
            number, first = found.get(label, (0, text))
            found[label] = number + 1, first
    return found


def is_still_learning(share: float, best: float) -> bool:
    """Tell whether a loss that fell by this share in the last tenth has not settled.

    ``best`` is the share of the best configuration.
    """
    return share >= _FALLING and not share < 2 * best

"""Which settings matter: the share of the variance between runs that each of them explains."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from src.comparison.budget import with_bests
from src.comparison.statistics import LEVEL

NOISE = "noise"
HIGHER = "three settings or more"
LEFT = "unexplained, seed included"
GRID = "ω² of the full grid"
FOREST = "permutation importance on a forest, estimated"
_COLUMNS = ["effect", "share", "low", "high", "method"]
_LEAST_RUNS = 12  # for a forest
_PERMUTATIONS, _RESAMPLES = 5, 2000
_LARGE = 5000.0  # from this noncentrality on, the uncertainty of the noise decides alone
_Floats = npt.NDArray[np.float64]


def importance(runs: pd.DataFrame, settings: Sequence[str], overlap: float = 0.0) -> pd.DataFrame:
    """Return the effects with the share of the variance that each explains, the largest first.

    On a full grid with repeated seeds the shares are ω² (Hays 1963): of the configurations' means
    and the spread of the seeds, with equal weights for all configurations. Unlike η², which is
    never below 0, ω² is 0 on average where a setting does nothing, so it may be negative; unlike
    ε², the shares of the effects and the seed sum to 1. Elsewhere a forest of trees estimates them.

    Args:
        runs: A row per run that has a ``value``, with its configuration's number in ``group`` and
            a column per setting.
        settings: The settings in which configurations differ.
        overlap: That of the divisions of the data, as in ``Scores``. Then a row is a configuration
            in a division, with its number in ``division``.

    Returns:
        Columns ``effect``, ``share``, the ends ``low`` and ``high`` of its 95% interval, and
        ``method``. No rows if there is nothing to explain, too few runs for an estimate, or a grid
        with one seed per configuration: then nothing tells an effect from noise.
    """
    empty = pd.DataFrame({name: [] for name in _COLUMNS})
    # Not astype(str), which leaves what is missing as it is: some runs lack a setting of others.
    cells = runs.groupby("group").first()[list(settings)].map(str)
    levels = {key: sorted(cells[key].unique()) for key in settings if cells[key].nunique() > 1}
    if not levels or runs["value"].nunique() < 2:
        return empty
    is_grid = len(cells) == np.prod([len(found) for found in levels.values()])
    if is_grid and not cells[list(levels)].duplicated().any():
        if len(runs) == len(cells):
            return empty
        effects, method = _on_grid(_without_division(runs), cells, levels, overlap), GRID
    elif len(runs) >= _LEAST_RUNS:
        effects, method = _by_forest(runs, list(levels)), FOREST
    else:
        return empty
    frame = pd.DataFrame(
        [(effect, *shares, method) for effect, shares in effects.items()], columns=_COLUMNS
    )
    return frame.sort_values("share", ascending=False, kind="stable", ignore_index=True)


def at_last_rung(
    runs: pd.DataFrame, history: pd.DataFrame, metric: str
) -> tuple[pd.DataFrame, int] | None:
    """Return the runs with their values at the last epoch that all of them reached, and that epoch.

    Runs that were pruned and those that finished take part. None if no run without a value was
    pruned, or the history does not have the metric at an epoch that all of them reached.

    Args:
        runs: A row per run with its ``status`` and ``value``.
        history: The epochs of the runs; ``run`` is the index of ``runs``.
        metric: Whose value counts.
    """
    pruned = (runs["status"] == "PRUNED") & runs["value"].isna()
    taking_part = runs.index[pruned | (runs["status"] == "FINISHED")]
    known = with_bests(history[history["run"].isin(taking_part)]) if pruned.any() else history
    if not pruned.any() or metric not in known:
        return None
    last = known.dropna(subset=[metric]).groupby("run")["epoch"].max().reindex(taking_part)
    if last.isna().any():
        return None
    epoch = int(last.min())
    values = known[known["epoch"] == epoch].set_index("run")[metric]
    return runs.loc[taking_part].assign(value=values.reindex(taking_part)), epoch


@dataclass(frozen=True)
class _Share:
    share: float
    low: float
    high: float

    def __iter__(self) -> "itertools.chain[float]":
        return itertools.chain((self.share, self.low, self.high))


def _without_division(runs: pd.DataFrame) -> pd.DataFrame:
    """Return runs without what a division of the data does to all configurations alike.

    Where a configuration lacks a division, nothing can be removed.
    """
    if "division" not in runs or runs["division"].nunique() < 2:
        return runs
    if runs.groupby("division").size().nunique() > 1:
        return runs
    moved = runs.groupby("division")["value"].transform("mean") - runs["value"].mean()
    return runs.assign(value=runs["value"] - moved, lost=runs["division"].nunique() - 1)


def _on_grid(
    runs: pd.DataFrame, cells: pd.DataFrame, levels: Mapping[str, Sequence[str]], overlap: float
) -> dict[str, _Share]:
    """Return the share of each setting, of each pair, of higher interactions and of the seeds."""
    grouped = runs.groupby("group")["value"]
    sizes = grouped.size().to_numpy(float)
    settings = list(levels)
    grid = np.empty([len(levels[key]) for key in settings])
    means = grouped.mean()
    for number, row in cells.iterrows():
        grid[tuple(levels[key].index(row[key]) for key in settings)] = means[number]
    freedom = float(sizes.sum() - len(sizes)) - (runs["lost"].iloc[0] if "lost" in runs else 0)
    noise = float(np.square(runs["value"] - grouped.transform("mean")).sum()) / freedom
    # Of a mean over configurations, their harmonic mean is the number of seeds.
    seeds = 1 / (float((1 / sizes).mean()) + overlap)
    effects = _effects(grid, settings)
    return _shares(effects, noise, seeds * grid.size, freedom)


def _effects(grid: _Floats, settings: Sequence[str]) -> dict[str, tuple[float, int]]:
    """Return the mean square of each effect on the cells' means, and its degrees of freedom.

    These are the sums of the classical analysis of variance with equal weights for all cells.
    """
    axes = range(grid.ndim)
    parts: dict[tuple[int, ...], _Floats] = {(): np.asarray(grid.mean())}
    effects: dict[str, tuple[float, int]] = {}
    for chosen in itertools.chain.from_iterable(itertools.combinations(axes, k) for k in (1, 2)):
        part = grid.mean(axis=tuple(axis for axis in axes if axis not in chosen), keepdims=True)
        for inner, known in parts.items():
            if set(inner) < set(chosen):
                part = part - known
        parts[chosen] = part
        freedom = int(np.prod([grid.shape[axis] - 1 for axis in chosen]))
        name = " × ".join(settings[axis] for axis in chosen)
        effects[name] = float(np.square(part).mean()), freedom
    if grid.ndim > 2:
        squares, freedoms = zip(*effects.values(), strict=True)
        left = max(0.0, float(grid.var()) - sum(squares))
        effects[HIGHER] = left, grid.size - 1 - sum(freedoms)
    return effects


def _shares(
    effects: Mapping[str, tuple[float, int]], noise: float, runs: float, freedom: float
) -> dict[str, _Share]:
    """Return ω² of each effect and of the noise, with intervals.

    An interval is that of the noncentrality of the effect's F (Steiger 2004), with what the others
    explain as it is estimated.

    Args:
        effects: The mean square of each effect, and its degrees of freedom.
        noise: The variance of the seeds.
        runs: How many runs, of a balanced grid, would know the means as well.
        freedom: The degrees of freedom of the noise.
    """
    variances = {name: square - df * noise / runs for name, (square, df) in effects.items()}
    total = sum(variances.values()) + noise
    found = {}
    for name, (square, df) in effects.items():
        ends = _variance_interval(square, df, noise, runs, freedom)
        others = max(total - max(variances[name], 0.0), noise)
        low, high = (end / (end + others) if end + others > 0 else 0.0 for end in ends)
        found[name] = _Share(variances[name] / total, low, high)
    square, df = (sum(parts) for parts in zip(*effects.values(), strict=True))
    low, high = _variance_interval(square, int(df), noise, runs, freedom)
    least, most = (noise / (noise + end) if noise else 0.0 for end in (high, low))
    found[NOISE] = _Share(noise / total, least, most)
    return found


def _variance_interval(
    square: float, df: int, noise: float, runs: float, freedom: float
) -> tuple[float, float]:
    """Return the ends of the 95% interval of an effect's variance."""
    if noise == 0:
        return square, square
    ratio = square * runs / df / noise
    ends = (_noncentrality(ratio, df, freedom, p) for p in (1 - LEVEL / 2, LEVEL / 2))
    low, high = (end * noise / runs for end in ends)
    return low, high


def _noncentrality(ratio: float, df: int, freedom: float, p: float) -> float:
    """Return the noncentrality for which F is below ``ratio`` with probability p; at least 0."""
    from scipy import special

    if special.fdtr(df, freedom, ratio) <= p:
        return 0.0
    if ratio * df > _LARGE:
        return max(0.0, df * (ratio * float(special.chdtri(freedom, p)) / freedom - 1))
    return float(special.ncfdtrinc(df, freedom, p, ratio))


def _by_forest(runs: pd.DataFrame, settings: Sequence[str]) -> dict[str, _Share]:
    """Return by how much a forest predicts worse without each setting, as shares.

    The forest predicts runs that it has not seen, with all runs of a configuration left out
    together. What it can't predict is left unexplained. Intervals come from drawing configurations
    anew (the percentile bootstrap).
    """
    errors, constant, drops = _held_out(runs, settings)
    by_group = pd.DataFrame(np.column_stack([errors, constant, drops])).groupby(
        runs["group"].to_numpy()
    )
    sums = by_group.sum().to_numpy()
    drawn = np.random.default_rng(0).integers(len(sums), size=(_RESAMPLES, len(sums)))
    shares = _forest_shares(sums.sum(axis=0)[None])[0]
    low, high = np.quantile(
        _forest_shares(sums[drawn].sum(axis=1)), [LEVEL / 2, 1 - LEVEL / 2], axis=0
    )
    ends = zip(shares.tolist(), low.tolist(), high.tolist(), strict=True)
    return {name: _Share(*own) for name, own in zip([*settings, LEFT], ends, strict=True)}


def _forest_shares(sums: _Floats) -> _Floats:
    """Return (draws, settings + 1) shares for sums of errors, of the constant's, and of drops."""
    errors, constant, drops = sums[:, 0], sums[:, 1], np.clip(sums[:, 2:], 0, None)
    known = np.clip(1 - errors / constant, 0, 1)
    useful = drops.sum(axis=1)
    shares = drops * np.divide(known, useful, out=np.zeros_like(known), where=useful > 0)[:, None]
    return np.column_stack([shares, 1 - shares.sum(axis=1)])


def _held_out(runs: pd.DataFrame, settings: Sequence[str]) -> tuple[_Floats, _Floats, _Floats]:
    """Return squared errors on runs of configurations that a forest has not seen.

    Returns:
        (runs,) of the forest, (runs,) of the mean of the runs that it has seen, and
        (runs, settings) by how much those of the forest grow if a setting is drawn at random.
    """
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.model_selection import GroupKFold

    x, y = _numbers(runs, settings), runs["value"].to_numpy(float)
    errors, constant, drops = np.zeros(len(y)), np.zeros(len(y)), np.zeros(x.shape)
    random = np.random.default_rng(0)
    for fit, test in GroupKFold(min(5, runs["group"].nunique())).split(x, y, runs["group"]):
        forest = RandomForestRegressor(100, random_state=0).fit(x[fit], y[fit])
        errors[test] = np.square(forest.predict(x[test]) - y[test])
        constant[test] = np.square(y[fit].mean() - y[test])
        for number in range(len(settings)):
            drawn = np.tile(x[test], (_PERMUTATIONS, 1))
            drawn[:, number] = random.choice(x[:, number], len(drawn))
            wrong = np.square(forest.predict(drawn).reshape(_PERMUTATIONS, -1) - y[test])
            drops[test, number] = wrong.mean(axis=0) - errors[test]
    return errors, constant, drops


def _numbers(runs: pd.DataFrame, settings: Sequence[str]) -> _Floats:
    """Return the settings as numbers (runs, settings); texts are numbered in their order."""
    from sklearn.preprocessing import OrdinalEncoder

    X = runs[list(settings)].copy()
    for key in settings:
        if not pd.api.types.is_numeric_dtype(X[key]):
            X[key] = OrdinalEncoder().fit_transform(X[[key]].map(str))[:, 0]
    numbers: _Floats = X.to_numpy(float)
    return numbers

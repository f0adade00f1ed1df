"""Which settings matter: the share of the variance between runs that each of them explains."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

NOISE = "seed (noise)"
HIGHER = "three settings or more"
LEFT = "unexplained, seed included"
_LEAST_RUNS = 12  # for a forest


def importance(runs: pd.DataFrame, settings: Sequence[str]) -> pd.DataFrame:
    """Return the effects with the share of the variance that each explains, the largest first.

    On a full grid the shares are exact: a functional analysis of variance of the configurations'
    means, and the seeds' share beside it. Elsewhere a forest of trees estimates them.

    Args:
        runs: A row per run that has a ``value``, with its configuration's number in ``group`` and
            a column per setting.
        settings: The settings in which configurations differ.

    Returns:
        Columns ``effect``, ``share`` (0 to 1) and ``method``. No rows if there is nothing to
        explain, or too few runs for an estimate.
    """
    empty = pd.DataFrame({"effect": [], "share": [], "method": []})
    if not settings or runs["value"].nunique() < 2 or runs["group"].nunique() < 2:
        return empty
    # Not astype(str), which leaves what is missing as it is: some runs lack a setting of others.
    cells = runs.groupby("group").first()[list(settings)].map(str)
    levels = {key: sorted(cells[key].unique()) for key in settings}
    is_grid = len(cells) == np.prod([len(found) for found in levels.values()])
    if is_grid and not cells.duplicated().any():
        effects, method = _on_grid(runs, cells, levels), "functional ANOVA of the grid, exact"
    elif len(runs) >= _LEAST_RUNS:
        effects, method = (
            _by_forest(runs, settings),
            "permutation importance on a forest, estimated",
        )
    else:
        return empty
    frame = pd.DataFrame({"effect": list(effects), "share": list(effects.values())})
    frame["method"] = method
    return frame.sort_values("share", ascending=False, kind="stable", ignore_index=True)


def _on_grid(
    runs: pd.DataFrame, cells: pd.DataFrame, levels: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """Return the share of each setting, of each pair, of higher interactions and of the seeds.

    Source: Hutter, Hoos and Leyton-Brown, An efficient approach for assessing hyperparameter
    importance, 2014; on a grid that is whole, the sums are those of the classical analysis of
    variance with equal weights for all cells.
    """
    grouped = runs.groupby("group")["value"]
    means, within = grouped.mean(), float(grouped.var(ddof=0).mean())
    settings = list(levels)
    grid = np.empty([len(levels[key]) for key in settings])
    for number, row in cells.iterrows():
        place = tuple(levels[key].index(row[key]) for key in settings)
        grid[place] = means[number]
    between = float(grid.var())
    total = between + within
    explained: dict[tuple[int, ...], np.ndarray] = {(): np.asarray(grid.mean())}
    effects = {}
    for size in (1, 2):
        for axes in itertools.combinations(range(len(settings)), size):
            others = tuple(axis for axis in range(len(settings)) if axis not in axes)
            effect = grid.mean(axis=others, keepdims=True)
            for part, known in explained.items():
                if set(part) < set(axes):
                    effect = effect - known
            explained[axes] = effect
            name = " × ".join(settings[axis] for axis in axes)
            effects[name] = float(np.square(effect).mean()) / total
    if len(settings) > 2:
        effects[HIGHER] = max(0.0, between / total - sum(effects.values()))
    if (grouped.size() > 1).any():
        effects[NOISE] = within / total
    return effects


def _by_forest(runs: pd.DataFrame, settings: Sequence[str]) -> dict[str, float]:
    """Return by how much a forest predicts worse without each setting, as shares.

    The forest predicts runs that it has not seen, with all runs of a configuration left out
    together. What it can't predict is left unexplained.
    """
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance
    from sklearn.model_selection import GroupKFold
    from sklearn.preprocessing import OrdinalEncoder

    X = runs[list(settings)].copy()
    for key in settings:
        if not pd.api.types.is_numeric_dtype(X[key]):
            X[key] = OrdinalEncoder().fit_transform(X[[key]].map(str))[:, 0]
    x, y = X.to_numpy(float), runs["value"].to_numpy(float)
    folds = GroupKFold(min(5, runs["group"].nunique()))
    drops, errors = np.zeros(len(settings)), 0.0
    for fit, test in folds.split(x, y, runs["group"]):
        forest = RandomForestRegressor(100, random_state=0).fit(x[fit], y[fit])
        found = permutation_importance(
            forest,
            x[test],
            y[test],
            scoring="neg_mean_squared_error",
            n_repeats=5,
            random_state=0,
        )
        drops += found.importances_mean * len(test)
        errors += float(np.square(forest.predict(x[test]) - y[test]).sum())
    known = max(0.0, 1 - errors / float(np.square(y - y.mean()).sum()))
    useful = np.clip(drops, 0, None)
    shares = known * useful / useful.sum() if useful.sum() > 0 else useful
    return {**dict(zip(settings, map(float, shares), strict=True)), LEFT: 1 - float(shares.sum())}

"""Ranks configurations, and tells which of them can't be told from the best."""

import numpy as np
import pandas as pd

from src.comparison.answers import Answers
from src.comparison.run_table import RunTable
from src.comparison.statistics import LEVEL, Values, against_best, holm, interval, mcnemar_p


def ranked(table: RunTable, answers: Answers | None) -> pd.DataFrame:
    """Return a row per configuration, the best first; see docs/compare.md for the columns.

    Configurations of which a run diverged come after all others. ``answers`` are those of the
    networks to the same samples, if they are kept.
    """
    frame = _summaries(table)
    sign = -1 if table.larger_is_better else 1
    keys = pd.DataFrame({"diverged": frame["diverged"] > 0, "mean": sign * frame["mean"]})
    frame = frame.loc[keys.sort_values(["diverged", "mean"], kind="stable").index]
    frame.index = pd.Index([f"C{i}" for i in range(1, len(frame) + 1)], name="configuration")
    frame["p"] = _p(table, frame)
    frame["p_samples"] = _p_samples(table, frame, answers)
    told = (frame["p"] < LEVEL) & ~(frame["p_samples"] >= LEVEL)
    frame["tied"] = (frame["finished"] > 0) & ~told
    return frame


def _summaries(table: RunTable) -> pd.DataFrame:
    """Return a row per configuration with what its runs say of it alone."""
    runs, differing = table.rows, list(table.grouping.differing)
    unfinished = runs["value"].isna()
    marked = runs.assign(
        lost=unfinished & runs["diverged"],
        failed=unfinished & (runs["status"] == "FAILED") & ~runs["diverged"],
        pruned=unfinished & (runs["status"] == "PRUNED"),
        seconds=runs["seconds"].where(~unfinished),
        test=runs["test"].where(~unfinished),
    )
    grouped = marked.groupby("group")
    values = grouped["value"]
    mean, deviation, finished = values.mean(), values.std(), values.count()
    limits = (0.0, 1.0) if table.metric.endswith("accuracy") else (-np.inf, np.inf)
    low, high = interval(
        mean.to_numpy(float), deviation.to_numpy(float), finished.to_numpy(float), *limits
    )
    extremes = [values.max(), values.min()]
    best, worst = extremes if table.larger_is_better else reversed(extremes)
    settings = grouped[differing].first() if differing else pd.DataFrame()
    columns = {
        "group": mean.index,
        **{key: settings[key] for key in differing},
        "n": grouped.size(),
        "finished": finished,
        "diverged": grouped["lost"].sum(),
        "failed": grouped["failed"].sum(),
        "pruned": grouped["pruned"].sum(),
        "mean": mean,
        "sd": deviation,
        "low": low,
        "high": high,
        "best": best,
        "worst": worst,
        "test_mean": grouped["test"].mean(),
        "seconds": grouped["seconds"].mean(),
    }
    return pd.DataFrame(columns, index=mean.index)


def _p(table: RunTable, frame: pd.DataFrame) -> Values:
    """Return for each configuration the corrected p-value of its difference from the best."""
    if not len(frame) or not frame["finished"].any():
        return np.full(len(frame), np.nan)
    return against_best(table.matrix(frame["group"]), 0, table.larger_is_better)


def _p_samples(table: RunTable, frame: pd.DataFrame, answers: Answers | None) -> Values:
    """Return the same on the kept predictions of the same test samples.

    The best was chosen by other samples, so that Holm's correction counts the others only.
    """
    p = np.full(len(frame), np.nan)
    if answers is None or answers.part != "test" or table.metric.startswith("test/"):
        return p
    right = [answers.right(table.of_group(number)) for number in frame["group"]]
    best = right[0]
    others = [i for i in range(1, len(right)) if len(right[i])]
    if len(best) and others:
        shares = np.stack([right[i].mean(axis=0) for i in others])
        exact = max(map(len, right)) == 1
        p[others] = mcnemar_p(best, shares, exact)
    return holm(p)

"""Ranks configurations, and says which may be as good as the best."""

import numpy as np
import pandas as pd

from src.comparison.answers import Answers
from src.comparison.run_table import RunTable
from src.comparison.statistics import LEVEL, Values, holm, mcnemar_p


def ranked(table: RunTable, answers: Answers | None) -> pd.DataFrame:
    """Return a row per configuration, the best first; see docs/compare.md for the columns.

    Configurations of which a run diverged come after all others. ``answers`` are those of the
    networks to the same samples, if they are kept.
    """
    frame = _summaries(table)
    sign = -1 if table.larger_is_better else 1
    keys = [frame["mean"].isna(), frame["diverged"] > 0, sign * frame["mean"]]
    frame = frame.loc[
        pd.concat(keys, axis=1, keys=range(3)).sort_values([0, 1, 2], kind="stable").index
    ]
    frame.index = pd.Index([f"C{i}" for i in range(1, len(frame) + 1)], name="configuration")
    scores = table.scores(frame["group"])
    frame.insert(list(frame).index("low"), "replicates", scores.counts)
    frame["low"], frame["high"] = scores.intervals()
    rivals = _rivals(frame)
    contest = scores.contest(0, rivals)
    on_samples = _on_samples(table, frame, answers)
    frame["p_alone"], frame["p"] = contest.alone, contest.p
    frame["p_samples"] = _corrected(on_samples)
    told = (frame["p"] < LEVEL) & ~(frame["p_samples"] >= LEVEL)
    frame["tied"] = False
    frame.loc[frame.index[rivals], "tied"] = ~told.iloc[rivals]
    return frame


def _rivals(frame: pd.DataFrame) -> list[int]:
    """Return the rows that may be the best: they have a score, and no run that diverged.

    Where runs of all configurations diverged, each may be.
    """
    may_lead = frame["finished"] > 0
    if len(frame) and not frame["diverged"].iloc[0]:
        may_lead &= frame["diverged"] == 0
    return [int(i) for i in np.flatnonzero(may_lead)]


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
    by_division = marked.groupby(["group", "division"])["value"].mean()
    mean, deviation, finished = by_division.groupby("group").mean(), values.std(), values.count()
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
        "low": np.nan,
        "high": np.nan,
        "best": best,
        "worst": worst,
        "test_mean": grouped["test"].mean(),
        "seconds": grouped["seconds"].mean(),
    }
    return pd.DataFrame(columns, index=mean.index)


def _on_samples(table: RunTable, frame: pd.DataFrame, answers: Answers | None) -> Values:
    """Return whether each configuration answers the same test samples otherwise than the best.

    NaN where that is not known. Where divisions vary, test samples do, too: the test over divisions
    covers them.
    """
    p = np.full(len(frame), np.nan)
    is_chosen_by_test = table.metric.startswith("test/")
    if answers is None or answers.part != "test" or is_chosen_by_test or table.has_divisions:
        return p
    right = [answers.right(table.of_group(number)) for number in frame["group"]]
    best = right[0]
    others = [i for i in range(1, len(right)) if len(right[i])]
    if len(best) and others:
        shares = np.stack([right[i].mean(axis=0) for i in others])
        exact = max(map(len, right)) == 1
        p[others] = mcnemar_p(best, shares, exact)
    return p


def _corrected(p: Values) -> Values:
    """Return p-values that hold for all comparisons with the best together.

    The best was chosen by other samples, so that Holm's correction counts these comparisons only.
    If the best differs from each of the others, no correction is needed: see ``Scores.contest``.
    """
    if np.isnan(p).all():
        return p
    return np.minimum(holm(p), np.nanmax(p))

"""The runs of a comparison as frames: a row per run, and a row per epoch of each run."""

import functools
import os
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from src.comparison.budget import Budget
from src.comparison.configurations import Grouping, group
from src.comparison.kept import KeptRun, read_histories
from src.comparison.scores import Scores
from src.config.arguments import setting
from src.support.errors import DataError, suggest
from src.tracking.links import run_link
from src.tracking.search import Search

_DEFAULT_METRIC = "val/accuracy"
_OVERLAP = 0.5  # of divisions whose sizes are unknown: a set half as large as that of training


class RunTable:
    """Runs that are compared, each once, with the number that its configuration has.

    The arguments, and what is raised for them, are those of ``Frames``.
    """

    def __init__(
        self, runs: Sequence[KeptRun], metric: str | None, at: str | None, search: Search | None
    ) -> None:
        if not runs:
            raise DataError("there are no runs to compare: train some with python -m src.run -m …")
        self._search = search
        self.budget = Budget.parse(at) if at else None
        self.kept = _distinct(runs)
        self.repeated = len(runs) - len(self.kept)
        self.grouping: Grouping = group(self.kept)
        named = {run.metric for run in runs if run.metric}
        self.metric = metric or (named.pop() if len(named) == 1 else _DEFAULT_METRIC)
        if metric:
            self._require(metric)

    def _require(self, metric: str) -> None:
        """Raise DataError unless a run knows the metric."""
        known = dict.fromkeys(name for run in self.kept for name in run.metrics)
        if metric in known:
            return
        in_history = [name for name in self.history.columns if "/" in str(name)]
        if metric not in in_history:
            near = suggest(metric, [*known, *in_history])
            raise DataError(f"--metric {metric}: no run has this metric{near}")

    @property
    def larger_is_better(self) -> bool:
        """Whether the metric is an accuracy, and not a loss."""
        return not self.metric.endswith("loss")

    @property
    def test_metric(self) -> str:
        """The metric on the test set."""
        return f"test/{self.metric.rpartition('/')[2]}"

    @functools.cached_property
    def history(self) -> pd.DataFrame:
        """A row per epoch of each run; ``run`` is the index of ``rows``."""
        files = {i: run.history for i, run in enumerate(self.kept)}
        frame = read_histories({i: path for i, path in files.items() if path})
        left = [i for i, path in files.items() if path is None]
        if self._search is None or not left:
            return frame
        from src.comparison.from_mlflow import curves_in_mlflow

        others = curves_in_mlflow(self._search, self.kept)
        return pd.concat([frame, others], ignore_index=True) if len(others) else frame

    @functools.cached_property
    def rows(self) -> pd.DataFrame:
        """A row per run in the order given; ``group`` is the number of its configuration."""
        frame = pd.DataFrame(
            {
                "group": self.grouping.of_run,
                "run_id": [run.run_id for run in self.kept],
                "folder": [str(run.folder) if run.folder else "" for run in self.kept],
                "name": [run.name for run in self.kept],
                "seed": _typed(self.grouping.seed),
                "division": list(self.grouping.division),
                "status": [run.status for run in self.kept],
                "diverged": [run.diverged for run in self.kept],
                "failure": [run.failure or "" for run in self.kept],
            }
        )
        frame = frame.join(self._at_budget() if self.budget else self._at_end())
        frame["link"] = [_link(run) for run in self.kept]
        for key in self.grouping.differing:
            frame[key] = _typed([run.settings.get(key, "") for run in self.kept])
        return frame

    def _at_end(self) -> pd.DataFrame:
        """Return what each run has reached with the weights that it kept."""
        ended = [run.metrics if run.status == "FINISHED" else {} for run in self.kept]
        epochs = self.history.groupby("run")["epoch"].max()
        return pd.DataFrame(
            {
                "value": [own.get(self.metric, np.nan) for own in ended],
                "test": [own.get(self.test_metric, np.nan) for own in ended],
                "epochs": epochs.reindex(range(len(self.kept))),
                "seconds": [np.nan if run.seconds is None else run.seconds for run in self.kept],
            }
        )

    def _at_budget(self) -> pd.DataFrame:
        """Return what each run has reached within the budget."""
        assert self.budget is not None
        found = self.budget.within(self.history, self.kept).reindex(range(len(self.kept)))
        columns = {
            "value": self.metric,
            "test": self.test_metric,
            "epochs": "epoch",
            "seconds": "seconds",
        }
        return pd.DataFrame({name: _column(found, own) for name, own in columns.items()})

    def of_group(self, number: int) -> list[int]:
        """Return the numbers of a configuration's runs."""
        return list(self.rows.index[self.rows["group"] == number])

    @property
    def has_divisions(self) -> bool:
        """Whether runs of one configuration learned from different divisions of the data."""
        return any(self.grouping.division)

    @functools.cached_property
    def _sizes(self) -> tuple[int, int]:
        """How many samples are scored, and how many are trained with; 0 if unknown or varied."""
        part = self.metric.partition("/")[0]
        sizes = {(run.sizes.get(part, 0), run.sizes.get("train", 0)) for run in self.kept}
        return sizes.pop() if len(sizes) == 1 else (0, 0)

    @property
    def overlap(self) -> float:
        """How much the divisions of the data depend on each other; see ``Scores``."""
        if not self.has_divisions:
            return 0.0
        scored, trained = self._sizes
        return scored / trained if scored and trained else _OVERLAP

    def scores(self, groups: Iterable[int]) -> Scores:
        """Return the scores of configurations over their seeds.

        Where divisions vary they are over divisions, with the mean over the seeds of each: seeds of
        one division say nothing of the next one.
        """
        rows = self.rows[["group", "seed", "division", "value"]]
        replicate = "division" if self.has_divisions else "seed"
        table = rows.groupby(["group", replicate])["value"].mean().unstack()
        scored, _ = self._sizes
        matrix = table.reindex(list(groups)).to_numpy(float)
        return Scores(matrix, self.larger_is_better, scored or None, self.overlap)


def _distinct(runs: Sequence[KeptRun]) -> list[KeptRun]:
    """Return the runs without those that another one repeats: equal in settings, data and seed.

    A run that finished counts before one that did not, a later one before an earlier one. A run
    whose seed is unknown repeats nothing.
    """
    chosen: dict[object, int] = {}
    grouping = group(runs)
    for i, run in enumerate(runs):
        own = (grouping.of_run[i], grouping.seed[i], grouping.division[i])
        key = own if "seed" in run.settings else i
        other = chosen.setdefault(key, i)
        ours, theirs = ((one.status == "FINISHED", one.started) for one in (run, runs[other]))
        if ours > theirs:
            chosen[key] = i
    return [runs[i] for i in sorted(chosen.values())]


def _column(frame: pd.DataFrame, name: str) -> pd.Series:
    """Return a column, or NaN where it is missing."""
    return frame[name] if name in frame else pd.Series(np.nan, index=frame.index)


def _typed(values: Sequence[str]) -> pd.Series:
    """Return texts as numbers if all of them are numbers."""
    series = pd.Series(list(values), dtype=object)
    try:
        return pd.to_numeric(series)
    except (ValueError, TypeError):
        return series


def _link(run: KeptRun) -> str:
    """Return the link to a run's page in MLflow's UI, or nothing if MLflow does not have it."""
    if not (run.run_id and run.experiment_id):
        return ""
    typed = [o.partition("=")[2] for o in run.overrides if setting(o) == "tracking.uri"]
    store = typed[-1] if typed else os.environ.get("MLFLOW_TRACKING_URI") or ""
    return run_link(store, run.experiment_id, run.run_id)

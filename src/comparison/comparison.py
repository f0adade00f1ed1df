"""A set of kept runs, compared: the frames that the terminal, the report and notebooks show."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from src.comparison.configurations import Grouping, group
from src.comparison.kept import KeptRun, read_folder, read_histories, run_folders
from src.config.arguments import setting
from src.support.errors import DataError
from src.tracking.links import run_link

if TYPE_CHECKING:
    from collections.abc import Iterable

CURVES = ("train/loss", "val/loss", "train/accuracy", "val/accuracy")
BUDGETS = ("epochs", "updates", "samples", "seconds")
_DEFAULT_METRIC = "val/accuracy"


class Comparison:
    """Runs divided into configurations, whose seeds are replicates.

    ``metric`` ranks the configurations, by default the one that the runs name. ``at`` is a budget
    such as ``epochs=10``: each run counts with its last epoch within it, instead of with the
    epoch whose weights are kept.
    """

    def __init__(
        self, runs: Sequence[KeptRun], metric: str | None = None, at: str | None = None
    ) -> None:
        if not runs:
            raise DataError("there are no runs to compare")
        self.kept = tuple(runs)
        named = {run.metric for run in runs if run.metric}
        self.metric = metric or (named.pop() if len(named) == 1 else _DEFAULT_METRIC)
        self.larger_is_better = not self.metric.endswith("loss")
        self.budget = at

    @staticmethod
    def read(
        places: Iterable[Path | str], metric: str | None = None, at: str | None = None
    ) -> Comparison:
        """Return the comparison of all runs in folders: of sweeps, of runs, or outputs.

        Raises DataError if a folder holds no runs, or a run's files are damaged.
        """
        folders = run_folders(map(Path, places))
        return Comparison([read_folder(folder) for folder in folders], metric, at)

    @functools.cached_property
    def _grouping(self) -> Grouping:
        return group(self.kept)

    @property
    def differing(self) -> list[str]:
        """The settings in which configurations differ."""
        return list(self._grouping.differing)

    @property
    def common(self) -> dict[str, str]:
        """The settings that all runs share."""
        return dict(self._grouping.common)

    @functools.cached_property
    def _plain_runs(self) -> pd.DataFrame:
        """A row per run in the order given; ``group`` is the number of its configuration."""
        frame = pd.DataFrame(
            {
                "group": self._grouping.of_run,
                "run_id": [run.run_id for run in self.kept],
                "folder": [str(run.folder) if run.folder else "" for run in self.kept],
                "name": [run.name for run in self.kept],
                "seed": _typed(self._grouping.replicate),
                "status": [run.status for run in self.kept],
                "diverged": [run.diverged for run in self.kept],
                "failure": [run.failure or "" for run in self.kept],
                "value": [run.metrics.get(self.metric, np.nan) for run in self.kept],
                "test": [run.metrics.get(self._test_metric, np.nan) for run in self.kept],
                "epochs": np.nan,
                "seconds": [np.nan if run.seconds is None else run.seconds for run in self.kept],
                "link": [_link(run) for run in self.kept],
            }
        )
        history = self.history
        if len(history):
            frame["epochs"] = history.groupby("run")["epoch"].max().reindex(frame.index)
        for key in self.differing:
            frame[key] = _typed([run.settings.get(key, "") for run in self.kept])
        return frame

    @property
    def _test_metric(self) -> str:
        return f"test/{self.metric.rpartition('/')[2]}"

    @functools.cached_property
    def configurations(self) -> pd.DataFrame:
        """A row per configuration, the best first."""
        runs = self._plain_runs
        rows = []
        for number, own in runs.groupby("group"):
            finished = own[(own["status"] == "FINISHED") & own["value"].notna()]
            values = finished["value"]
            extremes = [values.max(), values.min()]
            best, worst = extremes if self.larger_is_better else reversed(extremes)
            rows.append(
                {
                    "group": number,
                    **{key: own[key].iloc[0] for key in self.differing},
                    "n": len(own),
                    "finished": len(finished),
                    "diverged": int(own["diverged"].sum()),
                    "failed": int(((own["status"] == "FAILED") & ~own["diverged"]).sum()),
                    "pruned": int((own["status"] == "PRUNED").sum()),
                    "mean": values.mean(),
                    "sd": values.std(),
                    "low": np.nan,
                    "high": np.nan,
                    "best": best,
                    "worst": worst,
                    "test_mean": finished["test"].mean(),
                    "seconds": finished["seconds"].mean(),
                    "tied": True,
                    "p": np.nan,
                }
            )
        frame = pd.DataFrame(rows)
        sign = -1 if self.larger_is_better else 1
        order = pd.DataFrame({"diverged": frame["diverged"] > 0, "mean": sign * frame["mean"]})
        frame = frame.loc[order.sort_values(["diverged", "mean"], kind="stable").index]
        frame.index = pd.Index([f"C{i}" for i in range(1, len(frame) + 1)], name="configuration")
        return frame

    @functools.cached_property
    def runs(self) -> pd.DataFrame:
        """A row per run, those of the best configuration first."""
        labels = {number: label for label, number in self.configurations["group"].items()}
        runs = self._plain_runs.copy()
        runs.insert(3, "configuration", runs["group"].map(labels))
        rank = runs["configuration"].str[1:].astype(int)
        order = pd.DataFrame({"rank": rank, "seed": runs["seed"]})
        return runs.loc[order.sort_values(["rank", "seed"], kind="stable").index]

    @functools.cached_property
    def history(self) -> pd.DataFrame:
        """The epochs of all runs; ``run`` is the index of ``runs``."""
        return read_histories({i: run.folder for i, run in enumerate(self.kept) if run.folder})

    def curves(self, metrics: Sequence[str] = CURVES) -> pd.DataFrame:
        """Return the epochs of all runs with the given metrics; what was not measured is NaN."""
        columns = ["run", "epoch", "updates", "samples", "seconds", *metrics]
        curves = self.history.reindex(columns=columns)
        curves.insert(1, "configuration", curves["run"].map(self.runs["configuration"]))
        return curves


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

"""The numbers of a comparison: frames of configurations, runs and curves, and the tests."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from src.comparison import reasons as layers
from src.comparison.answers import Answers, confusion, read_answers
from src.comparison.budget import Budget
from src.comparison.configurations import Grouping, group
from src.comparison.importance import importance
from src.comparison.kept import KeptRun, read_histories
from src.comparison.statistics import (
    LEVEL,
    Samples,
    Values,
    against_best,
    holm,
    interval,
    mcnemar_p,
    optimism,
    paired_difference,
    pareto,
    same_samples,
)
from src.config.arguments import setting
from src.support.errors import ConfigError, DataError, suggest
from src.tracking.links import run_link
from src.tracking.search import Search

CURVES = ("train/loss", "val/loss", "train/accuracy", "val/accuracy")
_DEFAULT_METRIC = "val/accuracy"


@dataclass(frozen=True)
class Pair:
    """Two configurations compared: by the metric over seeds, and on the same test samples."""

    first: str
    second: str
    difference: float  # of the means of the metric: first minus second
    low: float  # ends of its 95 % interval; NaN where it does not exist
    high: float
    p: float
    paired: bool  # over seeds
    samples: Samples | None  # None where no predictions of the same samples are kept


class Frames:
    """Runs divided into configurations, whose seeds are replicates.

    Every frame is computed once, when it is first asked for.

    Args:
        runs: As their folders or MLflow keep them.
        metric: Ranks the configurations; by default the one that the runs name.
        at: A budget such as ``epochs=10``: each run counts with its last epoch within it, instead
            of with the epoch whose weights are kept.
        search: Reads from MLflow the curves of runs that have no files here.

    Raises:
        DataError: There are no runs, or none of them knows the metric.
        ConfigError: The budget is none.
    """

    def __init__(
        self,
        runs: Sequence[KeptRun],
        metric: str | None = None,
        at: str | None = None,
        search: Search | None = None,
    ) -> None:
        if not runs:
            raise DataError("there are no runs to compare: train some with python -m src.run -m …")
        self._search = search
        self._budget = Budget.parse(at) if at else None
        self._kept = _distinct(runs)
        self._repeated = len(runs) - len(self._kept)
        self._grouping: Grouping = group(self._kept)
        named = {run.metric for run in runs if run.metric}
        self.metric = metric or (named.pop() if len(named) == 1 else _DEFAULT_METRIC)
        if metric:
            self._require(metric)

    def _require(self, metric: str) -> None:
        """Raise DataError unless a run knows the metric."""
        known = dict.fromkeys(name for run in self._kept for name in run.metrics)
        in_history = [name for name in self.history.columns if "/" in str(name)]
        if metric not in known and metric not in in_history:
            near = suggest(metric, [*known, *in_history])
            raise DataError(f"--metric {metric}: no run has this metric{near}")

    @property
    def kept(self) -> Sequence[KeptRun]:
        """The runs, in the order of the index of ``runs``."""
        return self._kept

    @property
    def larger_is_better(self) -> bool:
        """Whether the metric is an accuracy, and not a loss."""
        return not self.metric.endswith("loss")

    @property
    def budget(self) -> str | None:
        """The budget at which the runs are compared, such as ``epochs=10``."""
        return str(self._budget) if self._budget else None

    @property
    def differing(self) -> list[str]:
        """The settings in which configurations differ."""
        return list(self._grouping.differing)

    @property
    def common(self) -> dict[str, str]:
        """The settings that all runs share."""
        return dict(self._grouping.common)

    @functools.cached_property
    def history(self) -> pd.DataFrame:
        """The epochs of all runs; ``run`` is the index of ``runs``."""
        files = {i: run.history for i, run in enumerate(self._kept)}
        frame = read_histories({i: path for i, path in files.items() if path})
        left = [run for i, run in enumerate(self._kept) if files[i] is None]
        if self._search is None or not left:
            return frame
        from src.comparison.from_mlflow import curves_in_mlflow

        others = curves_in_mlflow(self._search, self._kept)
        return pd.concat([frame, others], ignore_index=True) if len(others) else frame

    @functools.cached_property
    def _plain_runs(self) -> pd.DataFrame:
        """A row per run in the order given; ``group`` is the number of its configuration."""
        frame = pd.DataFrame(
            {
                "group": self._grouping.of_run,
                "run_id": [run.run_id for run in self._kept],
                "folder": [str(run.folder) if run.folder else "" for run in self._kept],
                "name": [run.name for run in self._kept],
                "seed": _typed(self._grouping.replicate),
                "status": [run.status for run in self._kept],
                "diverged": [run.diverged for run in self._kept],
                "failure": [run.failure or "" for run in self._kept],
            }
        )
        last = self.history.groupby("run")["epoch"].max().reindex(frame.index)
        if self._budget:
            found = self._budget.within(self.history, self._kept).reindex(frame.index)
            frame["value"], frame["test"] = _column(found, self.metric), _column(found, self._test)
            frame["epochs"] = _column(found, "epoch")
            frame["seconds"] = _column(found, "seconds")
        else:
            ended = [run.metrics if run.status == "FINISHED" else {} for run in self._kept]
            frame["value"] = [own.get(self.metric, np.nan) for own in ended]
            frame["test"] = [own.get(self._test, np.nan) for own in ended]
            frame["epochs"] = last
            frame["seconds"] = [
                np.nan if run.seconds is None else run.seconds for run in self._kept
            ]
        frame["link"] = [_link(run) for run in self._kept]
        for key in self.differing:
            frame[key] = _typed([run.settings.get(key, "") for run in self._kept])
        return frame

    @property
    def _test(self) -> str:
        """The metric on the test set."""
        return f"test/{self.metric.rpartition('/')[2]}"

    @functools.cached_property
    def configurations(self) -> pd.DataFrame:
        """A row per configuration, the best first; see docs/compare.md for the columns.

        Configurations of which a run diverged come after all others.
        """
        frame = self._summaries()
        sign = -1 if self.larger_is_better else 1
        keys = pd.DataFrame({"diverged": frame["diverged"] > 0, "mean": sign * frame["mean"]})
        frame = frame.loc[keys.sort_values(["diverged", "mean"], kind="stable").index]
        frame.index = pd.Index([f"C{i}" for i in range(1, len(frame) + 1)], name="configuration")
        frame["p"] = self._p(frame)
        frame["p_samples"] = self._p_samples(frame)
        told = (frame["p"] < LEVEL) & ~(frame["p_samples"] >= LEVEL)
        frame["tied"] = (frame["finished"] > 0) & ~told
        return frame

    def _summaries(self) -> pd.DataFrame:
        """Return a row per configuration with what its runs say of it alone."""
        runs = self._plain_runs
        unfinished = runs["value"].isna()
        marked = runs.assign(
            lost=unfinished & runs["diverged"],
            failed=unfinished & (runs["status"] == "FAILED") & ~runs["diverged"],
            pruned=unfinished & (runs["status"] == "PRUNED"),
            seconds=runs["seconds"].where(~unfinished),
        )
        grouped = marked.groupby("group")
        values = grouped["value"]
        mean, deviation, finished = values.mean(), values.std(), values.count()
        limits = (0.0, 1.0) if self.metric.endswith("accuracy") else (-np.inf, np.inf)
        low, high = interval(
            mean.to_numpy(float), deviation.to_numpy(float), finished.to_numpy(float), *limits
        )
        extremes = [values.max(), values.min()]
        best, worst = extremes if self.larger_is_better else reversed(extremes)
        settings = grouped[self.differing].first() if self.differing else pd.DataFrame()
        columns = {
            "group": mean.index,
            **{key: settings[key] for key in self.differing},
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
            "test_mean": marked["test"].where(~unfinished).groupby(marked["group"]).mean(),
            "seconds": grouped["seconds"].mean(),
        }
        return pd.DataFrame(columns, index=mean.index)

    def _matrix(self, groups: Iterable[int], column: str = "value") -> Values:
        """Return (configurations, replicates): a column of the runs, NaN where a run is missing."""
        runs = self._plain_runs
        table = runs.pivot_table(column, "group", "seed", aggfunc="first", dropna=False)
        matrix: Values = table.reindex(list(groups)).to_numpy(float)
        return matrix

    def _p(self, frame: pd.DataFrame) -> Values:
        """Return for each configuration the corrected p-value of its difference from the best."""
        if not len(frame) or not frame["finished"].any():
            return np.full(len(frame), np.nan)
        return against_best(self._matrix(frame["group"]), 0, self.larger_is_better)

    def _p_samples(self, frame: pd.DataFrame) -> Values:
        """Return the same on the kept predictions of the same test samples.

        The best was chosen by other samples, so that Holm's correction counts the others only.
        """
        p = np.full(len(frame), np.nan)
        answers = self._answers
        if answers is None or answers.part != "test" or self.metric.startswith("test/"):
            return p
        right = [answers.right(self._of_group(number)) for number in frame["group"]]
        best = right[0]
        others = [i for i in range(1, len(right)) if len(right[i])]
        if len(best) and others:
            shares = np.stack([right[i].mean(axis=0) for i in others])
            exact = max(map(len, right)) == 1
            p[others] = mcnemar_p(best, shares, exact)
        return holm(p)

    def _of_group(self, number: int) -> list[int]:
        """Return the numbers of a configuration's runs."""
        runs = self._plain_runs
        return list(runs.index[runs["group"] == number])

    def _of(self, name: str) -> list[int]:
        """Return the numbers of the runs of a configuration, or of the run in a folder.

        Raises ConfigError if there is no such configuration or run.
        """
        frame = self.configurations
        if name in frame.index:
            return self._of_group(int(frame.loc[name, "group"]))
        path = Path(name).absolute()
        found = [
            i
            for i, run in enumerate(self._kept)
            if run.folder and (run.folder.absolute() == path or run.folder.name == name)
        ]
        if len(found) != 1:
            near = suggest(name, frame.index)
            raise ConfigError(f"{name}: no such configuration, and not the folder of one run{near}")
        return found

    @functools.cached_property
    def runs(self) -> pd.DataFrame:
        """A row per run, those of the best configuration first."""
        labels = {number: label for label, number in self.configurations["group"].items()}
        runs = self._plain_runs.copy()
        runs.insert(3, "configuration", runs["group"].map(labels))
        rank = runs["configuration"].str[1:].astype(int)
        order = pd.DataFrame({"rank": rank, "seed": runs["seed"]})
        return runs.loc[order.sort_values(["rank", "seed"], kind="stable").index]

    def curves(self, metrics: Sequence[str] = CURVES) -> pd.DataFrame:
        """Return the epochs of all runs with the given metrics; what was not measured is NaN."""
        columns = ["run", "epoch", "updates", "samples", "seconds", *metrics]
        curves = self.history.reindex(columns=columns)
        curves.insert(1, "configuration", curves["run"].map(self.runs["configuration"]))
        return curves

    def importance(self) -> pd.DataFrame:
        """Return the share of the variance that each setting and each pair explains."""
        return self._importance.copy()

    @functools.cached_property
    def _importance(self) -> pd.DataFrame:
        return importance(self._plain_runs.dropna(subset=["value"]), self.differing)

    def front(self) -> pd.DataFrame:
        """Return seconds and value of each configuration, and whether it is on the Pareto front."""
        frame = self.configurations
        on_front = pareto(list(frame["seconds"]), list(frame["mean"]), self.larger_is_better)
        return pd.DataFrame(
            {
                "configuration": frame.index,
                "seconds": frame["seconds"].to_numpy(),
                "value": frame["mean"].to_numpy(),
                "on_front": on_front,
            }
        )

    def reasons(self) -> pd.DataFrame:
        """Return the diagnosis of the layers by configuration; no rows if none was diagnosed."""
        return layers.by_layer(self.history, self.runs["configuration"])

    @functools.cached_property
    def optimism(self) -> float | None:
        """By how much the mean of the best flatters it, because it was chosen by that mean."""
        frame = self.configurations
        sound = frame[frame["diverged"] == 0] if (frame["diverged"] == 0).any() else frame
        return optimism(self._matrix(sound["group"]), self.larger_is_better)

    @functools.cached_property
    def _answers(self) -> Answers | None:
        """The answers of all networks to the samples that the best ones answer."""
        if self._budget:  # predictions are made with the kept weights
            return None
        runs = self._plain_runs
        sign = -1 if self.larger_is_better else 1
        ranked = (sign * runs["value"]).sort_values(kind="stable").dropna().index
        files = {i: path for i in ranked if (path := self._kept[i].predictions)}
        return read_answers(files)

    @property
    def class_names(self) -> list[str]:
        """The classes, as the labels of the data number them."""
        answers = self._answers
        outputs = max(
            (_integer(run.settings.get("model.outputs")) for run in self._kept), default=0
        )
        highest = int(answers.labels.max()) + 1 if answers is not None else 0
        return [str(number) for number in range(max(outputs, highest))]

    def confusion(self, label: str) -> npt.NDArray[np.int64] | None:
        """Return (classes, classes): how often label i was answered with j, over all seeds.

        None if no predictions are kept. Raises ConfigError if there is no such configuration.
        """
        runs = self._of(label)
        return confusion(self._answers, runs, len(self.class_names)) if self._answers else None

    def disagreement(self, a: str, b: str) -> pd.DataFrame:
        """Return the samples that the networks of two configurations answer differently often.

        Columns ``sample``, ``label``, and by ``a`` and ``b`` the shares of networks that are right;
        the greatest difference first. No rows if no predictions are kept.
        """
        empty = pd.DataFrame({"sample": [], "label": [], "a": [], "b": []})
        answers, first, second = self._answers, self._of(a), self._of(b)
        if answers is None:
            return empty
        ours, theirs = answers.right(first), answers.right(second)
        if not (len(ours) and len(theirs)):
            return empty
        frame = pd.DataFrame(
            {
                "sample": np.arange(len(answers.labels)),
                "label": answers.labels.astype(int),
                "a": ours.mean(axis=0),
                "b": theirs.mean(axis=0),
            }
        )
        frame = frame[frame["a"] != frame["b"]]
        order = (frame["a"] - frame["b"]).abs().sort_values(ascending=False, kind="stable").index
        return frame.loc[order].reset_index(drop=True)

    def mcnemar(self, a: str, b: str) -> Samples | None:
        """Return the comparison of two configurations on the same test samples, or None.

        Raises ConfigError if there is no such configuration.
        """
        answers, first, second = self._answers, self._of(a), self._of(b)
        if answers is None:
            return None
        ours, theirs = answers.right(first), answers.right(second)
        return same_samples(ours, theirs) if len(ours) and len(theirs) else None

    def pair(self, a: str, b: str) -> Pair:
        """Return the comparison of two configurations by their labels, or of runs by their folders.

        Raises ConfigError if there is no such configuration or run.
        """
        runs = self._plain_runs
        seeds = list(dict.fromkeys(runs["seed"]))
        values = [runs.loc[self._of(name)].set_index("seed")["value"] for name in (a, b)]
        first, second = (own.reindex(seeds).to_numpy(float) for own in values)
        gap, (low, high), p, paired = paired_difference(first, second)
        return Pair(a, b, gap, float(low), float(high), p, paired, self.mcnemar(a, b))

    def image(self, sample: int) -> npt.NDArray[np.uint8] | None:
        """Return the pixels (H, W) of a test sample, or None if the data is gone or has changed."""
        images = self._images
        return images[sample] if images is not None and sample < len(images) else None

    @functools.cached_property
    def _images(self) -> npt.NDArray[np.uint8] | None:
        """The images (samples, H, W) that the networks answered."""
        answers = self._answers
        if answers is None:
            return None
        from src.config.kept_configuration import check_kept
        from src.experiment.predictions import Predictions
        from src.support.errors import UserError

        for number in answers.of_run:
            folder = self._kept[number].folder
            if folder is None:
                continue
            try:
                _, prepared = check_kept(folder)
            except UserError:
                return None
            split = dict(prepared.dataset.splits()).get(answers.part)
            if split is None or len(prepared.dataset.shape) != 2:
                return None
            none = np.empty((len(split), 0), np.float32)
            if Predictions.of(answers.part, split, split.labels, none).samples != answers.digest:
                return None
            pixels = split.images.reshape(-1, *prepared.dataset.shape)
            low, high = (0, 255) if pixels.dtype == np.uint8 else (pixels.min(), pixels.max())
            scaled = (pixels.astype(np.float32) - low) / ((high - low) or 1) * 255
            return scaled.astype(np.uint8)
        return None

    @property
    def repeated(self) -> int:
        """How many runs are left out because a later one repeats them."""
        return self._repeated


def _distinct(runs: Sequence[KeptRun]) -> list[KeptRun]:
    """Return the runs without those that another one repeats: equal in settings, data and seed.

    A run that finished counts before one that did not, a later one before an earlier one. A run
    whose seed is unknown repeats nothing.
    """
    chosen: dict[object, int] = {}
    grouping = group(runs)
    for i, run in enumerate(runs):
        key = (grouping.of_run[i], grouping.replicate[i]) if "seed" in run.settings else i
        other = chosen.setdefault(key, i)
        ours, theirs = ((one.status == "FINISHED", one.started) for one in (run, runs[other]))
        if ours > theirs:
            chosen[key] = i
    return [runs[i] for i in sorted(chosen.values())]


def _column(frame: pd.DataFrame, name: str) -> pd.Series:
    """Return a column, or NaN where it is missing."""
    return frame[name] if name in frame else pd.Series(np.nan, index=frame.index)


def _integer(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0


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

"""The numbers of a comparison as frames: of configurations, runs, curves and mistakes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from src.comparison import reasons as layers
from src.comparison.answers import Answers, confusion, disagreement, read_answers
from src.comparison.importance import at_last_rung, importance
from src.comparison.kept import KeptRun
from src.comparison.ranking import ranked
from src.comparison.run_table import RunTable
from src.comparison.scores import corrected
from src.comparison.statistics import Samples, optimism, pareto, same_samples
from src.support.errors import ConfigError, suggest
from src.tracking.search import Search

CURVES = ("train/loss", "val/loss", "train/accuracy", "val/accuracy")


@dataclass(frozen=True)
class Pair:
    """Two configurations compared: by the metric over seeds, and on the same test samples."""

    first: str
    second: str
    difference: float  # of the means of the metric: first minus second
    low: float  # ends of its 95% interval; NaN where it does not exist
    high: float
    p: float  # of this pair alone
    p_of_all: float  # corrected for all pairs of configurations
    pairs: int  # how many pairs of configurations there are
    over: str  # what the interval is over: seeds or divisions
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
        ConfigError: The budget can't be read.
    """

    def __init__(
        self,
        runs: Sequence[KeptRun],
        metric: str | None = None,
        at: str | None = None,
        search: Search | None = None,
    ) -> None:
        self._table = RunTable(runs, metric, at, search)

    @property
    def metric(self) -> str:
        """What ranks the configurations, such as ``val/accuracy``."""
        return self._table.metric

    @property
    def kept(self) -> Sequence[KeptRun]:
        """The runs, in the order of the index of ``runs``."""
        return self._table.kept

    @property
    def repeated(self) -> int:
        """How many runs are left out because a later one repeats them."""
        return self._table.repeated

    @property
    def larger_is_better(self) -> bool:
        """Whether the metric is an accuracy, and not a loss."""
        return self._table.larger_is_better

    @property
    def budget(self) -> str | None:
        """The budget at which the runs are compared, such as ``epochs=10``."""
        return str(self._table.budget) if self._table.budget else None

    @property
    def differing(self) -> list[str]:
        """The settings in which configurations differ."""
        return list(self._table.grouping.differing)

    @property
    def common(self) -> dict[str, str]:
        """The settings that all runs share."""
        return dict(self._table.grouping.common)

    @property
    def history(self) -> pd.DataFrame:
        """The epochs of all runs; ``run`` is the index of ``runs``."""
        return self._table.history

    @functools.cached_property
    def configurations(self) -> pd.DataFrame:
        """A row per configuration, the best first; see docs/compare.md for the columns.

        Configurations of which a run diverged come after all others.
        """
        return ranked(self._table, self._answers)

    def _of(self, name: str) -> list[int]:
        """Return the numbers of the runs of a configuration, or of the run in a folder.

        Raises ConfigError if there is no such configuration or run.
        """
        frame = self.configurations
        if name in frame.index:
            return self._table.of_group(int(frame.loc[name, "group"]))
        path = Path(name).absolute()
        found = [
            i
            for i, run in enumerate(self.kept)
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
        runs = self._table.rows.copy()
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
        analysed, epoch = self.analysed
        found = importance(analysed, self.differing, self._table.overlap)
        if epoch is not None:
            found["method"] += (
                f", at epoch {epoch}, the last that all {len(analysed):,} runs reached"
            )
        return found

    @functools.cached_property
    def analysed(self) -> tuple[pd.DataFrame, int | None]:
        """The runs between which ``importance`` divides the variance, and after which epoch.

        All runs that finished, at their end (None). Where runs were pruned, the survivors would
        say nothing of the others: all count with the last epoch that all of them reached.
        """
        rows = self._table.rows
        found = at_last_rung(rows, self.history, self.metric)
        runs, epoch = found or (rows.dropna(subset=["value"]), None)
        if self.has_divisions:  # the seeds of a division count as one value
            firsts = dict.fromkeys(self.differing, "first")
            groups = runs.groupby(["group", "division"], as_index=False)
            runs = groups.agg({"value": "mean", "status": "first", **firsts})
        return runs, epoch

    def front(self) -> pd.DataFrame:
        """Return seconds and value of each configuration, and whether it is on the Pareto front."""
        frame = self.configurations
        sound = frame["mean"].where((frame["diverged"] == 0) | (frame["diverged"] > 0).all())
        on_front = pareto(list(frame["seconds"]), list(sound), self.larger_is_better)
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
        sound = sound[sound["finished"] > 0]
        return optimism(self._table.scores(sound["group"]).values, self.larger_is_better)

    @property
    def has_divisions(self) -> bool:
        """Whether runs of one configuration learned from different divisions of the data."""
        return self._table.has_divisions

    @functools.cached_property
    def _answers(self) -> Answers | None:
        """The answers of all networks to the samples that the best ones answer."""
        if self.budget:  # predictions are made with the kept weights
            return None
        runs = self._table.rows
        sign = -1 if self.larger_is_better else 1
        order = (sign * runs["value"]).sort_values(kind="stable").dropna().index
        files = {i: path for i in order if (path := self.kept[i].predictions)}
        return read_answers(files)

    @property
    def class_names(self) -> list[str]:
        """The classes, as the labels of the data number them."""
        answers = self._answers
        outputs = max(_integer(run.settings.get("model.outputs")) for run in self.kept)
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
        return disagreement(self._answers, self._of(a), self._of(b))

    def mcnemar(self, a: str, b: str) -> Samples | None:
        """Return the comparison of two configurations on the same test samples, or None.

        None, too, where the runs learned from different divisions: their test samples differ.
        Raises ConfigError if there is no such configuration.
        """
        answers, first, second = self._answers, self._of(a), self._of(b)
        divisions = {self._table.grouping.division[run] for run in (*first, *second)}
        if answers is None or len(divisions) > 1:
            return None
        ours, theirs = answers.right(first), answers.right(second)
        return same_samples(ours, theirs) if len(ours) and len(theirs) else None

    def pair(self, a: str, b: str) -> Pair:
        """Return the comparison of two configurations by their labels, or of runs by their folders.

        Raises ConfigError if there is no such configuration or run.
        """
        frame, values = self.configurations, self._table.rows["value"]
        samples, over = self.mcnemar(a, b), "divisions" if self.has_divisions else "seeds"
        rivals = [i for i in range(len(frame)) if frame["replicates"].iloc[i] >= 2]
        places = [i for i in rivals if frame.index[i] in (a, b)]
        pairs = len(rivals) * (len(rivals) - 1) // 2
        if len(places) < 2:
            gap = float(values[self._of(a)].mean() - values[self._of(b)].mean())
            return Pair(a, b, gap, np.nan, np.nan, np.nan, np.nan, pairs, over, samples)
        first, second = (int(frame.index.get_loc(name)) for name in (a, b))
        scores = self._table.scores(frame["group"])
        found = {i: scores.difference(first, i) for i in rivals if i != first}
        alone = np.array([found[i].p if i in found else np.nan for i in range(len(frame))])
        one, of_all = found[second], corrected(found, alone)[second]
        return Pair(a, b, one.gap, one.low, one.high, one.p, of_all, pairs, over, samples)

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
        from src.comparison.images import answered_images

        folders = (self.kept[number].folder for number in answers.of_run)
        return answered_images(answers, (folder for folder in folders if folder))


def _integer(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0

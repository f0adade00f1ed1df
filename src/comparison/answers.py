"""The answers of networks to the same test samples, and what two configurations disagree about."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import pandas as pd


@dataclass(frozen=True)
class Answers:
    """What the networks of a set of runs say of the same samples."""

    part: str  # test, or the last set that the data has
    digest: str  # of the samples
    labels: npt.NDArray[np.int64]  # (samples,)
    of_run: Mapping[int, npt.NDArray[np.int64]]  # (samples,) by the run's number
    left_out: int  # runs that answer other samples

    def right(self, runs: "list[int]") -> npt.NDArray[np.float64]:
        """Return (networks, samples): 1 where a network of these runs is right."""
        known = [self.of_run[run] for run in runs if run in self.of_run]
        if not known:
            return np.empty((0, len(self.labels)))
        right: npt.NDArray[np.float64] = (np.stack(known) == self.labels).astype(float)
        return right


def read_answers(files: Mapping[int, Path]) -> Answers | None:
    """Return the answers in prediction files, given by the numbers of their runs, or None.

    If the files answer different samples, those of the first file count. A damaged file is left
    out.
    """
    found: dict[int, npt.NDArray[np.int64]] = {}
    part = digest = ""
    labels = np.empty(0, np.int64)
    left_out = 0
    for run, file in files.items():
        try:
            with np.load(file) as arrays:  # the probabilities, most of the file, are not read
                samples, predicted = str(arrays["samples"]), arrays["predicted"]
                if not digest:
                    part, digest, labels = str(arrays["part"]), samples, arrays["labels"]
        except (OSError, ValueError, KeyError, BadZipFile):
            left_out += 1
            continue
        if samples == digest and predicted.shape == labels.shape:
            found[run] = predicted
        else:
            left_out += 1
    return Answers(part, digest, labels, found, left_out) if found else None


def confusion(answers: Answers, runs: "list[int]", classes: int) -> npt.NDArray[np.int64] | None:
    """Return (classes, classes): how often label i is answered with j, summed over the runs."""
    known = [answers.of_run[run] for run in runs if run in answers.of_run]
    if not known:
        return None
    counts = np.zeros((classes, classes), np.int64)
    for predicted in known:
        np.add.at(counts, (answers.labels.astype(int), predicted.astype(int)), 1)
    return counts


def disagreement(answers: Answers | None, first: "list[int]", second: "list[int]") -> pd.DataFrame:
    """Return the samples that the networks of two sets of runs answer differently often.

    Columns ``sample``, ``label``, and by ``a`` and ``b`` the shares of networks that are right; the
    greatest difference first. No rows if no predictions are kept.
    """
    empty = pd.DataFrame({"sample": [], "label": [], "a": [], "b": []})
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

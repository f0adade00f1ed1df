"""Keeps a network's answer to each sample, so that two runs can be compared sample by sample."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from src.data import Split
from src.nn.layers import Array
from src.support.archives import read_arrays
from src.support.errors import DataError
from src.support.files import whole_file

_ARRAYS = {"part", "samples", "labels", "predicted", "probabilities"}


@dataclass(frozen=True)
class Predictions:
    """A network's answers to one set."""

    part: str  # train, val or test
    samples: str  # a digest of images and labels: equal digests mean the same samples in one order
    labels: npt.NDArray[np.int64]  # (n,), the right answers
    predicted: npt.NDArray[np.int64]  # (n,), the network's answers
    probabilities: Array  # (n, classes)

    @staticmethod
    def of(
        part: str, split: Split, predicted: npt.NDArray[np.int64], probabilities: Array
    ) -> "Predictions":
        """Return the predictions for a set."""
        digest = hashlib.sha256(np.ascontiguousarray(split.images).data)
        digest.update(np.ascontiguousarray(split.labels).data)
        return Predictions(part, digest.hexdigest()[:32], split.labels, predicted, probabilities)

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether each sample is classified correctly, (n,)."""
        right: npt.NDArray[np.bool_] = self.labels == self.predicted
        return right

    def against(self, other: "Predictions") -> "Contingency":
        """Count how often both, one or neither of two networks is right.

        Raises DataError if the two answer different samples.
        """
        if self.samples != other.samples:
            raise DataError(
                f"predictions for {len(self.labels)} {self.part} samples and for "
                f"{len(other.labels)} {other.part} samples can't be compared: the samples differ; "
                "compare runs with equal data, division and set"
            )
        ours, theirs = self.right, other.right
        counts = (ours & theirs, ours & ~theirs, ~ours & theirs, ~ours & ~theirs)
        return Contingency(*(int(np.count_nonzero(count)) for count in counts))

    def save(self, path: Path) -> None:
        """Write a small file: few bytes per label, half precision for the probabilities.

        The most probable class of each row stays the predicted one: see ``_halved``.
        """
        classes = self.probabilities.shape[-1]
        highest = max(classes - 1, int(self.labels.max(initial=0)))
        label = np.min_scalar_type(highest)
        arrays: dict[str, Any] = {
            "part": np.array(self.part),
            "samples": np.array(self.samples),
            "labels": self.labels.astype(label),
            "predicted": self.predicted.astype(label),
            "probabilities": _halved(self.probabilities, self.predicted),
        }
        with whole_file(path) as file:
            np.savez_compressed(file, **arrays)

    @staticmethod
    def load(path: Path) -> "Predictions":
        """Return the predictions of a file that ``save`` wrote.

        Raises DataError if the file is unreadable or holds anything else.
        """
        path = Path(path)
        arrays = read_arrays(path)
        if missing := sorted(_ARRAYS - set(arrays)):
            raise DataError(
                f"{path}: lacks {', '.join(missing)}; "
                "the predictions of a run are in its predictions.npz"
            )
        if not _fits(arrays):
            raise DataError(
                f"{path}: its arrays are not predictions; "
                "the predictions of a run are in its predictions.npz"
            )
        return Predictions(
            str(arrays["part"]),
            str(arrays["samples"]),
            arrays["labels"].astype(np.int64),
            arrays["predicted"].astype(np.int64),
            arrays["probabilities"].astype(np.float32),
        )


def _halved(probabilities: Array, predicted: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
    """Return probabilities in half precision with the first maximum of each row where it was.

    Where rounding makes another class equal to the predicted one, it goes down by one bit. Single
    precision would double the file and still not tell saturated sigmoids apart.
    """
    half = probabilities.astype(np.float16)
    rows = np.arange(len(half))
    was_highest = probabilities[rows, predicted] == probabilities.max(axis=1)
    rows = rows[was_highest & (half.argmax(axis=1) != predicted)]
    highest = np.maximum(half[rows, predicted[rows]], np.finfo(np.float16).smallest_subnormal)
    below = np.nextafter(highest, np.float16(0))
    half[rows] = np.minimum(half[rows], below[:, None])
    half[rows, predicted[rows]] = highest
    return half


def _fits(arrays: Mapping[str, npt.NDArray[Any]]) -> bool:
    """Tell whether arrays have the types and shapes that ``save`` writes."""
    part, samples = arrays["part"], arrays["samples"]
    labels, predicted = arrays["labels"], arrays["predicted"]
    probabilities = arrays["probabilities"]
    return (
        part.dtype.kind == samples.dtype.kind == "U"
        and part.shape == samples.shape == ()
        and labels.dtype.kind in "iu"
        and predicted.dtype.kind in "iu"
        and labels.ndim == 1
        and predicted.shape == labels.shape
        and probabilities.dtype.kind == "f"
        and probabilities.ndim == 2
        and len(probabilities) == len(labels)
    )


@dataclass(frozen=True)
class Contingency:
    """How many samples two networks classify correctly: the table for McNemar's test."""

    both: int
    only_first: int
    only_second: int
    neither: int

"""What a network said of each sample: kept with the run, so that two runs can be compared sample by sample."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from src.data import Split
from src.nn.layers import Array
from src.support.archives import read_arrays
from src.support.errors import DataError


@dataclass(frozen=True)
class Predictions:
    """The answers to one set: ``labels (n,)`` are right, ``predicted (n,)`` was said, with ``probabilities (n, classes)``."""

    part: str  # train, val or test
    samples: str  # a digest of the images and labels: equal ones mean equal samples in equal order
    labels: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    probabilities: Array

    @staticmethod
    def of(
        part: str, split: Split, predicted: npt.NDArray[np.int64], probabilities: Array
    ) -> "Predictions":
        """Bring a set and the answers to it together."""
        digest = hashlib.sha256(np.ascontiguousarray(split.images).data)
        digest.update(np.ascontiguousarray(split.labels).data)
        return Predictions(part, digest.hexdigest()[:32], split.labels, predicted, probabilities)

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Which samples were classified right, (n,)."""
        right: npt.NDArray[np.bool_] = self.labels == self.predicted
        return right

    def against(self, other: "Predictions") -> "Contingency":
        """Count how often which of the two is right. Raises DataError where they answer different samples."""
        if self.samples != other.samples:
            raise DataError(
                f"predictions of {len(self.labels)} {self.part} samples and of {len(other.labels)} {other.part} samples "
                "can't be compared one by one: the samples differ"
            )
        ours, theirs = self.right, other.right
        counts = (ours & theirs, ours & ~theirs, ~ours & theirs, ~ours & ~theirs)
        return Contingency(*(int(np.count_nonzero(count)) for count in counts))

    def save(self, path: Path) -> None:
        """Write compactly: the fewest bytes a label, half precision for the probabilities."""
        label = np.min_scalar_type(
            max(self.probabilities.shape[-1] - 1, int(self.labels.max(initial=0)))
        )
        arrays: dict[str, Any] = {
            "part": np.array(self.part),
            "samples": np.array(self.samples),
            "labels": self.labels.astype(label),
            "predicted": self.predicted.astype(label),
            "probabilities": self.probabilities.astype(np.float16),
        }
        np.savez_compressed(path, **arrays)

    @staticmethod
    def load(path: Path) -> "Predictions":
        """Raises DataError where the file can't be read or is not of this form."""
        path = Path(path)
        arrays = read_arrays(path)
        if missing := sorted(
            {"part", "samples", "labels", "predicted", "probabilities"} - set(arrays)
        ):
            raise DataError(
                f"{path}: lacks {', '.join(missing)}; a run keeps its predictions in predictions.npz"
            )
        try:
            return Predictions(
                str(arrays["part"]),
                str(arrays["samples"]),
                arrays["labels"].astype(np.int64),
                arrays["predicted"].astype(np.int64),
                arrays["probabilities"].astype(np.float32),
            )
        except ValueError as error:
            raise DataError(f"{path}: holds something else than predictions ({error})") from None


@dataclass(frozen=True)
class Contingency:
    """Of the same samples, how many two networks classify right: what McNemar's test of their difference is made of."""

    both: int
    only_first: int
    only_second: int
    neither: int

"""The form that all data takes: samples as a source holds them, and the three sets of a run."""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from src.data.splitting import Index, Splitting
from src.support.errors import DataError, require, within

Images = npt.NDArray[np.uint8] | npt.NDArray[np.floating]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Samples:
    """Every sample of a source, in the source's own order."""

    images: Images  # (n, features), in the source's own range, usually 0 to 255
    labels: Labels  # (n,), from 0
    shape: tuple[int, ...]  # of one image: (height, width) or (height, width, channels)
    own_test: int = 0  # the last own_test samples are the source's own test set

    def __post_init__(self) -> None:
        assert self.images.shape == (len(self.labels), math.prod(self.shape))


@dataclass(frozen=True)
class Split:
    """One of the three sets: ``images (n, features)`` in the source's range, ``labels (n,)``."""

    images: Images
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """The three sets of a run: train to learn from, val to choose by, test to report.

    ``val`` and ``test`` may be empty.
    """

    name: str
    train: Split
    val: Split
    test: Split
    shape: tuple[int, ...]  # of one image
    scale: float  # pixels are multiplied by this before a network sees them
    digest: str  # 32 hexadecimal digits: equal if samples, division and scale are equal

    @property
    def features(self) -> int:
        """The number of pixels of one image."""
        return math.prod(self.shape)

    @property
    def classes(self) -> int:
        """One more than the highest label of the three sets."""
        return 1 + max(int(split.labels.max(initial=-1)) for _, split in self.splits())

    def splits(self) -> Iterator[tuple[str, Split]]:
        """Yield the name and the samples of each set that is not empty."""
        for name, split in (("train", self.train), ("val", self.val), ("test", self.test)):
            if len(split):
                yield name, split

    def __str__(self) -> str:
        counts = ", ".join(f"{len(split):,} {name}" for name, split in self.splits())
        pixels = "×".join(map(str, self.shape))
        return f"{self.name}: {counts}, {pixels} pixels, {self.classes} classes"


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """Where labelled images come from, how they are divided, and how pixels are scaled."""

    split: Splitting
    scale: str | float = "1/255"  # a number, or a fraction as a string

    def __post_init__(self) -> None:
        require(
            self._factor() > 0,
            "scale",
            self.scale,
            "must be a positive number or a fraction such as 1/255",
        )

    @property
    @abstractmethod
    def name(self) -> str:
        """A short name for people."""

    @abstractmethod
    def samples(self) -> Samples:
        """Return all samples. Raises DataError if they are missing, damaged or misshapen."""

    def load(self) -> Dataset:
        """Return the samples, divided and described.

        Raises DataError if they cannot be read, and InvalidValue if the division does not fit them.
        """
        samples = self.samples()
        if len(samples.labels) == 0:
            raise DataError(f"data={self.name}: has no samples; at least one is needed")
        with within("split"):
            train, val, test = self.split.divide(samples.labels, samples.own_test)
        return Dataset(
            name=self.name,
            train=_take(samples, train),
            val=_take(samples, val),
            test=_take(samples, test),
            shape=samples.shape,
            scale=self._factor(),
            digest=self._digest(samples, train, val, test),
        )

    def _digest(self, samples: Samples, *sets: Index) -> str:
        """Return 32 hexadecimal digits over the samples, their division and the scale."""
        form = (samples.shape, self._factor(), samples.images.dtype.str)
        digest = hashlib.sha256(repr(form).encode())
        for array in (samples.images, samples.labels, *sets):
            digest.update(np.ascontiguousarray(array).data)
            digest.update(b"|%d" % len(array))  # the lengths tell where one array ends
        return digest.hexdigest()[:32]

    def _factor(self) -> float:
        """Return the scale as a number, or NaN if it is not one."""
        try:
            value = float(Fraction(self.scale) if isinstance(self.scale, str) else self.scale)
        except (ValueError, ZeroDivisionError, OverflowError):
            return math.nan
        return value if math.isfinite(value) else math.nan


def _take(samples: Samples, index: Index) -> Split:
    """Return the samples at ``index``: a view if the rows are consecutive, else a copy."""
    rows: slice | Index = index
    if len(index) and bool((np.diff(index) == 1).all()):
        rows = slice(int(index[0]), int(index[-1]) + 1)
    return Split(samples.images[rows], samples.labels[rows])


def fault(key: str, path: Path, what: str) -> DataError:
    """Return the error for a file or folder that the setting ``data.<key>`` names."""
    return DataError(f"data.{key}={path}: {what}")


def checked_labels(labels: npt.NDArray[Any], where: str) -> Labels:
    """Return labels as int64.

    Raises DataError, which starts with ``where``, unless they are whole numbers, 0 to 65,535.
    """
    rule = "labels must be whole numbers from 0 to 65535"
    if labels.dtype.kind not in "iuf":
        raise DataError(f"{where}: labels are of type {labels.dtype}; {rule}")
    wrong = (labels != np.floor(labels)) | (labels < 0) | (labels > 65_535)
    if wrong.any():
        raise DataError(f"{where}: one label is {labels[wrong][0]:g}; {rule}")
    return labels.astype(np.int64)


def square_if_possible(features: int) -> tuple[int, int]:
    """Return (height, width) for a row of pixels: a square if possible, else one line."""
    side = math.isqrt(features)
    return (side, side) if side * side == features else (1, features)

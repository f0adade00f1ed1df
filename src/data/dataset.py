"""The form that all data takes: rows as a source holds them, and the three sets that a run trains and is judged on."""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from src.data.splitting import Splitting
from src.support.errors import DataError, require, within

Images = npt.NDArray[np.uint8] | npt.NDArray[np.floating]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Samples:
    """Every sample of a source, in the source's own order."""

    images: Images  # (n, features), in the source's own range, 0 to 255 as a rule
    labels: Labels  # (n,), from 0
    shape: tuple[int, ...]  # of one image: (height, width) or (height, width, channels)
    own_test: int = 0  # how many samples at the end the source itself sets apart as its test set

    def __post_init__(self) -> None:
        assert self.images.shape == (len(self.labels), math.prod(self.shape))


@dataclass(frozen=True)
class Split:
    """One of the three sets: ``images (n, features)`` as the source holds them, ``labels (n,)``."""

    images: Images
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """What a run learns from (train), is chosen by (val) and is judged on (test); val and test may be empty."""

    name: str
    train: Split
    val: Split
    test: Split
    shape: tuple[int, ...]  # of one image
    scale: float  # pixels are multiplied by this before a network sees them
    digest: (
        str  # 32 hexadecimal digits: equal digests mean equal samples in equal sets at equal scale
    )

    @property
    def features(self) -> int:
        return math.prod(self.shape)

    @property
    def classes(self) -> int:
        """One more than the highest label of the three sets."""
        return 1 + max(int(split.labels.max(initial=-1)) for _, split in self.splits())

    def splits(self) -> Iterator[tuple[str, Split]]:
        """Yield the name and samples of each set that is not empty."""
        for name, split in (("train", self.train), ("val", self.val), ("test", self.test)):
            if len(split):
                yield name, split

    def __str__(self) -> str:
        counts = ", ".join(f"{len(split):,} {name}" for name, split in self.splits())
        return f"{self.name}: {counts}, {'×'.join(map(str, self.shape))} pixels, {self.classes} classes"


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """A place that labelled images come from, and how they are divided and scaled."""

    split: Splitting
    scale: str | float = "1/255"  # a number, or a fraction written as one

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
        """A short name, for people."""

    @abstractmethod
    def samples(self) -> Samples:
        """Read everything. Raises DataError where it is missing, damaged or of the wrong shape."""

    def load(self) -> Dataset:
        """Read, divide and describe. Raises DataError, and InvalidValue where the division does not fit."""
        samples = self.samples()
        if len(samples.labels) == 0:
            raise DataError(f"{self.name}: holds no samples")
        with within("split"):
            train, val, test = self.split.divide(samples.labels, samples.own_test)
        digest = hashlib.sha256(
            repr((samples.shape, self._factor(), samples.images.dtype.str)).encode()
        )
        for array in (samples.images, samples.labels, train, val, test):
            digest.update(np.ascontiguousarray(array).data)
            digest.update(b"|%d" % len(array))

        def take(index: npt.NDArray[np.intp]) -> Split:
            consecutive = (
                len(index) > 0
                and index[-1] - index[0] == len(index) - 1
                and bool((np.diff(index) == 1).all())
            )
            rows = (
                slice(int(index[0]), int(index[-1]) + 1) if consecutive else index
            )  # a view where it can be one
            return Split(samples.images[rows], samples.labels[rows])

        return Dataset(
            self.name,
            take(train),
            take(val),
            take(test),
            samples.shape,
            self._factor(),
            digest.hexdigest()[:32],
        )

    def _factor(self) -> float:
        try:
            value = float(Fraction(self.scale) if isinstance(self.scale, str) else self.scale)
        except (ValueError, ZeroDivisionError, OverflowError):
            return math.nan
        return value if math.isfinite(value) else math.nan


def checked_labels(labels: npt.NDArray[Any], where: str) -> Labels:
    """Return labels as int64. Raises DataError, which names ``where``, unless they are whole numbers from 0."""
    if (
        labels.dtype.kind not in "iuf"
        or not np.isfinite(labels).all()
        or (labels != np.floor(labels)).any()
    ):
        raise DataError(f"{where}: labels must be whole numbers")
    if (labels < 0).any():
        raise DataError(f"{where}: labels must be 0 or more, there is a {labels.min():g}")
    if (labels > 65_535).any():
        raise DataError(f"{where}: labels must be 65535 or less, there is a {labels.max():g}")
    return labels.astype(np.int64)


def square_if_possible(features: int) -> tuple[int, int]:
    """Return the image shape of a bare row of pixels: square where the count allows it, else one line."""
    side = math.isqrt(features)
    return (side, side) if side * side == features else (1, features)

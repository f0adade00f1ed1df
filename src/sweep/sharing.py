"""Data read once and seen by every worker: the processes map one file, and their pages are the same memory."""

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np

from src.config.preflight import provide
from src.data import Dataset, Source, Split


def keep(dataset: Dataset, folder: Path) -> Path:
    """Write a dataset into a folder, where it is not there yet, and return the file."""
    path = folder / f"{dataset.digest}.joblib"
    if not path.exists():
        joblib.dump(dataset, path)
    return path


@functools.cache
def load(path: Path) -> Dataset:
    """Return what was kept, mapped: it takes no memory but that of the pages in use, whoever has it."""
    dataset: Dataset = joblib.load(path, mmap_mode="r")
    return replace(
        dataset, train=_plain(dataset.train), val=_plain(dataset.val), test=_plain(dataset.test)
    )


def take(paths: Mapping[Source, Path]) -> None:
    """Take what others have kept for what its sources hold."""
    for source, path in paths.items():
        provide(source, load(path))


def _plain(split: Split) -> Split:
    """Return the arrays as NumPy's own: those of its subclass for mapped files cost more in every call."""
    return Split(split.images.view(np.ndarray), split.labels.view(np.ndarray))

"""Data read once and seen by every worker: the processes map one file, and their pages are the same memory."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np

from src.data import Dataset, Source, Split
from src.preflight import provide


def share(datasets: Mapping[Source, Dataset], folder: Path) -> dict[Source, Path]:
    """Keep datasets in a folder, those that are equal once."""
    paths = {source: folder / f"{dataset.digest}.joblib" for source, dataset in datasets.items()}
    for source, path in paths.items():
        if not path.exists():
            joblib.dump(datasets[source], path)
    return paths


def take(paths: Mapping[Source, Path]) -> None:
    """Take what others have shared for what their sources hold."""
    for path in set(paths.values()):
        dataset: Dataset = joblib.load(path, mmap_mode="r")
        mapped = replace(dataset, train=_plain(dataset.train), val=_plain(dataset.val), test=_plain(dataset.test))
        for source, place in paths.items():
            if place == path:
                provide(source, mapped)


def _plain(split: Split) -> Split:
    """Return the arrays as NumPy's own: those of its subclass for mapped files cost more in every call."""
    return Split(split.images.view(np.ndarray), split.labels.view(np.ndarray))

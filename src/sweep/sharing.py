"""Reads each dataset of a sweep once: all processes map one file and share its memory."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import joblib
import numpy as np

from src.config.preflight import provide, withdraw
from src.data import Dataset, Source, Split
from src.support.temporary import remove_abandoned, temporary_folder


class SharedData:
    """The datasets of a sweep in a temporary folder that goes when the ``with`` block ends.

    In the block this process, too, uses the mapped files instead of reading a source again: the
    datasets of many splits would fill the memory.
    """

    def __init__(self) -> None:
        self._open = ExitStack()
        self._mapped: dict[Path, Dataset] = {}
        self.paths: dict[Source, Path] = {}

    def __enter__(self) -> Self:
        remove_abandoned()
        self._folder = self._open.enter_context(temporary_folder())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        withdraw(self.paths)
        self._mapped.clear()
        self._open.close()

    def share(self, source: Source, dataset: Dataset) -> None:
        """Write what a source holds into the folder, unless it is there already."""
        if source in self.paths:
            return
        path = self._folder / f"{dataset.digest}.joblib"
        if path not in self._mapped:
            joblib.dump(dataset, path)
            self._mapped[path] = _map(path)
        self.paths[source] = path
        provide(source, replace(self._mapped[path], name=source.name))


def load(paths: Mapping[Source, Path]) -> dict[Source, Dataset]:
    """Return the shared datasets by their sources; equal paths give the same arrays."""
    mapped = {path: _map(path) for path in set(paths.values())}
    return {source: replace(mapped[path], name=source.name) for source, path in paths.items()}


def _map(path: Path) -> Dataset:
    dataset: Dataset = joblib.load(path, mmap_mode="r")
    return replace(
        dataset, train=_plain(dataset.train), val=_plain(dataset.val), test=_plain(dataset.test)
    )


def _plain(split: Split) -> Split:
    """Return the arrays as plain ``ndarray``: NumPy's class for mapped files slows each call."""
    return Split(split.images.view(np.ndarray), split.labels.view(np.ndarray))

"""Reads one image a line: the label first, then its pixels, as in Kaggle's digit recognizer."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from src.data.dataset import Images, Samples, Source, checked_labels, square_if_possible
from src.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Csv(Source):
    """A comma-separated file, with or without a header line, gzipped or not; ``test_path`` names a test set's own file."""

    path: Path
    test_path: Path | None = None

    @property
    def name(self) -> str:
        return self.path.stem

    def samples(self) -> Samples:
        table = read_table(self.path)
        own_test = 0
        if self.test_path is not None:
            test = read_table(self.test_path)
            if test.shape[1] != table.shape[1]:
                raise DataError(f"{self.test_path}: {test.shape[1]} columns, {self.path.name} has {table.shape[1]}")
            table, own_test = np.concatenate([table, test]), len(test)
        labels = checked_labels(table[:, 0], str(self.path))
        images: Images = np.ascontiguousarray(table[:, 1:])
        if not np.isfinite(images).all():
            raise DataError(f"{self.path}: holds pixels that are not finite numbers")
        return Samples(images, labels, square_if_possible(images.shape[1]), own_test)


def read_table(path: Path) -> npt.NDArray[Any]:
    """Return the numbers, a row a line: bytes where all fit in one, else single precision. Raises DataError."""
    path = path.expanduser()
    try:
        header = _has_header(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # NumPy's word on an empty file; ours follows
            try:
                table = np.loadtxt(path, np.uint8, delimiter=",", skiprows=header, ndmin=2)
            except (ValueError, OverflowError):  # fractions, or values past 255: four bytes a number
                table = np.loadtxt(path, np.float32, delimiter=",", skiprows=header, ndmin=2)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    except (ValueError, EOFError) as error:
        raise DataError(f"{path}: {str(error).splitlines()[0]}") from None
    if table.shape[1] < 2:
        raise DataError(f"{path}: {table.shape[1]} columns; a line needs a label and its pixels, with commas between")
    return table


def _has_header(path: Path) -> bool:
    """Tell whether the first line names columns: its first cell is no number."""
    with np.lib.npyio.DataSource().open(str(path), "r", encoding="utf-8") as lines:  # opens .gz as np.loadtxt does
        first_cell: str = lines.readline().split(",")[0].strip().strip('"')
    try:
        float(first_cell)
    except ValueError:
        return first_cell != ""
    return False

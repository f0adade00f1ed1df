"""Reads one image a line: the label first, then its pixels, as in Kaggle's digit recognizer."""

import warnings
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from src.data.dataset import Images, Labels, Samples, Source, checked_labels, square_if_possible
from src.support.errors import DataError

_ENCODING = "utf-8-sig"  # passes over the mark that spreadsheets put before the first character


@dataclass(frozen=True, kw_only=True)
class Csv(Source):
    """A comma-separated file, with or without a header line, gzipped or not; ``test_path`` names a test set's own file."""

    path: Path
    test_path: Path | None = None

    @property
    def name(self) -> str:
        return self.path.stem

    def samples(self) -> Samples:
        images, labels = read_csv(self.path)
        own_test = 0
        if self.test_path is not None:
            test_images, test_labels = read_csv(self.test_path)
            if test_images.shape[1] != images.shape[1]:
                columns = 1 + test_images.shape[1], 1 + images.shape[1]
                raise DataError(
                    f"{self.test_path}: {columns[0]} columns, {self.path.name} has {columns[1]}"
                )
            images, labels = (
                np.concatenate([images, test_images]),
                np.concatenate([labels, test_labels]),
            )
            own_test = len(test_labels)
        return Samples(images, labels, square_if_possible(images.shape[1]), own_test)


def read_csv(path: Path) -> tuple[Images, Labels]:
    """Return ``images (n, features)`` and ``labels (n,)``. Raises DataError, which names the file and the fault."""
    path = path.expanduser()
    table = _read_table(path)
    if len(table) == 0:
        raise DataError(f"{path}: holds no lines of numbers")
    if table.shape[1] < 2:
        raise DataError(
            f"{path}: holds one column; a line needs a label and its pixels, with commas between"
        )
    labels = checked_labels(table[:, 0], str(path))
    images: Images = np.ascontiguousarray(table[:, 1:])
    if not np.isfinite(images).all():
        raise DataError(f"{path}: holds pixels that are not finite numbers")
    return images, labels


def _read_table(path: Path) -> npt.NDArray[Any]:
    """Return the numbers, a row a line: bytes where all fit in one, else single precision."""
    try:
        header = _header_lines(path)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", UserWarning
            )  # NumPy's word on an empty file; ours follows
            # Before 2.3, NumPy deprecates what it has refused since: to cut 0.5 to 0, and to take 256 for 0.
            warnings.simplefilter("error", DeprecationWarning)
            read = partial(
                np.loadtxt,
                path,
                delimiter=",",
                comments=None,
                skiprows=header,
                ndmin=2,
                encoding=_ENCODING,
            )
            try:
                return read(dtype=np.uint8)
            except (
                ValueError,
                OverflowError,
            ):  # fractions, or values past 255: four bytes a number
                return read(dtype=np.float32)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged or truncated gzip data ({error})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file ({error})") from None
    except ValueError as error:
        raise DataError(
            f"{path}: {_first_fault(path, header) or str(error).splitlines()[0]}"
        ) from None


def _open(path: Path) -> IO[Any]:
    """Open as np.loadtxt does, which takes .gz for what it is."""
    return np.lib.npyio.DataSource().open(str(path), "rt", encoding=_ENCODING)


def _header_lines(path: Path) -> int:
    """Return 1 where the first line names columns, its first cell being no number, else 0."""
    with _open(path) as lines:
        first_cell = lines.readline().split(",")[0].strip().strip('"')
    return int(first_cell != "" and not _is_number(first_cell))


def _first_fault(path: Path, header: int) -> str | None:
    """Say where the file stops being a table: np.loadtxt counts rows from 0 or 1, and the header not at all."""
    width = 0
    with _open(path) as lines:
        for number, line in enumerate(lines, start=1):
            cells = line.split(",")
            if number <= header or not line.strip("\r\n"):
                continue
            width = width or len(cells)
            if len(cells) != width:
                return f"line {number} is of width {len(cells)}, those before it of width {width}"
            for column, cell in enumerate(cells, start=1):
                if not _is_number(cell):
                    return f"line {number}, column {column}: {cell.strip()!r} is no number"
    return None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True

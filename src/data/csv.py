"""Read CSV files of one image per line, the label first, as in Kaggle's digit recognizer."""

import bz2
import contextlib
import gzip
import io
import lzma
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from src.data.dataset import (
    Images,
    Labels,
    Samples,
    Source,
    checked_labels,
    fault,
    square_if_possible,
)
from src.support.errors import ConfigError, DataError
from src.support.input_files import expanded, max_bytes, open_regular, too_large

_ENCODING = "utf-8-sig"  # skips the byte order mark that spreadsheets write
_LONGEST_LINE = 16 * 1024**2  # bytes; NumPy takes several times the length of a line
_KINDS = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz"}
_DECOMPRESSORS: dict[str, Callable[[BinaryIO], io.BufferedIOBase]] = {
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
}


@dataclass(frozen=True, kw_only=True)
class Csv(Source):
    """A comma-separated file, with or without a header line.

    A file named ``….gz``, ``….bz2`` or ``….xz`` is decompressed.

    ``test_path`` names a second file of the same form: it becomes the source's own test set.
    """

    path: Path
    test_path: Path | None = None

    @property
    def name(self) -> str:
        return self.path.stem

    def samples(self) -> Samples:
        images, labels = read_csv(self.path)
        shape = square_if_possible(images.shape[1])
        if self.test_path is None:
            return Samples(images, labels, shape)
        test_images, test_labels = read_csv(self.test_path, key="test_path")
        if test_images.shape[1] != images.shape[1]:
            raise fault(
                "test_path",
                self.test_path,
                f"has {1 + test_images.shape[1]} columns, but data.path={self.path} has "
                f"{1 + images.shape[1]}; both files need the same columns",
            )
        return Samples(
            np.concatenate([images, test_images]),
            np.concatenate([labels, test_labels]),
            shape,
            own_test=len(test_labels),
        )


def read_csv(path: Path, *, key: str = "path") -> tuple[Images, Labels]:
    """Return ``images (n, features)`` and ``labels (n,)``.

    Images are uint8 if every cell of the file fits. Otherwise they are float32 if that loses
    nothing, else float64. Raises DataError, which names the setting ``data.<key>`` and the fault.
    """
    table = _read_table(path, key)
    if len(table) == 0:
        raise fault(key, path, "has no rows of numbers; each line needs a label and its pixels")
    if table.shape[1] < 2:
        raise fault(key, path, "has one column; separate the label and its pixels by commas")
    labels = checked_labels(table[:, 0], f"data.{key}={path}")
    images: Images = _narrowed(table[:, 1:])
    if not np.isfinite(images).all():
        raise fault(key, path, "has pixels that are NaN or infinite; pixels must be finite")
    return images, labels


def _narrowed(pixels: npt.NDArray[Any]) -> Images:
    """Return the pixels as float32 if each keeps its value, else as they are."""
    if pixels.dtype == np.float64:
        with np.errstate(over="ignore"):  # a value past float32's range becomes inf: it differs
            narrow = pixels.astype(np.float32)
        if np.array_equal(narrow, pixels):
            return narrow
    return np.ascontiguousarray(pixels)


def _read_table(path: Path, key: str) -> npt.NDArray[Any]:
    """Return the numbers of a file, as uint8 if all of them fit, else as float64."""
    try:
        file = expanded(path)
        header = _header_lines(file)
        try:
            return _load(file, header, np.uint8)
        except UnicodeDecodeError:
            raise
        except (ValueError, OverflowError):  # a fraction, or a value below 0 or over 255
            return _float_table(file, header)
    except FileNotFoundError:
        raise fault(key, path, "no such file") from None
    except OSError as error:
        raise fault(key, path, f"{error.strerror or error}; a CSV file is needed") from None
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        kind = _KINDS.get(path.suffix, "compressed")
        raise fault(key, path, f"damaged or truncated {kind} data ({error})") from None
    except MemoryError:
        raise fault(key, path, "does not fit into memory") from None
    except UnicodeDecodeError as error:
        raise fault(key, path, f"not a text file ({error}); a CSV file is needed") from None
    except ConfigError:
        raise
    except DataError as error:  # of the file itself, without its path
        raise fault(key, path, str(error).removeprefix(f"{path}: ")) from None


def _float_table(file: Path, header: int) -> npt.NDArray[np.float64]:
    """Return the rows after the header lines. Raises DataError, which names the first fault."""
    try:
        return _load(file, header, np.float64)
    except UnicodeDecodeError:
        raise
    except ValueError as error:
        # Looking for the fault reads the file again, and can fail as reading it can.
        raise DataError(_first_fault(file, header) or str(error).splitlines()[0]) from None


def _load(file: Path, header: int, dtype: type[np.number[Any]]) -> npt.NDArray[Any]:
    """Return the rows after the header lines. Raises ValueError if a cell does not fit dtype."""
    with warnings.catch_warnings(), _open(file) as lines:
        # NumPy warns about a file without rows. read_csv reports that itself.
        warnings.simplefilter("ignore", UserWarning)
        # NumPy before 2.3 only warns when it reads 0.5 or 256 as uint8. Later versions raise.
        warnings.simplefilter("error", DeprecationWarning)
        return np.loadtxt(
            lines,
            dtype,
            delimiter=",",
            comments=None,
            skiprows=header,
            ndmin=2,
        )


@contextlib.contextmanager
def _open(file: Path) -> Iterator[IO[str]]:
    """Open a text file, decompressed if its name says so, with limits on its size."""
    with open_regular(file) as raw:
        decompressor = _DECOMPRESSORS.get(file.suffix)
        content = decompressor(raw) if decompressor else raw
        with io.TextIOWrapper(io.BufferedReader(_Limited(content), 1 << 16), _ENCODING) as lines:
            yield lines


class _Limited(io.RawIOBase):
    """Passes on the bytes of a file. Raises DataError for too many of them, or in one line."""

    def __init__(self, content: BinaryIO | io.BufferedIOBase) -> None:
        self._content, self._total, self._line, self._most = content, 0, 0, max_bytes()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._content.read(len(buffer))
        buffer[: len(piece)] = piece
        self._total += len(piece)
        end = max(piece.rfind(b"\n"), piece.rfind(b"\r"))
        self._line = len(piece) - 1 - end + (self._line if end < 0 else 0)
        if self._total > self._most:
            raise DataError(too_large())
        if self._line > _LONGEST_LINE:
            raise DataError(f"has a line of more than {_LONGEST_LINE:,} bytes; not a CSV of images")
        return len(piece)


def _header_lines(file: Path) -> int:
    """Return 1 if the first line names columns (its first cell is not a number), else 0."""
    with _open(file) as lines:
        first_cell = lines.readline().split(",")[0].strip().strip('"')
    return int(first_cell != "" and not _is_number(first_cell))


def _first_fault(file: Path, header: int) -> str | None:
    """Return the first fault with its line number, counted from 1 with the header.

    np.loadtxt's own messages leave out the header and count some rows from 0.
    """
    width = 0
    with _open(file) as lines:
        for number, line in enumerate(lines, start=1):
            if number <= header or not line.strip("\r\n"):
                continue
            cells = line.split(",")
            width = width or len(cells)
            if len(cells) != width:
                return (
                    f"line {number} has width {len(cells)}; the lines before it have width {width}"
                )
            for column, cell in enumerate(cells, start=1):
                if not _is_number(cell):
                    found = repr(cell.strip()[:60]) if cell.strip() else "an empty cell"
                    return f"line {number}, column {column} is {found}; a number is needed"
    return None


def _is_number(cell: str) -> bool:
    """Tell whether a cell holds a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True

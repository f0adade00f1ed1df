"""Reads ``.npz`` archives of plain arrays, and never unpickles: a stranger's file runs no code."""

import math
import warnings
import zipfile
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from src.support.errors import ConfigError, DataError, in_one_line
from src.support.input_files import expanded, max_bytes, open_regular, too_large

# What NumPy writes. The other methods can ask for gigabytes before they give a byte.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_arrays(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    """Return the arrays of an archive by name.

    Raises DataError, which names the file and the fault, if it is missing, damaged, no archive, if
    it holds an array that only pickle can read, or if its arrays take more than ``max_bytes``.
    """
    unreadable = f"{path}: not a readable .npz of plain arrays"
    try:
        with open_regular(expanded(path)) as file:
            if not zipfile.is_zipfile(file):
                raise DataError("it is no zip archive, or it is cut short")
            with zipfile.ZipFile(file) as archive:
                return _members(archive)
    except ConfigError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{unreadable} ({error.strerror or error})") from None
    except MemoryError:
        raise DataError(f"{path}: its arrays do not fit into memory") from None
    except Exception as error:  # zip, zlib and NumPy's headers raise a dozen different types
        raise DataError(f"{unreadable} ({in_one_line(error)})") from None


def _members(archive: zipfile.ZipFile) -> dict[str, npt.NDArray[np.generic]]:
    """Return the arrays of an open archive. Raises DataError, or what zipfile and NumPy raise."""
    members = archive.infolist()
    announced = sum(member.file_size for member in members)
    if announced > max_bytes():  # zipfile gives no more bytes than a member announces
        raise DataError(too_large(announced))
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for member in members:
        name = member.filename.removesuffix(".npy")
        if name in arrays:
            raise DataError(f"it holds {name[:60]} twice")
        if member.compress_type not in _METHODS:
            raise DataError(f"{name[:60]} is compressed by a method that NumPy does not write")
        with archive.open(member) as content:
            arrays[name] = read_array(content, member.file_size)
            content.read(1)  # the end: here zipfile compares the checksum
    return arrays


def read_array(file: IO[bytes], size: int) -> npt.NDArray[np.generic]:
    """Return the array that starts where ``file`` stands and takes at most ``size`` bytes.

    The size that its header announces is checked before memory is taken. Raises DataError if it
    does not fit or if only pickle can read the array, and whatever NumPy raises for a damaged
    header.
    """
    start = file.tell()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about headers that Python 2 wrote
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise DataError(
                f"version {version[0]}.{version[1]} of the .npy format is not supported"
            )
        shape, _, dtype = _HEADERS[version](file)
        if dtype.hasobject:
            raise DataError("it holds Python objects, which only pickle can read")
        announced = math.prod(shape) * dtype.itemsize
        there = size - (file.tell() - start)
        if min(shape, default=0) < 0 or announced > there:
            raise DataError(f"a header announces {announced:,} bytes, {there:,} are there")
        file.seek(start)
        array: npt.NDArray[np.generic] = np.lib.format.read_array(file, allow_pickle=False)
    return array

"""Reads ``.npz`` archives of plain arrays, and never unpickles: a stranger's file runs no code."""

import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from src.support.errors import DataError


def read_arrays(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    """Return the arrays of an archive by name.

    Raises DataError, which names the file and the fault, if it is missing, damaged, no archive, or
    if it holds an array that only pickle can read.
    """
    unreadable = f"{path}: not a readable .npz of plain arrays"
    try:
        # The file is opened here because NumPy does not close it if the archive is damaged.
        with path.expanduser().open("rb") as file:
            if not zipfile.is_zipfile(file):  # NumPy would call any other file a pickle
                raise DataError(f"{unreadable} (it is no zip archive, or it is cut short)")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except Exception as error:  # zip, zlib and NumPy's headers raise a dozen different types
        raise DataError(f"{unreadable} ({error})") from None

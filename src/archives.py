"""Reads ``.npz`` archives of plain arrays, never unpickling what a stranger put there."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from src.errors import DataError


def read_arrays(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    """Return the archive's arrays by name. Raises DataError, which names the file and the fault."""
    try:
        with np.load(path.expanduser(), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: not a readable .npz of plain arrays ({error})") from None

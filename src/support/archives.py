"""Reads ``.npz`` archives of plain arrays, never unpickling what a stranger put there."""

import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from src.support.errors import DataError


def read_arrays(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    """Return the archive's arrays by name. Raises DataError, which names the file and the fault."""
    try:
        # Opened here, since NumPy leaves a file open whose archive is broken.
        with path.expanduser().open("rb") as file:
            if not zipfile.is_zipfile(file):  # NumPy would take it for a pickle, and speak of that
                raise DataError(
                    f"{path}: not a readable .npz of plain arrays (no zip archive, or one cut short)"
                )
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except Exception as error:  # of zip, of zlib, of NumPy's headers: of a dozen kinds
        raise DataError(f"{path}: not a readable .npz of plain arrays ({error})") from None

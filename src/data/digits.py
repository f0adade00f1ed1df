"""Handwritten digits without a download: scikit-learn's bundled 1,797, in MNIST's size."""

import gzip
import zlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from src.data.dataset import Samples, Source
from src.support.errors import DataError, in_one_line


@dataclass(frozen=True, kw_only=True)
class Digits(Source):
    """The UCI digits, 8×8 pixels of 0 to 16, as 28×28 pixels of 0 to 255.

    Each pixel becomes 3×3 pixels, and a black frame of two pixels surrounds the image.
    """

    @property
    def name(self) -> str:
        return "digits"

    def samples(self) -> Samples:
        table = _read(_file())
        pixels = np.rint(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
        enlarged = pixels.repeat(3, axis=1).repeat(3, axis=2)
        framed = np.pad(enlarged, ((0, 0), (2, 2), (2, 2)))
        return Samples(framed.reshape(len(framed), -1), table[:, -1].astype(np.int64), (28, 28))


def _file() -> Path:
    """Return the path of the digits in scikit-learn's folder.

    scikit-learn is found but not imported, because that takes longer than a small run. Raises
    DataError if it is not installed.
    """
    package = find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise DataError("data=digits: scikit-learn, which holds them, is not installed")
    return Path(package.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")


def _read(path: Path) -> npt.NDArray[np.uint8]:
    """Return a row for each digit, the 64 pixels and then the label: (n, 65).

    Raises DataError, which names the file, if it is missing or damaged.
    """
    try:
        with gzip.open(path) as file:
            return np.loadtxt(file, np.uint8, delimiter=",").reshape(-1, 65)
    except FileNotFoundError:
        what = "is missing"
    except OSError as error:
        what = error.strerror or in_one_line(error)
    except (EOFError, ValueError, zlib.error) as error:
        what = f"is damaged: {in_one_line(error)}"
    raise DataError(f"data=digits: {path}: {what}; install scikit-learn again")

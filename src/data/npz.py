"""Read Keras's form of MNIST: ``x_train, y_train`` and, optionally, ``x_test, y_test``."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from src.support.archives import read_arrays
from src.support.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Npz(Source):
    """An ``.npz`` file of images and labels.

    Images have the shape (n, height, width), (n, height, width, channels) or (n, features).
    """

    path: Path

    @property
    def name(self) -> str:
        return self.path.stem

    def samples(self) -> Samples:
        try:
            arrays = read_arrays(self.path)
        except DataError as error:  # it starts with the path
            raise DataError(f"data.path={error}") from None
        images, labels = self._pair(arrays, "train")
        own_test = 0
        if "x_test" in arrays:
            test_images, test_labels = self._pair(arrays, "test")
            if test_images.shape[1:] != images.shape[1:]:
                raise self._fault(
                    f"x_test has images of shape {test_images.shape[1:]}, x_train of "
                    f"{images.shape[1:]}; both need the same shape"
                )
            images = np.concatenate([images, test_images])
            labels = np.concatenate([labels, test_labels])
            own_test = len(test_labels)
        shape = images.shape[1:] if images.ndim > 2 else square_if_possible(images.shape[1])
        if shape[2:] == (1,):  # one channel: a grey image
            shape = shape[:2]
        return Samples(images.reshape(len(images), -1), labels, shape, own_test)

    def _pair(self, arrays: Mapping[str, npt.NDArray[Any]], part: str) -> tuple[Images, Labels]:
        """Return the images and labels of a part (train, test), checked. Raises DataError."""
        x, y = f"x_{part}", f"y_{part}"
        for name in (x, y):
            if name not in arrays:
                found = ", ".join(sorted(arrays)) or "no arrays"
                raise self._fault(f"{name} is missing; the file has {found}")
        images, labels = arrays[x], arrays[y]
        if images.ndim not in (2, 3, 4) or images.dtype.kind not in "fiu" or images.size == 0:
            raise self._fault(
                f"{x} is {images.dtype} of shape {images.shape}; "
                "images must be numbers of shape (n, height, width)"
            )
        if labels.shape == (len(images), 1):  # a column, as in Keras's CIFAR
            labels = labels.reshape(-1)
        if labels.shape != (len(images),):
            raise self._fault(
                f"{y} has the shape {labels.shape}, but {x} has {len(images):,} images; "
                f"the labels need the shape ({len(images)},)"
            )
        if not np.isfinite(images).all():
            raise self._fault(f"{x} has pixels that are NaN or infinite; pixels must be finite")
        return _as_images(images), checked_labels(labels, f"data.path={self.path}: {y}")

    def _fault(self, what: str) -> DataError:
        """Return the error for this file."""
        return fault("path", self.path, what)


def _as_images(pixels: npt.NDArray[Any]) -> Images:
    """Return uint8 and floating-point pixels as they are, other integers as floats.

    Engines take bytes and floats. float32 holds integers up to 2²⁴ exactly.
    """
    if pixels.dtype == np.uint8 or pixels.dtype.kind == "f":
        return pixels
    narrow = pixels.astype(np.float32)
    return narrow if np.array_equal(narrow, pixels) else pixels.astype(np.float64)

"""Reads the form in which Keras keeps MNIST: ``x_train, y_train`` and, if there is one, ``x_test, y_test``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from src.data.dataset import Images, Labels, Samples, Source, checked_labels, square_if_possible
from src.support.archives import read_arrays
from src.support.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Npz(Source):
    """An ``.npz`` with images of shape (n, height, width), (n, height, width, channels) or (n, features)."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.stem

    def samples(self) -> Samples:
        arrays = read_arrays(self.path)
        images, labels = self._pair(arrays, "train")
        own_test = 0
        if "x_test" in arrays:
            test_images, test_labels = self._pair(arrays, "test")
            if test_images.shape[1:] != images.shape[1:]:
                raise DataError(
                    f"{self.path}: x_test has images of shape {test_images.shape[1:]}, x_train of {images.shape[1:]}"
                )
            images, labels = (
                np.concatenate([images, test_images]),
                np.concatenate([labels, test_labels]),
            )
            own_test = len(test_labels)
        shape = images.shape[1:] if images.ndim > 2 else square_if_possible(images.shape[1])
        if shape[2:] == (1,):  # one channel is a grey image
            shape = shape[:2]
        return Samples(images.reshape(len(images), -1), labels, shape, own_test)

    def _pair(self, arrays: dict[str, npt.NDArray[np.generic]], part: str) -> tuple[Images, Labels]:
        for name in (f"x_{part}", f"y_{part}"):
            if name not in arrays:
                raise DataError(
                    f"{self.path}: lacks {name}; it holds {', '.join(sorted(arrays)) or 'nothing'}"
                )
        images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if images.ndim not in (2, 3, 4) or images.dtype.kind not in "fiu" or images.size == 0:
            found = f"{images.dtype} of shape {images.shape}"
            raise DataError(
                f"{self.path}: x_{part} is {found}, images need numbers of shape (n, height, width)"
            )
        labels = labels.reshape(-1) if labels.shape == (len(images), 1) else labels
        if labels.shape != (len(images),):
            raise DataError(
                f"{self.path}: y_{part} has shape {labels.shape}, x_{part} holds {len(images):,} images"
            )
        if not np.isfinite(images).all():
            raise DataError(f"{self.path}: x_{part} holds pixels that are not finite numbers")
        pixels: npt.NDArray[Any] = (
            images
            if images.dtype == np.uint8 or images.dtype.kind == "f"
            else images.astype(np.float32)
        )
        return pixels, checked_labels(labels, f"{self.path}: y_{part}")

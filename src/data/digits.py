"""Handwritten digits without a download: scikit-learn's bundled 1,797, in MNIST's size."""

from dataclasses import dataclass

import numpy as np

from src.data.dataset import Samples, Source


@dataclass(frozen=True, kw_only=True)
class Digits(Source):
    """The UCI digits, 8×8 pixels of 0 to 16, as 28×28 pixels of 0 to 255.

    Each pixel becomes 3×3 pixels, and a black frame of two pixels surrounds the image.
    """

    @property
    def name(self) -> str:
        return "digits"

    def samples(self) -> Samples:
        from sklearn.datasets import load_digits  # slow to import: half a second

        bundled = load_digits()
        pixels = np.rint(bundled.images * (255 / 16)).astype(np.uint8)
        enlarged = pixels.repeat(3, axis=1).repeat(3, axis=2)
        framed = np.pad(enlarged, ((0, 0), (2, 2), (2, 2)))
        return Samples(framed.reshape(len(framed), -1), bundled.target.astype(np.int64), (28, 28))

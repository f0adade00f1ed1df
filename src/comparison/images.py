"""The images that the networks of a comparison answered."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from src.comparison.answers import Answers
from src.config.kept_configuration import check_kept
from src.runs.predictions import Predictions
from src.support.errors import UserError


def answered_images(answers: Answers, folders: Iterable[Path]) -> npt.NDArray[np.uint8] | None:
    """Return the images (samples, H, W), or None if the data is gone, has changed or is no image.

    ``folders`` are those of the runs that answered: the first one says which data it read.
    """
    folder = next(iter(folders), None)
    if folder is None:
        return None
    try:
        _, prepared = check_kept(folder)
    except UserError:
        return None
    split = dict(prepared.dataset.splits()).get(answers.part)
    if split is None or len(prepared.dataset.shape) != 2:
        return None
    none = np.empty((len(split), 0), np.float32)
    if Predictions.of(answers.part, split, split.labels, none).samples != answers.digest:
        return None
    pixels = split.images.reshape(-1, *prepared.dataset.shape)
    low, high = (0, 255) if pixels.dtype == np.uint8 else (pixels.min(), pixels.max())
    scaled = (pixels.astype(np.float32) - low) / ((high - low) or 1) * 255
    return scaled.astype(np.uint8)

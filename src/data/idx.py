"""Reads the IDX files that MNIST and its relatives are published in, gzipped or not."""

import gzip
import math
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from src.data.dataset import Samples, Source, checked_labels
from src.support.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Idx(Source):
    """A folder of ``…train-images-idx3-ubyte`` and ``…train-labels-idx1-ubyte``, and a ``t10k`` or ``test`` pair if any."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.expanduser().resolve().name  # "." has none of its own

    def samples(self) -> Samples:
        folder = self.path.expanduser()
        images, labels = read_pair(folder, "train")
        own_test = 0
        for part in ("t10k", "test"):
            if find(folder, part, "images"):
                test_images, test_labels = read_pair(folder, part)
                sizes = images.shape[1:], test_images.shape[1:]
                if sizes[0] != sizes[1]:
                    raise DataError(
                        f"{folder}: training images of {sizes[0]} pixels, {part} images of {sizes[1]}"
                    )
                images, labels = (
                    np.concatenate([images, test_images]),
                    np.concatenate([labels, test_labels]),
                )
                own_test = len(test_labels)
                break
        return Samples(
            images.reshape(len(images), -1),
            checked_labels(labels, str(folder)),
            images.shape[1:],
            own_test,
        )


def find(folder: Path, part: str, kind: str) -> Path | None:
    """Return the file of a part (train, t10k, …) and kind (images, labels), whatever precedes and joins its name's words.

    Raises DataError where the folder holds those of several data sets, as EMNIST's does.
    """
    pattern = re.compile(rf"(.*[-_.])?{part}-{kind}[-.]idx\d-ubyte(\.gz)?")
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except FileNotFoundError:
        raise DataError(f"{folder}: no such folder") from None
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror}; a folder of IDX files is needed") from None
    found = [match for match in map(pattern.fullmatch, names) if match]
    if len({match[1] for match in found}) > 1:
        several = ", ".join(match[0] for match in found)
        raise DataError(
            f"{folder}: holds {several}; put the files of one data set into a folder of their own"
        )
    return folder / found[0][0] if found else None


def read_pair(folder: Path, part: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return ``images (n, height, width)`` and ``labels (n,)`` of one part. Raises DataError, which names the file."""
    arrays = []
    for kind, dimensions in (("images", 3), ("labels", 1)):
        path = find(folder, part, kind)
        if path is None:
            raise DataError(
                f"{folder}: holds no {part}-{kind}-idx{dimensions}-ubyte, gzipped or not"
            )
        arrays.append(read_idx(path, dimensions=dimensions))
    images, labels = arrays
    if len(images) != len(labels):
        raise DataError(
            f"{folder}: {len(labels):,} {part} labels for {len(images):,} {part} images"
        )
    if images.size == 0:
        raise DataError(
            f"{folder}: the {part} images are {'×'.join(map(str, images.shape))}, which is nothing"
        )
    return images, labels


def read_idx(path: Path, *, dimensions: int) -> npt.NDArray[np.uint8]:
    """Return the array of an IDX file of unsigned bytes. Raises DataError, which names the file and the fault."""
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged or truncated gzip data ({error})") from None
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise DataError(f"{path}: {len(content)} bytes are too few for an IDX header")
    if content[:4] != bytes([0, 0, 8, dimensions]):
        expected = f"000008{dimensions:02x}"
        raise DataError(
            f"{path}: starts with {content[:4].hex()}; an IDX file of its kind starts with {expected}"
        )
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dimensions, offset=4))
    if len(content) - header != math.prod(shape):
        raise DataError(
            f"{path}: announces {'×'.join(map(str, shape))} = {math.prod(shape):,} bytes, holds {len(content) - header:,}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)

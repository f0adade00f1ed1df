"""Read IDX files, the format of MNIST and its relatives, gzipped or not."""

import gzip
import math
import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from src.data.dataset import Samples, Source, checked_labels, fault
from src.support.errors import ConfigError, DataError
from src.support.input_files import expanded, max_bytes, open_regular, too_large

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Idx(Source):
    """A folder with ``…train-images-idx3-ubyte`` and ``…train-labels-idx1-ubyte``.

    A ``t10k`` or ``test`` pair, if there is one, is the source's own test set.
    """

    path: Path

    @property
    def name(self) -> str:
        return self.path.expanduser().resolve().name  # resolved, because "." has no name

    def samples(self) -> Samples:
        images, labels = read_pair(self.path, "train")
        own_test = 0
        part = next((part for part in ("t10k", "test") if find(self.path, part, "images")), None)
        if part is not None:
            test_images, test_labels = read_pair(self.path, part)
            if test_images.shape[1:] != images.shape[1:]:
                raise fault(
                    "path",
                    self.path,
                    f"the {part} images have {_times(test_images.shape[1:])} pixels, the train "
                    f"images {_times(images.shape[1:])}; both need the same size",
                )
            images = np.concatenate([images, test_images])
            labels = np.concatenate([labels, test_labels])
            own_test = len(test_labels)
        checked = checked_labels(labels, f"data.path={self.path}")
        return Samples(images.reshape(len(images), -1), checked, images.shape[1:], own_test)


def find(folder: Path, part: str, kind: str) -> Path | None:
    """Return the file of a part (train, t10k, test) and kind (images, labels), or None.

    Any prefix is allowed, such as ``emnist-letters-``. Raises DataError if the folder cannot be
    read, or if it holds the files of several data sets, as EMNIST's does.
    """
    pattern = re.compile(rf"(.*[-_.])?{part}-{kind}[-.]idx\d-ubyte(\.gz)?")
    try:
        names = sorted(entry.name for entry in expanded(folder).iterdir())
    except FileNotFoundError:
        raise fault("path", folder, "no such folder") from None
    except ValueError:
        raise fault("path", folder, "not a path: it holds a null byte") from None
    except OSError as error:
        raise fault("path", folder, f"{error.strerror}; a folder of IDX files is needed") from None
    found = [match for match in map(pattern.fullmatch, names) if match]
    if len({match[1] for match in found}) > 1:
        several = ", ".join(match[0] for match in found)
        raise fault(
            "path",
            folder,
            f"has the files of several data sets ({several}); give each set its own folder",
        )
    return expanded(folder) / found[0][0] if found else None


def read_pair(folder: Path, part: str) -> tuple[Bytes, Bytes]:
    """Return ``images (n, height, width)`` and ``labels (n,)`` of one part.

    Raises DataError, which names the folder as the setting ``data.path``.
    """
    arrays = []
    for kind, dimensions in (("images", 3), ("labels", 1)):
        file = find(folder, part, kind)
        if file is None:
            wanted = f"{part}-{kind}-idx{dimensions}-ubyte"
            raise fault("path", folder, f"{wanted} is missing; it may be gzipped (.gz)")
        try:
            arrays.append(read_idx(file, dimensions=dimensions))
        except DataError as error:
            raise fault("path", folder, str(error)) from None
    images, labels = arrays
    if len(images) != len(labels):
        raise fault(
            "path",
            folder,
            f"{len(labels):,} {part} labels for {len(images):,} {part} images; "
            "each image needs one label",
        )
    if images.size == 0:
        what = f"the {part} images are empty ({_times(images.shape)}); at least one is needed"
        raise fault("path", folder, what)
    return images, labels


def read_idx(file: Path, *, dimensions: int) -> Bytes:
    """Return the array of an IDX file of unsigned bytes.

    Raises DataError, which starts with the file's name.
    """
    try:
        with open_regular(file) as raw:
            gzipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if gzipped:
                with gzip.open(raw) as content:
                    return _array(content, None, file.name, dimensions)
            return _array(raw, os.fstat(raw.fileno()).st_size, file.name, dimensions)
    except OSError as error:
        raise DataError(f"{file.name}: {error.strerror or error}") from None
    except (EOFError, zlib.error) as error:
        raise DataError(f"{file.name}: damaged or truncated gzip data ({error})") from None
    except MemoryError:
        raise DataError(f"{file.name} does not fit into memory") from None
    except ConfigError:
        raise
    except DataError as error:
        told = str(error)
        raise DataError(told if told.startswith(file.name) else f"{file.name} {told}") from None


def _array(
    content: IO[bytes] | gzip.GzipFile, size: int | None, name: str, dimensions: int
) -> Bytes:
    """Return the array in an open file; ``size`` is the file's, or None if it is compressed.

    Reads no more than the header announces: a few bytes can decompress to any number of them.
    """
    header = 4 + 4 * dimensions
    start = content.read(header)
    if len(start) < header:
        raise DataError(f"{name} has {len(start)} bytes; the IDX header alone has {header}")
    magic = bytes([0, 0, 8, dimensions])  # unsigned bytes, so many dimensions
    if start[:4] != magic:
        raise DataError(
            f"{name} starts with {start[:4].hex()}; "
            f"an IDX file of its kind starts with {magic.hex()}"
        )
    shape = tuple(int(length) for length in np.frombuffer(start, ">u4", dimensions, offset=4))
    announced = math.prod(shape)
    if size is None and announced > max_bytes():
        raise DataError(too_large(announced))
    body = b"" if size is not None and announced != size - header else content.read(announced + 1)
    found = len(body) if size is None else size - header
    if found != announced:
        least = "at least " if size is None and found > announced else ""
        raise DataError(
            f"{name} has {least}{found:,} bytes of data; "
            f"its header announces {_times(shape)} = {announced:,}"
        )
    return np.frombuffer(body, np.uint8).reshape(shape)


def _times(shape: tuple[int, ...]) -> str:
    """Return a shape as 28×28."""
    return "×".join(map(str, shape))

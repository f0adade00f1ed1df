"""The readers as one function of bytes: whatever a file holds, they read it or raise DataError."""

import bz2
import gzip
import io
import lzma
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from src.data import Splitting
from src.data.csv import Csv, read_csv
from src.data.idx import read_idx
from src.data.npz import Npz
from src.experiment.predictions import Predictions
from src.nn.layers import Sigmoid
from src.nn.network import MLP
from src.nn.weights import load_weights
from src.support.archives import read_arrays
from src.support.errors import DataError, InvalidValue

LIMIT = 1 << 20  # bytes that a file may hold here
_ALL = Splitting(train=None, val=0, test=0)
_NETWORK = MLP(4, (3,), 2, Sigmoid()).layers


def _npz(path: Path) -> None:
    arrays = read_arrays(path)
    assert sum(array.nbytes for array in arrays.values()) <= LIMIT
    assert not any(array.dtype.hasobject for array in arrays.values())
    Npz(path=path, split=_ALL).load()


def _csv(path: Path) -> None:
    images, labels = read_csv(path)
    assert len(images) == len(labels) > 0
    assert np.isfinite(images).all()
    Csv(path=path, split=_ALL).load()


def _idx(path: Path) -> None:
    dimensions = 1 if path.read_bytes()[3:4] == b"\1" else 3
    array = read_idx(path, dimensions=dimensions)
    assert array.ndim == dimensions
    assert array.nbytes <= LIMIT


def _weights(path: Path) -> None:
    for layer in load_weights(path, _NETWORK, np.float32):
        assert all(np.isfinite(array).all() for array in layer)


def _predictions(path: Path) -> None:
    kept = Predictions.load(path)
    assert kept.right.shape == kept.labels.shape == kept.probabilities.shape[:1]


# By name: the end of the file's name, and the reader.
READERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "idx": ("", _idx),
    "csv": (".csv", _csv),
    "csv.gz": (".csv.gz", _csv),
    "csv.bz2": (".csv.bz2", _csv),
    "csv.xz": (".csv.xz", _csv),
    "npz": (".npz", _npz),
    "weights": (".npz", _weights),
    "predictions": (".npz", _predictions),
}


class Reader:
    """Gives bytes to a reader, as a file in a folder of its own."""

    def __init__(self, name: str) -> None:
        os.environ["SCRATCHGRID_MAX_BYTES"] = str(LIMIT)
        suffix, self._read = READERS[name]
        memory = Path("/dev/shm")
        base = memory if memory.is_dir() else None
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz-", dir=base)
        self._path = Path(self._folder.name) / f"input{suffix}"

    def __call__(self, content: bytes) -> bool:
        """Return whether the bytes were read; False if they were refused. Raises any other end."""
        self._path.write_bytes(content)
        try:
            self._read(self._path)
        except (DataError, InvalidValue) as error:
            message = str(error)
            assert message
            assert "\n" not in message
            assert len(message) < 1000
            return False
        return True

    def close(self) -> None:
        """Remove the folder."""
        self._folder.cleanup()


def samples(name: str) -> list[bytes]:
    """Return valid files of a kind: a fuzzer starts from them."""
    images = np.arange(24, dtype=np.uint8).reshape(6, 2, 2)
    labels = np.arange(6, dtype=np.uint8) % 3
    header = b"\0\0\x08"
    idx = [
        header + b"\3" + np.array(images.shape, ">u4").tobytes() + images.tobytes(),
        header + b"\1" + np.array(labels.shape, ">u4").tobytes() + labels.tobytes(),
    ]
    rows = [f"{i % 3},{i},{i + 1},255,0" for i in range(6)]
    csv = ["\n".join(rows), "label,a,b,c,d\n" + "\n".join(rows), "1,0.5,-3,1e9,2\n0,1,2,3,4\n"]
    text = [one.encode() for one in csv]
    weights: dict[str, npt.NDArray[Any]] = {
        "W1": np.ones((4, 3), np.float32),
        "b1": np.ones(3),
        "W2": np.ones((3, 2)),
        "b2": np.ones((1, 2)),
    }
    predictions: dict[str, npt.NDArray[Any]] = {
        "part": np.array("val"),
        "samples": np.array("0" * 32),
        "labels": labels,
        "predicted": labels,
        "probabilities": np.ones((6, 3), np.float16),
    }
    found: dict[str, list[bytes]] = {
        "idx": [*idx, *(gzip.compress(one) for one in idx)],
        "csv": text,
        "csv.gz": [gzip.compress(one) for one in text],
        "csv.bz2": [bz2.compress(one) for one in text],
        "csv.xz": [lzma.compress(one) for one in text],
        "npz": _archives({"x_train": images, "y_train": labels}),
        "weights": _archives(weights),
        "predictions": _archives(predictions),
    }
    return found[name]


def _archives(arrays: dict[str, npt.NDArray[Any]]) -> list[bytes]:
    """Return the arrays as archives of each kind that NumPy writes, and of two it does not."""
    found = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", method) as archive:
            for name, array in arrays.items():
                part = io.BytesIO()
                np.lib.format.write_array(part, array, allow_pickle=False)
                archive.writestr(f"{name}.npy", part.getvalue())
        found.append(file.getvalue())
    return found

"""Keeps the state of a training run in one file, from which it goes on as if it never stopped.

The file is an uncompressed ``.npz`` of plain arrays, followed by the SHA-256 of all bytes before.
"""

import hashlib
import io
import json
import stat
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from src.nn.layers import Array
from src.nn.network import Parameters
from src.support.errors import DataError, in_one_line
from src.support.files import whole_file
from src.support.serialization import check_types
from src.training.diagnostics import LayerState
from src.training.optimizers import State
from src.training.scoring import Score
from src.training.training_run import Epoch, Progress

_DIGEST = hashlib.sha256().digest_size
_COLUMNS = 6  # of the array ``epochs``: updates, samples, seconds, lr, kept, time
_MOST_ABOUT = 1 << 26  # bytes of JSON
_MOST_EPOCHS = 1 << 24
_MOST_UPDATES = 1 << 53
_SETS = ("train", "val", "test")

Shapes = Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]
Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Checkpoint:
    """A training run after some epoch, with the record of each epoch.

    ``epochs`` come without parameters and progress; ``times`` are in milliseconds since 1970.
    """

    progress: Progress
    epochs: Sequence[Epoch]
    times: Sequence[int]
    keeping: float = 0.0  # seconds spent on keeping results

    def save(self, path: Path, identity: str) -> None:
        """Write the checkpoint, all of it or nothing.

        ``identity`` names the experiment and the data that it belongs to.
        """
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **self._arrays(identity))
        view = content.getbuffer()
        with whole_file(path) as file:
            file.write(view)
            file.write(hashlib.sha256(view).digest())

    def _arrays(self, identity: str) -> Arrays:
        progress, last = self.progress, self.epochs[-1]
        sets = list(last.scores)
        about = {
            "identity": identity,
            "sets": sets,
            "updates": progress.state.updates,
            "keeping": self.keeping,
            "stopped": last.stopped,
            "layers": {
                epoch.number: [asdict(state) for state in epoch.layers]
                for epoch in self.epochs
                if epoch.layers
            },
        }
        counted = [
            (epoch.updates, epoch.samples, epoch.seconds, epoch.lr, epoch.kept, time)
            for epoch, time in zip(self.epochs, self.times, strict=True)
        ]
        scored = [
            [(score.loss, score.accuracy) for score in epoch.scores.values()]
            for epoch in self.epochs
        ]
        return {
            "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
            "epochs": np.array(counted, np.float64),
            "scores": np.array(scored, np.float64),
            **_named(progress.parameters, progress.kept, progress.state),
        }

    @staticmethod
    def load(path: Path, begin: Progress, identity: str) -> "Checkpoint":
        """Return the checkpoint in a file; ``begin`` is the progress before the first epoch.

        Raises DataError if the file is missing, damaged or of another experiment. Sizes and types
        are checked before memory is taken.
        """
        expected = {
            name: (array.shape, array.dtype)
            for name, array in _named(begin.parameters, begin.kept, begin.state).items()
        }
        try:
            arrays = _read(path, expected)
            about = json.loads(arrays.pop("about").tobytes())
            if about["identity"] != identity:
                raise DataError(f"{path}: belongs to another experiment or to other data")
            return _restored(arrays, about, begin)
        except DataError:
            raise
        except FileNotFoundError:
            raise DataError(f"{path}: no such file") from None
        except Exception as error:  # zip, JSON and NumPy's headers raise a dozen different types
            raise DataError(f"{path}: not a readable checkpoint ({in_one_line(error)})") from None


def _named(parameters: Parameters, kept: Parameters, state: State) -> Arrays:
    """Return the arrays of a training run under the names that the file has for them."""
    arrays: Arrays = {}
    for name, tree in (("parameters", parameters), ("kept", kept)):
        for i, layer in enumerate(tree):
            arrays |= {f"{name}.{i}.{a}": array for a, array in enumerate(layer)}
    for i, of_layer in enumerate(state.buffers):
        for a, buffers in enumerate(of_layer):
            arrays |= {f"buffers.{i}.{a}.{b}": buffer for b, buffer in enumerate(buffers)}
    return arrays


def _read(path: Path, expected: Shapes) -> Arrays:
    """Return the arrays of a file whose checksum is right and whose arrays are the expected ones.

    Raises DataError, or whatever zipfile and NumPy raise.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}: not a regular file")
    known = sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in expected.values())
    most = known + _MOST_ABOUT + _MOST_EPOCHS * 8 * 16
    if status.st_size > most:
        raise DataError(f"{path}: has {status.st_size:,} bytes, a checkpoint here at most {most:,}")
    raw = memoryview(path.read_bytes())
    content, digest = raw[:-_DIGEST], raw[-_DIGEST:]
    if hashlib.sha256(content).digest() != bytes(digest):
        raise DataError(f"{path}: its checksum is wrong: it is damaged or cut short")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [info.filename.removesuffix(".npy") for info in archive.infolist()]
        if sorted(names) != sorted([*expected, "about", "epochs", "scores"]):
            raise DataError(f"{path}: holds other arrays than this network and optimizer have")
        return {
            name: _member(archive, info, expected.get(name))
            for name, info in zip(names, archive.infolist(), strict=True)
        }


def _member(
    archive: zipfile.ZipFile,
    info: zipfile.ZipInfo,
    expected: tuple[tuple[int, ...], np.dtype[Any]] | None,
) -> npt.NDArray[Any]:
    """Return one array of an archive. Raises ValueError where it is not what is expected."""
    with archive.open(info) as file:
        if info.compress_type != zipfile.ZIP_STORED or np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{info.filename} is compressed, or in another format")
        shape, in_columns, dtype = np.lib.format.read_array_header_1_0(file)
        if expected is not None and (shape, dtype) != expected:
            raise ValueError(f"{info.filename} has shape {shape} and type {dtype}")
        if dtype.hasobject or int(np.prod(shape, dtype=object)) * dtype.itemsize > info.file_size:
            raise ValueError(f"{info.filename} is larger than its file")
        values = np.frombuffer(file.read(), dtype)
        return values.reshape(shape, order="F" if in_columns else "C").copy()


def _restored(arrays: Arrays, about: dict[str, Any], begin: Progress) -> Checkpoint:
    """Return the checkpoint that the arrays describe. Raises KeyError, TypeError or ValueError."""
    counted, scored, sets = arrays["epochs"], arrays["scores"], about["sets"]
    number = len(counted)
    complete = counted.shape == (number, _COLUMNS) and scored.shape == (number, len(sets), 2)
    if not (complete and number):
        raise ValueError("the records of its epochs are incomplete")
    _check_told(counted, scored, about)
    epochs: list[Epoch] = []
    for row, scores in zip(counted.tolist(), scored.tolist(), strict=True):
        updates, samples, seconds, lr, kept, _ = row
        named = {name: Score(*score) for name, score in zip(sets, scores, strict=True)}
        at = len(epochs) + 1
        layers = tuple(LayerState(**state) for state in about["layers"].get(str(at), ()))
        for state in layers:
            check_types(state)
        epochs.append(
            Epoch(at, named, int(updates), int(samples), seconds, lr, (), bool(kept), layers=layers)
        )
    last = epochs[-1] = replace(epochs[-1], stopped=about["stopped"])
    progress = Progress(
        number,
        _tree("parameters", begin.parameters, arrays),
        State(
            about["updates"],
            tuple(
                tuple(
                    tuple(arrays[f"buffers.{i}.{a}.{b}"] for b in range(len(buffers)))
                    for a, buffers in enumerate(of_layer)
                )
                for i, of_layer in enumerate(begin.state.buffers)
            ),
        ),
        _tree("kept", begin.kept, arrays),
        last.updates,
        last.samples,
        last.seconds,
        tuple(epoch.scores for epoch in epochs),
    )
    times = [int(time) for time in counted[:, -1]]
    return Checkpoint(progress, epochs, times, float(about["keeping"]))


def _check_told(counted: Array, scored: Array, about: dict[str, Any]) -> None:
    """Raise TypeError or ValueError for values of other types than ``save`` writes."""
    updates, stopped, sets = about["updates"], about["stopped"], about["sets"]
    if not (counted.dtype == scored.dtype == np.float64) or type(updates) is not int:
        raise TypeError("its counts or scores are no numbers")
    if not (0 <= updates <= _MOST_UPDATES and np.isfinite(counted).all() and (counted >= 0).all()):
        raise ValueError("its counts are negative, or too large")
    if not isinstance(stopped, str | None):
        raise TypeError("the reason why it stopped is no text")
    if sets != [part for part in _SETS if part in sets]:
        raise ValueError("its sets are no train, val and test")


def _tree(name: str, form: Parameters, arrays: Arrays) -> Parameters:
    return tuple(
        tuple(arrays[f"{name}.{i}.{a}"] for a in range(len(layer))) for i, layer in enumerate(form)
    )

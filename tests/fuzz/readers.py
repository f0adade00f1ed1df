"""The readers as one function of bytes: whatever a file holds, they read it or name its fault.

Each reader returns what it has read, after a check that nothing wrong has passed: other shapes,
types or values than such a file may have.
"""

import bz2
import gzip
import hashlib
import io
import lzma
import re
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import astuple, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from omegaconf import OmegaConf

from src.config.composition import compose, composer
from src.config.kept_configuration import check_kept
from src.data import Dataset, Splitting
from src.data.csv import Csv, read_csv
from src.data.idx import read_idx
from src.data.npz import Npz
from src.nn.initializers import Random, XavierNormal, Zeros
from src.nn.layers import Sigmoid
from src.nn.losses import SoftmaxCrossEntropy
from src.nn.network import MLP
from src.nn.weights import load_weights
from src.runs.experiment import Experiment
from src.runs.history import read_history
from src.runs.predictions import Predictions
from src.runs.record import Identity, Record
from src.support.archives import read_arrays
from src.support.errors import InvalidValue, UserError
from src.support.randomness import stream
from src.tracking.told import TOLD, Told
from src.training.batching import Mini
from src.training.checkpoint import Checkpoint
from src.training.engines.base import Arrays
from src.training.loop import train_one
from src.training.optimizers import Adam, State
from src.training.stopping import EarlyStopping
from src.training.training_run import Progress, TrainingRun

LIMIT = 1 << 20  # bytes that a file may hold here
_ALL = Splitting(train=None, val=0, test=0)
_NETWORK = MLP(4, (3,), 2, Sigmoid()).layers


def _npz(path: Path) -> list[Any]:
    arrays = read_arrays(path)
    assert sum(array.nbytes for array in arrays.values()) <= LIMIT
    assert not any(array.dtype.hasobject for array in arrays.values())
    return _of_dataset(Npz(path=path, split=_ALL).load())


def _csv(path: Path) -> list[Any]:
    images, labels = read_csv(path)
    assert len(images) == len(labels) > 0
    assert np.isfinite(images).all()
    return _of_dataset(Csv(path=path, split=_ALL).load())


def _of_dataset(dataset: Dataset) -> list[Any]:
    images, labels = dataset.train.images, dataset.train.labels
    assert images.dtype == np.uint8 or images.dtype.kind == "f"
    assert images.ndim == 2
    assert labels.shape == (len(images),)
    assert labels.dtype.kind in "iu"
    assert int(labels.min()) >= 0
    return [images, labels]


def _idx(path: Path) -> list[Any]:
    dimensions = 1 if path.read_bytes()[3:4] == b"\1" else 3
    array = read_idx(path, dimensions=dimensions)
    assert array.ndim == dimensions
    assert array.nbytes <= LIMIT
    return [array]


def _weights(path: Path) -> list[Any]:
    layers = load_weights(path, _NETWORK, np.float32)
    arrays = [array for layer in layers for array in layer]
    assert [array.shape for array in arrays] == [(4, 3), (1, 3), (3, 2), (1, 2)]
    assert all(np.isfinite(array).all() for array in arrays)
    return arrays


def _predictions(path: Path) -> list[Any]:
    kept = Predictions.load(path)
    assert kept.right.shape == kept.labels.shape == kept.probabilities.shape[:1]
    return [kept.part, kept.labels, kept.predicted, kept.probabilities]


def _checkpoint(path: Path) -> list[Any]:
    run, begin = checkpointed()
    loaded = Checkpoint.load(path, begin, "me")
    progress = loaded.progress
    ours, theirs = (_leaves([own.parameters, own.kept, own.state]) for own in (progress, begin))
    shapes = [[getattr(leaf, "shape", None) for leaf in leaves] for leaves in (ours, theirs)]
    assert shapes[0] == shapes[1]
    numbers = [progress.updates, progress.samples, progress.state.updates, *loaded.times]
    assert all(type(number) is int for number in numbers)
    assert [epoch.number for epoch in loaded.epochs] == list(range(1, progress.epoch + 1))
    for epoch in loaded.epochs:
        measured = [epoch.seconds, epoch.lr, loaded.keeping]
        measured += [value for score in epoch.scores.values() for value in astuple(score)]
        assert all(type(value) is float for value in measured)
    # Whatever it says, the training that goes on from it ends, or says what is wrong.
    if progress.epoch < run.epochs:
        next(iter(train_one(replace(run, epochs=progress.epoch + 1), progress)), None)
    return [progress.epoch, *ours, *loaded.times, *(epoch.scores for epoch in loaded.epochs)]


def _sealed_checkpoint(path: Path) -> list[Any]:
    """Read a checkpoint whose checksum is that of its bytes: a stranger can write one."""
    content = path.read_bytes()
    path.write_bytes(content + hashlib.sha256(content).digest())
    return _checkpoint(path)


@cache
def checkpointed() -> tuple[TrainingRun, Progress]:
    """Return the training run whose checkpoints are read here, and its progress at the start."""
    rng = np.random.default_rng(3)
    arrays = Arrays(rng.normal(0, 1, (12, 4)).astype(np.float32), np.arange(12) % 2)
    run = TrainingRun(
        _NETWORK,
        {"train": arrays, "val": arrays},
        loss=SoftmaxCrossEntropy(),
        batching=Mini(4, True, False),
        optimizer=Adam(),
        lr=0.02,
        epochs=3,
        seed=5,
        stopping=EarlyStopping("val/loss", 6),
        inspect_every=2,
    )
    drawn = Random(XavierNormal(), Zeros()).initialize(_NETWORK, stream(5, "weights"), "float32")
    return run, run.begin(drawn)


def _leaves(tree: Any) -> list[Any]:
    if isinstance(tree, State):
        return [tree.updates, *_leaves(tree.buffers)]
    return [leaf for part in tree for leaf in _leaves(part)] if isinstance(tree, _TREE) else [tree]


_TREE = (tuple, list)


def _record(path: Path) -> list[Any]:
    record = Record.load(path.parent)
    identity = record.identity
    texts = [record.name, record.status, record.metric, record.position, record.key]
    texts += [identity.config, identity.apart_from_epochs, identity.data, identity.code]
    texts += [*record.overrides, *_flat(record.settings), *_flat(record.tags)]
    texts += [*_flat(identity.versions)]
    texts += [text for text in (record.note, record.sweep_id) if text is not None]
    assert all(isinstance(text, str) for text in texts)
    numbers = [record.started, record.epochs, record.attempt, *record.stack]
    assert all(type(number) is int for number in numbers)
    assert identity.may_follow(identity)
    return [*texts, *numbers]


def _flat(values: Mapping[str, str]) -> list[str]:
    return [text for pair in values.items() for text in pair]


def _result(path: Path) -> list[Any]:
    result = Record.load(path.parent)
    assert all(isinstance(text, str) for text in (result.name, result.status, result.metric))
    assert all(type(value) in (int, float) for value in result.metrics.values())
    return [result.name, result.status, result.value, *result.metrics.items()]


def _history(path: Path) -> list[Any]:
    rows = read_history(path.parent)
    assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
    assert all(type(value) is float for row in rows for value in row.values())
    return [list(row.items()) for row in rows]


def _told(path: Path) -> list[Any]:
    """Read what MLflow has of a run: whatever is not sound reads as nothing."""
    told = Told.load(path.parent)
    texts = [told.experiment_id, told.run_id, told.status]
    assert all(text is None or isinstance(text, str) for text in texts)
    assert type(told.epochs) is type(told.attempt) is int
    assert all(type(number) is int for signature in told.files.values() for number in signature)
    return [*texts, told.key, told.epochs, told.attempt, *told.files.items()]


def _config(path: Path) -> list[Any]:
    folder = path.parent / "kept"
    (folder / ".hydra").mkdir(parents=True, exist_ok=True)
    path.rename(folder / ".hydra" / "config.yaml")
    job, prepared = check_kept(folder)
    assert isinstance(job.experiment, Experiment)
    return [job.experiment.digest, prepared.dataset.digest]


# By name: the end of the file's name, and the reader.
READERS: dict[str, tuple[str, Callable[[Path], list[Any]]]] = {
    "idx": ("", _idx),
    "csv": (".csv", _csv),
    "csv.gz": (".csv.gz", _csv),
    "csv.bz2": (".csv.bz2", _csv),
    "csv.xz": (".csv.xz", _csv),
    "npz": (".npz", _npz),
    "weights": (".npz", _weights),
    "predictions": (".npz", _predictions),
    "checkpoint": (".npz", _checkpoint),
    "sealed checkpoint": (".npz", _sealed_checkpoint),
    "run.json": ("run.json", _record),
    "result.json": ("result.json", _result),
    "history.csv": ("history.csv", _history),
    TOLD: (TOLD, _told),
    "config.yaml": (".yaml", _config),
}


FILES = ("run.json", "result.json", "history.csv", TOLD)  # read by these names


class Reader:
    """Gives bytes to a reader, as a file in a folder of its own.

    Set the environment variable ``input_files.MAX_BYTES`` to ``LIMIT`` before: greater files
    would only take time.
    """

    def __init__(self, name: str) -> None:
        end, self._read = READERS[name]
        memory = Path("/dev/shm")
        base = memory if memory.is_dir() else None
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz-", dir=base)
        self._path = Path(self._folder.name) / (end if end in FILES else f"input{end}")

    def __call__(self, content: bytes) -> list[Any] | None:
        """Return what was read, or None if the bytes were refused. Raises any other end."""
        self._path.write_bytes(content)
        try:
            return self._read(self._path)
        except (UserError, InvalidValue) as error:
            message = str(error)
            assert message
            assert "\n" not in message
            assert len(message) < 1000
            return None

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
    return found[name] if name in found else _kept(name)


def _kept(name: str) -> list[bytes]:
    """Return valid files of a kind that a run keeps."""
    if name == "config.yaml":
        with composer():
            return [OmegaConf.to_yaml(compose(["model=sigmoid3", "epochs=3"])).encode()]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        if "checkpoint" in name:
            content = _checkpoints(folder / "checkpoint.npz")
            digest = hashlib.sha256().digest_size
            return [one[:-digest] for one in content] if name.startswith("sealed") else content
        identity = Identity("config", "any length", "data", "code", {"NumPy": "2.4.6"})
        record = Record(
            "a run",
            ["lr=0.1"],
            "val/loss",
            started=1_700_000_000_000,
            epochs=5,
            identity=identity,
            settings={"lr": "0.1", "model": "relu2"},
        )
        record.write(folder)
        metrics = {"val/loss": 0.5}
        replace(record, status="FINISHED", value=0.5, metrics=metrics).write(folder)
        (folder / "history.csv").write_text(
            "epoch,val/loss,diagnosed,time\r\n1,0.75,3,10\r\n2,0.5,,20\r\n", newline=""
        )
        files = {"run.json": [7, 1_700_000_000_000]}
        Told("a key", True, "1", "a" * 32, attempt=1, epochs=2, files=files).write(folder)
        kept = (folder / name).read_bytes()
        unsealed = re.sub(rb',\n "sha256": "[0-9a-f]*"', b"", kept)  # it is taken as it is
        return [kept] if kept == unsealed else [kept, unsealed]


def _checkpoints(path: Path) -> list[bytes]:
    """Return a checkpoint after each epoch of a run."""
    run, begin = checkpointed()
    contents, light = [], []
    for epoch in train_one(run, begin):
        assert epoch.progress
        light.append(replace(epoch, parameters=(), progress=None))
        Checkpoint(epoch.progress, light, [10 * one.number for one in light], 0.5).save(path, "me")
        contents.append(path.read_bytes())
    return contents


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

"""Checkpoints: equal bytes after a round trip, and a clear word for a damaged or foreign file."""

import contextlib
import hashlib
import io
import os
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from src.nn.initializers import Random, XavierNormal, Zeros
from src.nn.layers import Sigmoid
from src.nn.losses import SoftmaxCrossEntropy
from src.nn.network import MLP
from src.runs.checkpoints import Checkpointing, Checkpoints, load_checkpoint
from src.runs.checkpoints import save_checkpoint as save
from src.runs.folder import CHECKPOINT, PREVIOUS
from src.runs.record import Identity
from src.support.errors import DataError, InvalidValue
from src.support.files import remove_parts, whole_file, write_whole
from src.support.randomness import stream
from src.training.batching import Mini
from src.training.checkpoint import Checkpoint
from src.training.engines.base import Arrays
from src.training.loop import train_one
from src.training.optimizers import SGD, Adam, Optimizer
from src.training.stopping import EarlyStopping
from src.training.training_run import Epoch, Progress, TrainingRun

IDENTITY = Identity("config", "any length", "data", "code", {})


def training_run(optimizer: Optimizer | None = None) -> tuple[TrainingRun, Progress]:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 90)
    x = (labels[:, None] + rng.normal(0, 0.7, (90, 4))).astype(np.float32)
    arrays = Arrays(x, labels)
    network = MLP(4, (5,), 3, Sigmoid(), dropout=0.2).layers
    run = TrainingRun(
        network,
        {"train": arrays, "val": arrays},
        loss=SoftmaxCrossEntropy(),
        batching=Mini(16, True, False),
        optimizer=optimizer or Adam(),
        lr=0.02,
        epochs=8,
        seed=5,
        stopping=EarlyStopping("val/loss", 6),
        inspect_every=2,
    )
    drawn = Random(XavierNormal(), Zeros()).initialize(network, stream(5, "weights"), "float32")
    return run, run.begin(drawn)


def records(run: TrainingRun, start: Progress) -> list[Epoch]:
    return list(train_one(run, start))


def checkpoint_after(epochs: list[Epoch], number: int) -> Checkpoint:
    progress = epochs[number - 1].progress
    assert progress is not None
    light = [replace(epoch, parameters=(), progress=None) for epoch in epochs[:number]]
    return Checkpoint(progress, light, [10 * epoch.number for epoch in light], 0.5)


def leaves(tree: Any) -> Iterator[bytes]:
    if isinstance(tree, tuple):
        for part in tree:
            yield from leaves(part)
    else:
        yield tree.dtype.str.encode() + tree.tobytes()


@pytest.mark.parametrize(
    "optimizer",
    [SGD(), SGD(momentum=0.9, nesterov=True), Adam(clip_norm=1.0)],
    ids=["sgd", "nesterov", "adam"],
)
def test_training_goes_on_from_a_file_with_equal_bytes(
    tmp_path: Path, optimizer: Optimizer
) -> None:
    run, begin = training_run(optimizer)
    whole = records(run, begin)
    kept = checkpoint_after(whole, 3)
    kept.save(tmp_path / "c.npz", "me")
    loaded = Checkpoint.load(tmp_path / "c.npz", begin, "me")
    assert loaded.times == [10, 20, 30]
    assert loaded.keeping == 0.5
    assert list(loaded.epochs) == list(kept.epochs)  # scores, counters, states of the layers
    assert loaded.progress.history == kept.progress.history
    again = records(run, loaded.progress)
    assert [epoch.number for epoch in again] == [epoch.number for epoch in whole[3:]]
    for ours, theirs in zip(again, whole[3:], strict=True):
        assert list(leaves(ours.parameters)) == list(leaves(theirs.parameters))
        assert (ours.scores, ours.updates, ours.lr, ours.kept, ours.stopped, ours.layers) == (
            theirs.scores, theirs.updates, theirs.lr, theirs.kept, theirs.stopped, theirs.layers
        )  # fmt: skip
    assert again[-1].progress is not None
    assert whole[-1].progress is not None
    assert list(leaves(again[-1].progress.kept)) == list(leaves(whole[-1].progress.kept))


def test_numpy_reads_a_checkpoint_without_pickle(tmp_path: Path) -> None:
    run, begin = training_run()
    checkpoint_after(records(run, begin), 2).save(tmp_path / "c.npz", "me")
    with np.load(tmp_path / "c.npz", allow_pickle=False) as archive:
        assert archive["epochs"].shape == (2, 6)


def test_a_damaged_checkpoint_is_refused_wherever_it_is_damaged(tmp_path: Path) -> None:
    run, begin = training_run()
    path = tmp_path / "c.npz"
    checkpoint_after(records(run, begin), 2).save(path, "me")
    sound = path.read_bytes()
    rng = np.random.default_rng(1)
    for at in rng.integers(0, len(sound), 40):
        path.write_bytes(sound[:at])
        with pytest.raises(DataError, match="checksum"):
            Checkpoint.load(path, begin, "me")
        flipped = bytearray(sound)
        flipped[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        with pytest.raises(DataError, match="checksum"):
            Checkpoint.load(path, begin, "me")


def test_a_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    run, begin = training_run()
    path = tmp_path / "c.npz"
    checkpoint_after(records(run, begin), 2).save(path, "me")
    with pytest.raises(DataError, match="another experiment"):
        Checkpoint.load(path, begin, "you")
    _, other = training_run(SGD())
    with pytest.raises(DataError, match="other arrays"):
        Checkpoint.load(path, other, "me")


def test_a_forged_checkpoint_takes_no_memory_and_runs_nothing(tmp_path: Path) -> None:
    run, begin = training_run()
    path = tmp_path / "c.npz"
    checkpoint_after(records(run, begin), 2).save(path, "me")

    def forged(name: str, header: str, *, compressed: bool = False) -> None:
        content = io.BytesIO()
        with np.load(path) as archive, zipfile.ZipFile(content, "w") as forgery:
            for member in archive.files:
                data = io.BytesIO()
                np.save(data, archive[member])
                raw = data.getvalue()
                if member == name:
                    padded = header.ljust(117) + "\n"
                    raw = b"\x93NUMPY\x01\x00v\x00" + padded.encode() + bytes(400)
                kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
                forgery.writestr(f"{member}.npy", raw, kind)
        raw = content.getvalue()
        (tmp_path / "f.npz").write_bytes(raw + hashlib.sha256(raw).digest())

    huge = "{'descr': '<f8', 'fortran_order': False, 'shape': (10**12, 6), }"
    large = huge.replace("10**12", "1000000000000")
    pickled = "{'descr': '|O', 'fortran_order': False, 'shape': (2, 6), }"
    for header, compressed in ((huge, False), (large, False), (pickled, False), ("", True)):
        forged("epochs", header, compressed=compressed)
        with pytest.raises(DataError, match="not a readable checkpoint"):
            Checkpoint.load(tmp_path / "f.npz", begin, "me")


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    _, begin = training_run()
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/zero")):
        with pytest.raises(DataError, match="not a regular file"):
            Checkpoint.load(path, begin, "me")
    with pytest.raises(DataError, match="no such file"):
        Checkpoint.load(tmp_path / "none", begin, "me")


def test_the_checkpoint_before_stays_until_the_next_is_whole_and_serves_if_that_is_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, begin = training_run()
    epochs = records(run, begin)

    def newest() -> int:
        found = load_checkpoint(tmp_path, begin, IDENTITY)
        return found.progress.epoch if found else 0

    assert newest() == 0
    for number in (1, 2, 3):
        save(tmp_path, checkpoint_after(epochs, number), IDENTITY)
        assert newest() == number
    assert {path.name for path in tmp_path.iterdir()} == {CHECKPOINT, PREVIOUS}
    (tmp_path / CHECKPOINT).write_bytes((tmp_path / CHECKPOINT).read_bytes()[:-1])
    assert newest() == 2
    assert "checksum" in caplog.text
    (tmp_path / CHECKPOINT).unlink()  # a process that is killed between two renames
    assert newest() == 2


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_checkpoint_whose_writing_fails_or_is_cut_short_leaves_one_that_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, nth: int
) -> None:
    run, begin = training_run()
    epochs = records(run, begin)
    save(tmp_path, checkpoint_after(epochs, 1), IDENTITY)
    where: Any = os if call == "fsync" else Path
    real, calls = getattr(where, call), list[int]()

    def full(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == nth:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(where, call, full)
        with pytest.raises(OSError, match="No space"):
            save(tmp_path, checkpoint_after(epochs, 2), IDENTITY)
    found = load_checkpoint(tmp_path, begin, IDENTITY)
    assert found is not None
    assert found.progress.epoch == (2 if (call, nth) == ("fsync", 3) else 1)
    save(tmp_path, checkpoint_after(epochs, 3), IDENTITY)
    found = load_checkpoint(tmp_path, begin, IDENTITY)
    assert found is not None
    assert found.progress.epoch == 3


# --- whole files ----------------------------------------------------------------------------------


def test_a_file_is_synced_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replaced = os.fsync, Path.replace

    def note_sync(descriptor: int) -> None:
        calls.append("sync")
        fsync(descriptor)

    def note_replace(self: Path, target: Path) -> Path:
        calls.append("rename")
        return replaced(self, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_replace)
    write_whole(tmp_path / "a", b"new")
    assert calls == ["sync", "rename", "sync"]  # the content, the name, the folder


def test_a_file_whose_writing_fails_stays_as_it_was(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", b"old")

    def fail() -> None:
        with whole_file(tmp_path / "a") as file:
            file.write(b"ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_parts_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".0123.part").touch()
    (tmp_path / "a.part").touch()
    remove_parts(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.part"]


# --- the pace -------------------------------------------------------------------------------------


class Trained:
    """A run as its checkpoints see it, by a clock that a test sets."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, every: int | str | None, cost: float = 0.0
    ) -> None:
        self.now = self.spent = 0.0
        self.epochs: list[Any] = []
        self.progress: Any = None

        def save(*_: Any) -> None:
            self.now += cost
            self.spent += cost

        clock = SimpleNamespace(perf_counter=lambda: self.now, monotonic=lambda: self.now)
        monkeypatch.setattr("src.runs.checkpoints.time", clock)
        monkeypatch.setattr("src.runs.checkpoints.save_checkpoint", save)
        own: Any = self
        self.checkpoints = Checkpointing(Path(), IDENTITY, Checkpoints(every), own)

    def timed(self) -> contextlib.nullcontext[None]:
        return contextlib.nullcontext()

    def checkpoint(self, progress: Any) -> Any:
        return progress

    def add(self, number: int, seconds: float) -> bool:
        """Add an epoch, write a checkpoint if one is due, and return whether it was."""
        self.now += seconds - (self.epochs[-1].seconds if self.epochs else 0.0)
        self.epochs.append(SimpleNamespace(number=number, seconds=seconds))
        self.progress = SimpleNamespace(epoch=number)
        if is_due := self.checkpoints.is_due:
            self.checkpoints.write()
        return is_due


@pytest.mark.parametrize(
    ("cost", "seconds"), [(0.001, 0.01), (0.5, 0.1), (0.02, 3.0), (0.01, 0.0005)]
)
def test_by_default_checkpoints_take_two_percent_of_training_whatever_they_cost(
    monkeypatch: pytest.MonkeyPatch, cost: float, seconds: float
) -> None:
    run = Trained(monkeypatch, None, cost)
    for number in range(1, 5001):
        run.add(number, number * seconds)
    most = 0.02 * 5000 * seconds * (1 + 1e-9)  # sums of decimals are not exact
    assert 0 < run.spent + cost <= most  # with the one at the end


def test_checkpoints_by_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Trained(monkeypatch, 4)
    assert [number for number in range(1, 10) if run.add(number, number)] == [4, 8]


def test_checkpoints_by_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Trained(monkeypatch, "30s")
    times = enumerate([10, 29.9, 30, 40, 59.9, 61, 90, 91], 1)
    assert [seconds for number, seconds in times if run.add(number, seconds)] == [30, 61, 91]


def test_one_epoch_needs_one_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Trained(monkeypatch, 1, cost=1.0)
    run.add(1, 1.0)
    run.checkpoints.write()
    assert run.spent == 1.0


@pytest.mark.parametrize("every", [0, -1, "0s", "s", "5", "5m", "-3s", "1e3s"])
def test_other_paces_are_refused(every: int | str) -> None:
    with pytest.raises(InvalidValue, match="30s"):
        Checkpoints(every)

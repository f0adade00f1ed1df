"""The folder of a run: who owns it, which run it holds, and from where that run can go on."""

import contextlib
import dataclasses
import hashlib
import logging
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from src.experiment.experiment import Prepared
from src.nn.initializers import FromFile
from src.support.errors import ConfigError, DataError, in_one_line
from src.support.files import remove_parts, sync_folder, write_whole
from src.support.sealed import read_sealed, sealed
from src.support.serialization import check_types
from src.tracking.provenance import code_digest
from src.training.checkpoint import Checkpoint
from src.training.training_run import Progress

log = logging.getLogger(__name__)

LOCK, RUN, HISTORY = "run.lock", "run.json", "history.csv"
CHECKPOINT, PREVIOUS = "checkpoint.npz", "checkpoint.previous.npz"

_owned: dict[Path, FileLock] = {}


def own(folder: Path) -> None:
    """Make this process the owner of a run's folder, until ``disown`` or the end of the process.

    The operating system ends the ownership of a process that dies. Files that such a process left
    unfinished are removed. Raises ConfigError if another process owns the folder.
    """
    folder = folder.absolute()
    if folder in _owned:
        return
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"{folder}: another process is writing into this folder: "
            "wait until it has ended, or choose another folder"
        ) from None
    _owned[folder] = lock
    remove_parts(folder)


def tidy(folder: Path) -> None:
    """Remove the unfinished files of a run whose process was killed just after it had finished."""
    with contextlib.suppress(ConfigError):  # another process writes there
        own(folder)
        disown(folder)


def disown(folder: Path) -> None:
    """Let other processes own the folder."""
    if lock := _owned.pop(folder.absolute(), None):
        lock.release()


def is_owned(folder: Path) -> bool:
    """Return whether this or another process owns the folder."""
    if folder.absolute() in _owned:
        return True
    if not (folder / LOCK).exists():
        return False
    lock = FileLock(folder / LOCK)
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True


def refuse_taken(folder: Path) -> None:
    """Raise ConfigError if a folder holds a run already: a new one would overwrite its results."""
    if (folder / RUN).exists():
        raise ConfigError(
            f"{folder}: holds a run already: choose another folder, "
            f"or go on with that run: resume={folder}"
        )


@dataclass(frozen=True)
class Identity:
    """What decides the bytes of a run. ``apart_from_epochs`` is the digest for any length."""

    config: str
    apart_from_epochs: str
    data: str
    code: str
    versions: Mapping[str, str]

    @staticmethod
    def of(prepared: Prepared) -> "Identity":
        """Return the identity that a run has in this process."""
        experiment = prepared.experiment
        weights = _file_digest(prepared)
        return Identity(
            experiment.digest + weights,
            dataclasses.replace(experiment, epochs=1).digest + weights,
            prepared.dataset.digest,
            code_digest(),
            {"Python": platform.python_version(), "NumPy": np.__version__},
        )

    @property
    def key(self) -> str:
        """What is equal for runs that compute the same, whatever code computed them."""
        return _digest(f"{self.config} {self.data}")

    @property
    def of_checkpoints(self) -> str:
        """What a checkpoint must have in common with a run that goes on from it."""
        return _digest(f"{self.apart_from_epochs} {self.data}")

    def may_follow(self, before: "Identity") -> bool:
        """Return whether a run with this identity goes on, byte for byte, from one with that."""
        numpy, numpy_before = (known.versions.get("NumPy") for known in (self, before))
        return (self.key, self.code, numpy) == (before.key, before.code, numpy_before)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _file_digest(prepared: Prepared) -> str:
    """Return the digest of first weights that come from a file; nothing for random ones."""
    if not isinstance(prepared.experiment.initializer, FromFile):
        return ""
    digest = hashlib.sha256()
    for layer in prepared.parameters:
        for array in layer:
            digest.update(array.tobytes())
    return digest.hexdigest()[:32]


@dataclass(frozen=True)
class RunRecord:
    """What is known of a run from its first moment on: ``run.json`` in its folder."""

    name: str
    overrides: Sequence[str]
    started: int  # milliseconds since 1970
    epochs: int
    identity: Identity
    settings: Mapping[str, str] = field(default_factory=dict)  # and choices, as MLflow has them
    sizes: Mapping[str, int] = field(default_factory=dict)  # samples of each set: train, val, test
    tags: Mapping[str, str] = field(default_factory=dict)
    experiment: str = ""  # of MLflow
    status: str = "RUNNING"
    experiment_id: str | None = None
    run_id: str | None = None  # in MLflow, as soon as the store is open
    position: str = ""  # in its sweep, such as 3/64
    sweep_id: str | None = None
    stack: Sequence[int] = ()  # the numbers of the jobs trained in one stack with it, and its own
    stack_position: int | None = None
    attempt: int = 1  # how many processes have worked on it

    def write(self, folder: Path) -> None:
        """Write the record into a run's folder, all of it or nothing."""
        write_whole(folder / RUN, sealed(dataclasses.asdict(self)))

    @staticmethod
    def load(folder: Path) -> "RunRecord":
        """Return the record in a folder. Raises ConfigError if the folder holds no run."""
        path = folder / RUN
        try:
            known = read_sealed(path)
            record = RunRecord(**{**known, "identity": Identity(**known["identity"])})
            check_types(record)
            return record
        except (FileNotFoundError, NotADirectoryError):
            raise ConfigError(
                f"{folder}: holds no run.json: give the folder of a run, such as one of those in "
                "outputs/runs"
            ) from None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"{path}: not the record of a run ({in_one_line(error)})") from None


def save_checkpoint(folder: Path, checkpoint: Checkpoint, identity: Identity) -> None:
    """Write a checkpoint into a run's folder, and keep the one before. Raises OSError."""
    current = folder / CHECKPOINT
    written = folder / f".{CHECKPOINT}.part"
    checkpoint.save(written, identity.of_checkpoints)
    with contextlib.suppress(FileNotFoundError):
        current.replace(folder / PREVIOUS)
    written.replace(current)
    sync_folder(folder)


def forget_previous(folder: Path) -> None:
    """Remove the checkpoint before the last: nothing replaces that of a finished run."""
    if (folder / CHECKPOINT).exists():
        (folder / PREVIOUS).unlink(missing_ok=True)


def load_checkpoint(
    folder: Path, begin: Progress, identity: Identity, at: int | None = None
) -> Checkpoint | None:
    """Return the newest checkpoint in a run's folder that is whole, or None without one.

    With ``at`` it is the one of that epoch. ``begin`` is the progress before the first epoch.
    A damaged one is named in the log.
    """
    found = _whole(folder, begin, identity)
    return next((one for _, one in found if at is None or one.progress.place == (at, 0)), None)


def kept_epochs(folder: Path, begin: Progress, identity: Identity) -> set[int]:
    """Return the epochs of which a run's folder has a checkpoint, not one within an epoch."""
    places = [checkpoint.progress.place for _, checkpoint in _whole(folder, begin, identity)]
    return {epoch for epoch, samples in places if samples == 0}


def forget_later(folder: Path, begin: Progress, identity: Identity, epoch: int) -> None:
    """Remove the checkpoints of later epochs than the one from which a run goes on.

    The next checkpoint would otherwise push out the one that the members of a stack have in common.
    """
    for path, checkpoint in list(_whole(folder, begin, identity)):
        if checkpoint.progress.place > (epoch, 0):
            path.unlink()


def _whole(folder: Path, begin: Progress, identity: Identity) -> Iterator[tuple[Path, Checkpoint]]:
    """Yield the checkpoints in a run's folder that are whole, the newest first."""
    for name in (CHECKPOINT, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        try:
            yield path, Checkpoint.load(path, begin, identity.of_checkpoints)
        except DataError as error:
            log.warning("%s; the checkpoint before it is used", error)

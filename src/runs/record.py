"""The record of a run: what it was asked and how it ended, in its folder.

``run.json`` is there from the run's first moment on. ``result.json`` is there when the run has
ended, and holds the same and more.
"""

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from src.nn.initializers import FromFile
from src.runs.experiment import Prepared
from src.runs.folder import RESULT, RUN
from src.runs.provenance import code_digest
from src.support.errors import ConfigError, DataError, in_one_line
from src.support.files import write_whole
from src.support.sealed import read_sealed, sealed
from src.support.serialization import check_types

FORMAT = 2  # of run.json and result.json

# LOST: the process died, or the run was never begun. No file says so.
Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED", "PRUNED", "LOST"]


@dataclass(frozen=True)
class Identity:
    """What decides the bytes of a run. ``apart_from_epochs`` is the digest for any length."""

    config: str = ""
    apart_from_epochs: str = ""
    data: str = ""
    code: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def of(prepared: Prepared) -> "Identity":
        """Return the identity that a run has in this process."""
        experiment = prepared.experiment
        weights = _file_digest(prepared)
        return Identity(
            experiment.digest + weights,
            replace(experiment, epochs=1).digest + weights,
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
class Record:
    """What is on disk of a run, but for its arrays and its curves."""

    name: str
    overrides: Sequence[str]
    metric: str  # by which its sweep ranks
    key: str = ""  # random: no other run has it
    started: int = 0  # milliseconds since 1970
    attempt: int = 1  # how many processes have worked on it
    epochs: int = 0  # that it was asked to train
    identity: Identity = Identity()
    # Every resolved setting by its dotted key, and every choice by its group.
    settings: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)  # samples of each set: train, val, test
    position: str = ""  # in its sweep, such as 3/64
    sweep_id: str | None = None
    varied: Sequence[str] = ()  # the settings in which the runs of its sweep differ
    stack: Sequence[int] = ()  # the numbers of the jobs trained in one stack with it, and its own
    stack_position: int | None = None  # its place among them, from 0
    away_from: str | None = None  # the run's folder in its sweep, on another machine

    # What only MLflow shows.
    note: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)  # the user's own
    source: Mapping[str, str] = field(default_factory=dict)  # the program, and its git commit
    dataset: Mapping[str, Any] = field(default_factory=dict)
    network: Mapping[str, Any] = field(default_factory=dict)  # what a served model must know
    models: Literal["best", "all"] = "best"  # which runs of a sweep are logged as models
    first: Mapping[str, float] = field(default_factory=dict)  # measured before training

    # How it ended.
    status: Status = "RUNNING"
    failure: str | None = None  # or why it left its sweep early
    cause: str | None = None  # the class of the exception that ended it
    value: float | None = None  # of the metric
    metrics: Mapping[str, float] = field(default_factory=dict)  # of the kept epoch, and the best
    findings: Sequence[str] = ()  # what is wrong in the layers
    chance: str | None = None  # that it answers no better than a guess, and the likely reason
    seconds: float = 0.0  # of training (in a stack, its share) and of writing the results

    @property
    def has_ended(self) -> bool:
        """Whether nothing is left of the run but to go on with it, if it was stopped."""
        return self.status != "RUNNING"

    @property
    def ended(self) -> int:
        """When it ended by its own clock, in milliseconds since 1970."""
        return self.started + int(1000 * self.seconds)

    def write(self, folder: Path) -> None:
        """Write the record into a run's folder, all of it or nothing."""
        name = RESULT if self.has_ended else RUN
        write_whole(folder / name, sealed({"format": FORMAT, **asdict(self)}))

    @staticmethod
    def asked(folder: Path) -> "Record":
        """Return the record of a run as it began, whatever its end. Raises as ``load`` does."""
        return Record._load(folder, RUN)

    @staticmethod
    def load(folder: Path) -> "Record":
        """Return the record in a folder.

        Raises ConfigError if the folder holds no run, and DataError if the file is damaged, or was
        written by another version of this program.
        """
        return Record._load(folder, RESULT, RUN)

    @staticmethod
    def _load(folder: Path, *names: str) -> "Record":
        """Return the record in the first of these files that is there."""
        for path in (folder / name for name in names):
            try:
                known = read_sealed(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (OSError, ValueError) as error:
                raise _unreadable(path, error) from None
            return _checked(path, known)
        raise ConfigError(
            f"{folder}: holds no run.json: give the folder of a run, such as one of those in "
            "outputs/runs"
        )


def _checked(path: Path, known: dict[str, Any]) -> Record:
    form = known.pop("format", 1)
    if form != FORMAT:
        raise DataError(
            f"{path}: has the form {form}, and this version of scratchgrid reads {FORMAT}: "
            "use the version that wrote it, or train the run again"
        )
    try:
        record = Record(**{**known, "identity": Identity(**known["identity"])})
        check_types(record)
    except (ValueError, TypeError, KeyError) as error:
        raise _unreadable(path, error) from None
    return record


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: not the record of a run ({in_one_line(error)})")


def status(folder: Path) -> Status:
    """Return how the run in a folder ended; RUNNING if no sound record says so."""
    try:
        return Record.load(folder).status
    except (ConfigError, DataError):
        return "RUNNING"

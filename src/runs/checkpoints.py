"""Writes the checkpoints of a run into its folder, and finds the one that it goes on from."""

import contextlib
import logging
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from src.runs.folder import CHECKPOINT, PREVIOUS
from src.runs.history import History
from src.runs.record import Identity
from src.support.errors import DataError, first_line, require
from src.support.files import sync_folder
from src.support.signals import checkpoint_requests
from src.training.checkpoint import Checkpoint
from src.training.training_run import Progress

log = logging.getLogger(__name__)

_SHARE = 0.02  # of the training time: the most that checkpoints cost
_FIRST_COST = 0.01  # seconds, until the first one is measured


@dataclass(frozen=True)
class Checkpoints:
    """When checkpoints are written, as ``checkpoint`` configures it.

    ``every`` is a number of epochs, or seconds such as ``30s``. By default checkpoints are as
    frequent as 2% of the training time allows.
    """

    every: int | str | None

    def __post_init__(self) -> None:
        rule = "must be a number of epochs such as 10, seconds such as 30s, or null"
        if isinstance(self.every, str):
            right = re.fullmatch(r"\d+(\.\d+)?s", self.every) is not None and self.interval > 0
        else:
            right = self.every is None or self.every >= 1
        require(right, "every", self.every, rule)

    @property
    def interval(self) -> float:
        """The seconds between two checkpoints, where seconds are set."""
        return float(str(self.every).removesuffix("s"))


class Checkpointing:
    """Checkpoints of the epochs in a run's history, in the run's folder.

    In a stack the costs of a run's checkpoints are compared with its share of the training time.
    """

    def __init__(
        self, folder: Path, identity: Identity, chosen: Checkpoints, history: History
    ) -> None:
        """Begin where the history stands: at the start of the run, or at its last checkpoint."""
        self._folder, self._identity = folder, identity
        self._chosen, self._history = chosen, history
        begun = history.progress
        self._trained = begun.seconds if begun else 0.0  # before this process
        self._saved = begun.epoch if begun else 0  # the epoch of the last checkpoint
        self._cost, self._spent, self._at = _FIRST_COST, 0.0, time.monotonic()
        self._requests = checkpoint_requests()

    @property
    def is_due(self) -> bool:
        """Whether the time has come for a checkpoint of the last epoch."""
        if not self._history.epochs:
            return False
        last, every = self._history.epochs[-1], self._chosen.every
        if isinstance(every, int):
            return last.number % every == 0
        if every is not None:
            return time.monotonic() - self._at >= self._chosen.interval
        # Twice the cost: the checkpoint at the end of the run is paid from the same share.
        planned = self._spent + 2 * self._cost
        return planned <= _SHARE * (last.seconds - self._trained)

    @property
    def is_requested(self) -> bool:
        """Whether SIGUSR1 asks for a checkpoint, which it does of all runs of a process."""
        return checkpoint_requests() > self._requests

    def write(self) -> None:
        """Write a checkpoint of the last epoch, unless there is one.

        What prevents it is logged: it does not end the training.
        """
        self._requests = checkpoint_requests()
        progress = self._history.progress
        if progress is None or progress.epoch == self._saved:
            return
        start = time.perf_counter()
        try:
            with self._history.timed():
                save_checkpoint(self._folder, self._history.checkpoint(progress), self._identity)
            self._saved = progress.epoch
        except OSError as error:
            log.warning("no checkpoint of epoch %d: %s", progress.epoch, first_line(error))
        self._cost, self._at = time.perf_counter() - start, time.monotonic()
        self._spent += self._cost


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
    return next((one for _, one in found if at is None or one.progress.epoch == at), None)


def checkpointed_epochs(folder: Path, begin: Progress, identity: Identity) -> set[int]:
    """Return the epochs of which a run's folder has a checkpoint."""
    return {checkpoint.progress.epoch for _, checkpoint in _whole(folder, begin, identity)}


def forget_later(folder: Path, begin: Progress, identity: Identity, epoch: int) -> None:
    """Remove the checkpoints of later epochs than the one from which a run goes on.

    The next checkpoint would otherwise push out the one that the members of a stack have in common.
    """
    for path, checkpoint in list(_whole(folder, begin, identity)):
        if checkpoint.progress.epoch > epoch:
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

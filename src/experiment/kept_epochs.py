"""Keeps the epochs of a run: each is on disk at once, and must come out equal a second time."""

import contextlib
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from src.experiment.history import HistoryFile, Row
from src.experiment.results import measurements
from src.experiment.run_folder import HISTORY
from src.nn.network import Parameters
from src.support.errors import NotReproduced
from src.training.checkpoint import Checkpoint
from src.training.training_run import Epoch, Progress

log = logging.getLogger(__name__)


class KeptEpochs:
    """The epochs of a run so far, and the clock of the run.

    ``epochs`` come without their parameters and progress. ``trained`` are the parameters that the
    run keeps, ``progress`` is how far it has come; None before the first epoch.
    """

    def __init__(
        self, file: HistoryFile, started: int, parameters: Parameters, *, is_exact: bool
    ) -> None:
        """Begin before the first epoch: ``started`` is in milliseconds since 1970.

        With ``is_exact`` an epoch that is computed again must have equal values.
        """
        self._file, self._started, self._is_exact = file, started, is_exact
        self._keeping = 0.0  # seconds
        self.epochs: list[Epoch] = []
        self.trained = parameters
        self.progress: Progress | None = None

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take up the state of a checkpoint."""
        self.progress = checkpoint.progress
        self.epochs = list(checkpoint.epochs)
        self.trained, self._keeping = checkpoint.progress.kept, checkpoint.keeping
        # A machine that died may have lost the last lines: the checkpoint has them, too.
        kept = zip(checkpoint.epochs, checkpoint.times, strict=True)
        if line := self._file.mend([_row(epoch, at) for epoch, at in kept]):
            log.warning("%s: line %d is damaged; it is taken from the checkpoint", HISTORY, line)

    @property
    def rows(self) -> Sequence[Row]:
        """The rows of the history: an earlier process may have kept more than ``epochs``."""
        return self._file.rows

    @property
    def seconds(self) -> float:
        """The seconds spent on the run so far: its share of training, and keeping results."""
        return self._keeping + (self.epochs[-1].seconds if self.epochs else 0.0)

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Count the seconds of the block as spent on keeping results."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._keeping += time.perf_counter() - start

    @property
    def last_time(self) -> int:
        """The time of the last epoch, or of the start, in milliseconds since 1970."""
        return int(self.rows[-1]["time"]) if self.rows else self._started

    def _now(self) -> int:
        """Return the time that the run's own clock shows, in milliseconds since 1970.

        It counts the seconds spent on the run, so that durations compare: not the time between an
        interruption and a resume, and in a stack the run's share only.
        """
        return max(self.last_time, self._started + int(self.seconds * 1000))

    def add(self, epoch: Epoch) -> bool:
        """Keep an epoch: it is on disk when this returns. Return whether it is new.

        Raises NotReproduced if it was kept before an interruption, with another result.
        """
        rows = self._file.rows
        is_new = epoch.number > len(rows)
        if is_new:
            with self.timed():
                self._file.add(_row(epoch, self._now()))
        else:
            self._compare(epoch, rows[epoch.number - 1])
        # The curve is kept, but not the weights and the progress of every epoch. An epoch that is
        # computed again keeps its first time: checkpoints say what the file says.
        seconds = rows[epoch.number - 1]["seconds"]
        self.epochs.append(replace(epoch, parameters=(), progress=None, seconds=seconds))
        if epoch.kept:
            self.trained = epoch.parameters
        self.progress = epoch.progress
        return is_new

    def _compare(self, epoch: Epoch, row: Row) -> None:
        """Raise NotReproduced unless an epoch is what its row says, apart from the time it took."""
        values = {"epoch": epoch.number, **measurements(epoch)}
        for name, value in values.items():
            before = row.get(name, math.nan)
            if name == "seconds" or value == before or (value != value and before != before):
                continue
            message = f"epoch {epoch.number}, computed again, has {name} {value!r}, not {before!r}"
            if self._is_exact:
                raise NotReproduced(
                    f"{message} as {HISTORY} says: the processor, BLAS or a plugin has changed"
                )
            log.warning(message)
            return

    def checkpoint(self, progress: Progress) -> Checkpoint:
        """Return a checkpoint of this progress, with the record of each epoch up to it."""
        return Checkpoint(
            progress,
            self.epochs[: progress.epoch],
            [int(row["time"]) for row in self.rows[: progress.epoch]],
            self._keeping,
        )


def _row(epoch: Epoch, at: int) -> Row:
    """Return an epoch's row in the history; ``at`` is in milliseconds since 1970."""
    return {"epoch": epoch.number, **measurements(epoch), "time": at}

"""Writes the checkpoints of a run when they are due, or when a signal asks for one."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from src.experiment.kept_epochs import KeptEpochs
from src.experiment.pace import Checkpoints, Pace
from src.experiment.run_folder import Identity, save_checkpoint
from src.support.errors import first_line
from src.support.signals import checkpoint_requests
from src.training.training_run import Progress

log = logging.getLogger(__name__)


class Checkpointing:
    """Checkpoints of the epochs that a run has kept, in the run's folder."""

    def __init__(
        self, folder: Path, identity: Identity, chosen: Checkpoints, kept: KeptEpochs
    ) -> None:
        """Begin where ``kept`` stands: at the start of the run, or at its last checkpoint."""
        self._folder, self._identity, self._kept = folder, identity, kept
        begun = kept.progress
        self._pace = Pace(chosen, begun.seconds if begun else 0.0)
        self._saved = begun.place if begun else (0, 0)  # the place of the last checkpoint
        self._requests = checkpoint_requests()

    @property
    def is_due(self) -> bool:
        """Whether the time has come for a checkpoint of the last epoch."""
        epochs = self._kept.epochs
        return bool(epochs) and self._pace.due(epochs[-1].number, epochs[-1].seconds)

    @property
    def is_requested(self) -> bool:
        """Whether SIGUSR1 asks for a checkpoint, which it does of all runs of a process."""
        return checkpoint_requests() > self._requests

    def is_due_within(self, progress: Progress) -> bool:
        """Return whether the time has come for a checkpoint within an epoch."""
        assert progress.begun
        trained = progress.seconds + progress.begun.seconds
        return self.is_requested or self._pace.due_within(trained)

    def write(self, pass_on: Callable[[], None]) -> None:
        """Write a checkpoint of the progress so far, unless there is one; then ``pass_on`` it.

        What prevents it is logged: it does not end the training.
        """
        self._requests = checkpoint_requests()
        progress = self._kept.progress
        if progress is None or progress.place == self._saved:
            return
        start = time.perf_counter()
        try:
            with self._kept.timed():
                checkpoint = self._kept.checkpoint(progress)
                save_checkpoint(self._folder, checkpoint, self._identity)
            self._saved = progress.place
            pass_on()
        except OSError as error:
            log.warning("no checkpoint of epoch %d: %s", progress.epoch, first_line(error))
        self._pace.written(time.perf_counter() - start)

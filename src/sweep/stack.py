"""Trains runs as one stack; each has its own folder, its own MLflow run and its own end."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from src.experiment.experiment import Prepared
from src.experiment.job import Job
from src.experiment.recorder import Finished, RunContext, record
from src.support.errors import Diverged, TrainingFailed, first_line
from src.training.loop import train
from src.training.training_run import Epoch

log = logging.getLogger(__name__)

Outcome = Finished | Exception


@dataclass(frozen=True)
class Assignment:
    """A run that is ready to train. In ``scope`` the log goes where this run's belongs."""

    job: Job
    prepared: Prepared
    run_context: RunContext
    scope: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext


def run_stack(
    assignments: Sequence[Assignment], tell: Callable[[int | Path], None]
) -> list[Outcome]:
    """Train the runs and return the outcome of each: what it finished with, or what ended it.

    ``tell`` receives how many epochs were trained, and the folder of each run that has ended. A run
    that fails leaves the others alone. An interruption closes all open runs and is raised again.
    """
    outcomes: dict[int, Outcome] = {}
    running: dict[int, _Running] = {}

    def end(i: int, outcome: Outcome) -> None:
        outcomes[i] = outcome
        del running[i]
        tell(assignments[i].run_context.folder)

    try:
        for i, assignment in enumerate(assignments):
            try:
                running[i] = _Running(assignment)
            except Exception as error:
                outcomes[i] = error
        taking_part = list(running)
        for records in _epochs([assignments[i] for i in taking_part]):
            for i, epoch in zip(taking_part, records, strict=True):
                if i in running and epoch is not None:
                    outcome = running[i].take(epoch)
                    if outcome:
                        end(i, outcome)
            tell(sum(epoch is not None for epoch in records))
        for i in list(running):
            end(i, running[i].finish())
    except BaseException as error:
        for i, run in running.items():
            outcomes[i] = run.fail(error)
        if not isinstance(error, Exception):
            raise
    return [outcomes[i] for i in range(len(assignments))]


class _Running:
    """An open run, closed by ``finish``, by ``fail``, or by the epoch that ends it."""

    def __init__(self, assignment: Assignment) -> None:
        self._scope = assignment.scope
        self._open = contextlib.ExitStack()
        with self._scope():
            recording = record(assignment.job, assignment.prepared, assignment.run_context)
            self._recorder = self._open.enter_context(recording)

    def take(self, epoch: Epoch | Diverged) -> Outcome | None:
        """Record an epoch; return the run's outcome if this was its last, else None."""
        if isinstance(epoch, Diverged):
            return self.fail(epoch)
        try:
            self._recorder.epoch(epoch)
        except Exception as error:  # a full disk, a store that is gone
            return self.fail(error)
        return self.finish() if epoch.stopped else None

    def finish(self) -> Outcome:
        """Record the end of training, close the run and return its outcome."""
        return self._close(self._recorder.finish)

    def fail(self, error: BaseException) -> Outcome:
        """Close the run with what ended it and return its outcome."""

        def end() -> None:
            raise error

        return self._close(end, error)

    def _close(self, last: Callable[[], None], expected: BaseException | None = None) -> Outcome:
        with self._scope():
            try:
                with self._open:
                    last()
            except TrainingFailed as error:
                return error
            except Exception as error:
                log.exception("the run failed")
                return RuntimeError(first_line(error))  # which can be pickled, whatever it was
            except BaseException as error:
                if error is not expected:
                    raise
                return RuntimeError(first_line(error))
            return self._recorder.finished


def _epochs(assignments: Sequence[Assignment]) -> Iterator[Sequence[Epoch | Diverged | None]]:
    """Yield the records of each epoch, one per network."""
    if assignments:
        yield from train(
            [own.prepared.training_run(own.job.diagnose) for own in assignments],
            [own.prepared.parameters for own in assignments],
            engine=assignments[0].prepared.experiment.engine,
        )

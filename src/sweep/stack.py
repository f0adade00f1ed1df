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
from src.experiment.run_folder import Identity, load_checkpoint
from src.nn.network import Parameters
from src.support.errors import Diverged, TrainingFailed, first_line
from src.training.loop import train
from src.training.training_run import Epoch, Progress

log = logging.getLogger(__name__)

Outcome = Finished | Exception


@dataclass(frozen=True)
class Assignment:
    """A run that is ready to train. In ``scope`` the log goes where this run's belongs.

    One that ``has_ended`` is trained along without being recorded: the others of its stack get the
    same bytes only in its company.
    """

    job: Job
    prepared: Prepared
    run_context: RunContext
    scope: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
    has_ended: bool = False


def run_stack(
    assignments: Sequence[Assignment], tell: Callable[[int | Path], None]
) -> list[Outcome]:
    """Train the runs and return the outcome of each: what it finished with, or what ended it.

    Runs that have ended already are trained along and have no outcome. All that go on start after
    the same epoch.

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
                if not assignment.has_ended:
                    running[i] = _Running(assignment)
            except Exception as error:
                outcomes[i] = error
        taking_part = [i for i, own in enumerate(assignments) if i in running or own.has_ended]
        starts = [
            running[i].start if i in running else _start_of(assignments[i]) for i in taking_part
        ]
        for records in _epochs([assignments[i] for i in taking_part], starts):
            for i, epoch in zip(taking_part, records, strict=True):
                if i in running and epoch is not None:
                    outcome = running[i].take(epoch)
                    if outcome:
                        end(i, outcome)
            _checkpoint(list(running.values()))
            tell(sum(epoch is not None for epoch in records))
        for i in list(running):
            end(i, running[i].finish())
    except BaseException as error:
        for i, run in running.items():
            outcomes[i] = run.fail(error)
        if not isinstance(error, Exception):
            raise
    return [outcomes[i] for i in sorted(outcomes)]


def _checkpoint(running: "Sequence[_Running]") -> None:
    """Write a checkpoint of every run if it is due: a stack goes on from one epoch of all."""
    if running and (
        all(run.recorder.is_due for run in running)
        or any(run.recorder.is_requested for run in running)
    ):
        for run in running:
            run.recorder.checkpoint()


def _start_of(assignment: Assignment) -> Parameters | Progress:
    """Return from where a run that has ended is trained along."""
    prepared, run_context = assignment.prepared, assignment.run_context
    begin = prepared.training_run().begin(prepared.parameters)
    identity = Identity.of(prepared)
    kept = load_checkpoint(run_context.folder, begin, identity, run_context.start_at)
    return kept.progress if kept else prepared.parameters


class _Running:
    """An open run, closed by ``finish``, by ``fail``, or by the epoch that ends it."""

    def __init__(self, assignment: Assignment) -> None:
        self._scope, self._prepared = assignment.scope, assignment.prepared
        self._open = contextlib.ExitStack()
        with self._scope():
            recording = record(assignment.job, assignment.prepared, assignment.run_context)
            self.recorder = self._open.enter_context(recording)

    @property
    def start(self) -> Parameters | Progress:
        """From where the run is trained."""
        return self.recorder.start or self._prepared.parameters

    def take(self, epoch: Epoch | Diverged) -> Outcome | None:
        """Record an epoch; return the run's outcome if this was its last, else None."""
        if isinstance(epoch, Diverged):
            return self.fail(epoch)
        try:
            self.recorder.keep(epoch)
        except Exception as error:  # a full disk, a store that is gone
            return self.fail(error)
        return self.finish() if epoch.stopped else None

    def finish(self) -> Outcome:
        """Record the end of training, close the run and return its outcome."""
        return self._close(self.recorder.finish)

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
            return self.recorder.finished


def _epochs(
    assignments: Sequence[Assignment], starts: Sequence[Parameters | Progress]
) -> Iterator[Sequence[Epoch | Diverged | None]]:
    """Yield the records of each epoch, one per network."""
    if assignments:
        yield from train(
            [own.prepared.training_run(own.job.diagnose) for own in assignments],
            starts,
            engine=assignments[0].prepared.experiment.engine,
        )

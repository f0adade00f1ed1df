"""Runs that train as one stack: each keeps a folder, an MLflow run and an end of its own."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from src.experiment.experiment import Prepared
from src.experiment.job import Job
from src.experiment.recorder import Finished, RunContext, record
from src.experiment.runner import gradcheck
from src.support.errors import Diverged, TrainingFailed, first_line
from src.training.loop import train
from src.training.training_run import Epoch

log = logging.getLogger(__name__)

Outcome = Finished | Exception


@dataclass(frozen=True)
class Assignment:
    """A run to be made. In ``scope`` whatever is logged is this run's."""

    job: Job
    prepared: Prepared
    run_context: RunContext
    scope: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext


def execute_together(
    assignments: Sequence[Assignment], tell: Callable[[int | Path], None]
) -> list[Outcome]:
    """Run them side by side and return of each what came of it, or what ended it.

    ``tell`` hears how many epochs have been done, and of each run that has ended its folder.
    What ends one leaves the others alone. An interruption closes all that are open, and is raised again.
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
    """A run that is open: it is closed by the first of ``finish``, ``fail``, and a last or a fatal epoch."""

    def __init__(self, assignment: Assignment) -> None:
        self._scope = assignment.scope
        self._open = contextlib.ExitStack()
        with self._scope():
            if assignment.job.gradcheck:
                gradcheck(assignment.prepared)
            recording = record(assignment.job, assignment.prepared, assignment.run_context)
            self._recorder = self._open.enter_context(recording)

    def take(self, epoch: Epoch | Diverged) -> Outcome | None:
        """Keep an epoch; return what came of the run where this was its last."""
        if isinstance(epoch, Diverged):
            return self.fail(epoch)
        try:
            self._recorder.epoch(epoch)
        except Exception as error:  # a full disk, a store that is gone
            return self.fail(error)
        return self.finish() if epoch.stopped else None

    def finish(self) -> Outcome:
        """Keep what came of the training, and close the run."""
        return self._close(self._recorder.finish)

    def fail(self, error: BaseException) -> Outcome:
        """Close the run with what ended it."""

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
                return RuntimeError(
                    first_line(error)
                )  # one that can be carried from process to process
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

"""Trains runs as one stack; each has its own folder, its own MLflow run and its own end."""

import contextlib
import logging
import math
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from src.nn.network import Parameters
from src.runs.checkpoints import load_checkpoint
from src.runs.context import RunContext
from src.runs.experiment import Prepared
from src.runs.job import Job
from src.runs.record import Identity
from src.runs.recorder import Finished, recording
from src.runs.summary import value_after
from src.support.errors import Diverged, Pruned, TrainingFailed, first_line
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

    @property
    def number(self) -> int:
        """The number of the job in its sweep."""
        context = self.run_context
        assert context.stack_position is not None
        return context.stack[context.stack_position]


def run_stack(
    assignments: Sequence[Assignment], tell: Callable[[int | Path], None]
) -> list[Outcome]:
    """Train the runs and return the outcome of each: what it finished with, or what ended it.

    Runs that have ended already are trained along and have no outcome. See ``Stack``.
    """
    with Stack(assignments, tell) as stack:
        stack.train()
        stack.finish()
    return [stack.outcomes[i] for i in sorted(stack.outcomes)]


class Stack:
    """Runs that train side by side; its ``with`` block opens them, and closes what is still open.

    ``tell`` receives how many epochs were trained, and the folder of each run that has ended. Runs
    that have ended before are trained along and have no outcome. All that go on start after the
    same epoch.

    A run that fails leaves the others alone. An interruption closes all. With ``shrinks`` the
    networks of runs that are pruned leave the stack, which then adds some sums in another order.
    Otherwise they are trained along as long as others are, whose bytes so stay what they would be.
    """

    def __init__(
        self,
        assignments: Sequence[Assignment],
        tell: Callable[[int | Path], None],
        *,
        shrinks: bool = False,
    ) -> None:
        self._assignments, self._tell, self._shrinks = assignments, tell, shrinks
        self.outcomes: dict[int, Outcome] = {}  # of the runs that have ended, by their places
        self._running: dict[int, _Running] = {}
        self._left: set[int] = set()  # their networks are no longer trained
        self._epoch = 0
        self.idle = 0  # epochs that were trained for runs that were pruned before

    @property
    def numbers(self) -> dict[int, int]:
        """The places of the runs in the stack, by the numbers of their jobs."""
        return {one.number: i for i, one in enumerate(self._assignments) if not one.has_ended}

    def __enter__(self) -> Self:
        self._taking_part: list[int] = []
        self._epochs: Iterator[Sequence[Epoch | Diverged | None]] = iter(())
        try:
            self._open()
        except Exception as error:
            self._fail(error)
        except BaseException as error:
            self._fail(error)
            raise
        return self

    def _open(self) -> None:
        """Open the runs, each by itself: one that can't be opened has failed."""
        for i, assignment in enumerate(self._assignments):
            try:
                if not assignment.has_ended:
                    self._running[i] = _Running(assignment)
            except Exception as error:
                self.outcomes[i] = error
        numbered = enumerate(self._assignments)
        self._taking_part = [i for i, own in numbered if i in self._running or own.has_ended]
        taking_part = [self._assignments[i] for i in self._taking_part]
        starts = [
            self._running[i].start if i in self._running else _start_of(self._assignments[i])
            for i in self._taking_part
        ]
        self._epoch = next((one.epoch for one in starts if isinstance(one, Progress)), 0)
        self._epochs = _epochs(taking_part, starts, self._left)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._fail(error)

    def train(self, until: float = math.inf) -> None:
        """Train to the end of epoch ``until``, or to the last one."""
        try:
            while self._running and self._epoch < until:
                records = next(self._epochs, None)
                if records is None:
                    break
                self._epoch += 1
                self._take(records)
        except Exception as error:
            self._fail(error)

    def _take(self, records: Sequence[Epoch | Diverged | None]) -> None:
        """Give each run the record of its epoch."""
        own = zip(self._taking_part, records, strict=True)
        trained = {i: epoch for i, epoch in own if epoch is not None}
        active = [i for i in trained if i in self._running]
        for i in active:
            outcome = self._running[i].take(trained[i])
            if outcome:
                self._end(i, outcome)
        _checkpoint(list(self._running.values()))
        pruned = [i for i in trained if isinstance(self.outcomes.get(i), Pruned)]
        self.idle += len(pruned)
        self._tell(len(active))

    def value(self, i: int, epoch: int) -> float | None:
        """Return the metric of a run after an epoch or after its last, or None if it has failed."""
        if i in self._running:
            return self._running[i].value(epoch)
        outcome = self.outcomes[i]
        return None if isinstance(outcome, Exception) else outcome.record.value

    def prune(self, i: int, reason: str) -> int:
        """Close a run before its last epoch, unless it has ended.

        Returns how many epochs it would have had before it.
        """
        if i not in self._running:
            return 0
        if self._shrinks:
            self._left.add(self._taking_part.index(i))
        self._end(i, self._running[i].fail(Pruned(reason)))
        return self._assignments[i].job.experiment.epochs - self._epoch

    def finish(self) -> None:
        """Close the runs that have trained their last epoch."""
        try:
            for run in self._running.values():  # every result is on disk before MLflow is awaited
                run.keep()
            for i in list(self._running):
                self._end(i, self._running[i].finish())
        except Exception as error:
            self._fail(error)

    def _end(self, i: int, outcome: Outcome) -> None:
        self.outcomes[i] = outcome
        del self._running[i]
        self._tell(self._assignments[i].run_context.folder)

    def _fail(self, error: BaseException) -> None:
        """Close what is still open with the error that ended it."""
        for run in self._running.values():
            run.keep_failure(error)
        for i, run in self._running.items():
            self.outcomes[i] = run.fail(error)
        self._running.clear()


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
        self._failure: Exception | None = None  # of what follows its training
        self._open = contextlib.ExitStack()
        with self._scope():
            opened = recording(assignment.job, assignment.prepared, assignment.run_context)
            self.recorder = self._open.enter_context(opened)
        self._metric = assignment.job.metric
        self._scores = list(self.recorder.start.history) if self.recorder.start else []

    @property
    def start(self) -> Parameters | Progress:
        """From where the run is trained."""
        return self.recorder.start or self._prepared.parameters

    def take(self, epoch: Epoch | Diverged) -> Outcome | None:
        """Record an epoch; return the run's outcome if this was its last, else None."""
        if isinstance(epoch, Diverged):
            return self.fail(epoch)
        self._scores.append(epoch.scores)
        try:
            self.recorder.add(epoch)
        except Exception as error:  # a full disk, a store that is gone
            return self.fail(error)
        return self.finish() if epoch.stopped else None

    def value(self, epoch: int) -> float | None:
        """Return the metric after an epoch, or after the last one so far."""
        return value_after(self._scores[:epoch], self._metric) if self._scores else None

    def keep(self) -> None:
        """Write the results of the training into the run's folder."""
        with self._scope():
            try:
                self.recorder.finish()
            except Exception as error:  # it missed its target, the disk is full
                self._failure = error
                self.recorder.fail(error)

    def keep_failure(self, error: BaseException) -> None:
        """Write what ended the training into the run's folder, unless its results are there."""
        with self._scope():
            self.recorder.fail(error)

    def finish(self) -> Outcome:
        """Keep the results unless this is done, close the run and return its outcome."""
        if not self.recorder.has_ended:
            self.keep()
        return self.fail(self._failure) if self._failure else self._close(lambda: None)

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
            except (Pruned, TrainingFailed) as error:
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
    assignments: Sequence[Assignment],
    starts: Sequence[Parameters | Progress],
    left: Container[int],
) -> Iterator[Sequence[Epoch | Diverged | None]]:
    """Yield the records of each epoch, one per network."""
    if assignments:
        yield from train(
            [own.prepared.training_run(own.job.diagnose) for own in assignments],
            starts,
            engine=assignments[0].prepared.experiment.engine,
            left=left,
        )

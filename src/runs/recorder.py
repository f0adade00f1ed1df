"""Writes a run into its folder, from its first moment to its end."""

import contextlib
import functools
import logging
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from src.nn.network import Parameters
from src.nn.weights import save_weights
from src.runs import description
from src.runs.checkpoints import Checkpointing, forget_later, forget_previous, load_checkpoint
from src.runs.context import RunContext
from src.runs.experiment import Prepared
from src.runs.folder import PREDICTIONS, RESULT, WEIGHTS, disown, own, refuse_taken
from src.runs.history import History
from src.runs.job import Job
from src.runs.predictions import Predictions
from src.runs.provenance import source
from src.runs.record import Identity, Record, Status
from src.runs.summary import Summary, summarize
from src.support.errors import Pruned, TargetMissed, TrainingFailed, first_line
from src.support.signals import finishing_first, held
from src.training import diagnostics
from src.training.chance import at_chance
from src.training.training_run import Epoch, Progress, watched

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finished:
    """A run that has finished, as Python code sees it."""

    record: Record
    summary: Summary
    history: Sequence[Epoch]
    parameters: Parameters  # trained
    predictions: Predictions


@contextlib.contextmanager
def recording(job: Job, prepared: Prepared, context: RunContext) -> Iterator["Recorder"]:
    """Open a run, new or interrupted, and yield its recorder: ``add`` each epoch, then ``finish``.

    However the block ends, the run leaves its record in its folder. Several runs may be open at a
    time. Raises what the block raises, and UserError if the folder has another owner, holds another
    run, or is damaged.
    """
    folder = context.folder.absolute()
    own(folder)
    try:
        if not context.goes_on:
            refuse_taken(folder)
        record = _record(job, prepared, context)
        started, first = record.started, prepared.parameters
        with History(folder, started, first, is_exact=context.is_exact) as history:
            recorder = Recorder(job, prepared, context, history, record)
            with finishing_first():
                try:
                    recorder.begin()
                    yield recorder
                except BaseException as error:
                    recorder.fail(error)
                    raise
    finally:
        disown(folder)


def _record(job: Job, prepared: Prepared, context: RunContext) -> Record:
    """Return the record of a run that begins, or of one that goes on."""
    asked = Record(
        context.name,
        list(context.overrides),
        job.metric,
        key=secrets.token_hex(16),
        started=int(time.time() * 1000),
        epochs=job.experiment.epochs,
        identity=Identity.of(prepared),
        settings={key: str(value) for key, value in context.settings.items()},
        sizes={name: len(split) for name, split in prepared.dataset.splits()},
        position=context.position,
        sweep_id=context.sweep_id,
        varied=list(context.varied),
        stack=list(context.stack),
        stack_position=context.stack_position,
        away_from=None if context.away_from is None else str(context.away_from),
        note=job.note,
        tags={name: str(value) for name, value in job.tags.items()},
        source=source(),
        dataset=description.of_dataset(prepared.dataset),
        network=description.of_network(prepared),
        models=job.tracking.models,
    )
    if not context.goes_on:
        return asked
    before = Record.asked(context.folder)
    return replace(asked, key=before.key, started=before.started, attempt=before.attempt + 1)


class Recorder:
    """Writes a run into its folder while it trains and when it ends."""

    finished: Finished

    def __init__(
        self,
        job: Job,
        prepared: Prepared,
        context: RunContext,
        history: History,
        record: Record,
    ) -> None:
        self._job, self._prepared, self._context = job, prepared, context
        self._history, self._record = history, record
        self._folder = context.folder.absolute()
        if context.goes_on:
            self._restore()
        self.start: Progress | None = history.progress  # None for the beginning
        self._checkpoints = Checkpointing(self._folder, record.identity, job.checkpoint, history)

    def _restore(self) -> None:
        """Take up the state of the last checkpoint, if there is one."""
        begin = self._prepared.training_run().begin(self._prepared.parameters)
        at, identity = self._context.start_at, self._record.identity
        if at is not None:
            forget_later(self._folder, begin, identity, at)
        if checkpoint := load_checkpoint(self._folder, begin, identity, at):
            self._history.restore(checkpoint)

    # --- while it trains ---

    def begin(self) -> None:
        """Write what is known before training."""
        with self._history.timed():
            if self._job.diagnose:
                first = diagnostics.measurements(self._first_look)
                self._record = replace(self._record, first=first)
            self._record.write(self._folder)
            (self._folder / RESULT).unlink(missing_ok=True)  # the run has not ended any more

    @functools.cached_property
    def _first_look(self) -> tuple[diagnostics.LayerState, ...]:
        """The state of the layers before training."""
        return self._prepared.inspect()

    def add(self, epoch: Epoch) -> None:
        """Write an epoch: it is on disk when this returns.

        A signal waits until it is: a checkpoint then has all epochs that the file has. Raises
        NotReproduced if the epoch was written before an interruption, with another result.
        """
        with held():
            self._history.add(epoch)

    @property
    def is_due(self) -> bool:
        """Whether the time has come for a checkpoint of the last epoch."""
        return self._checkpoints.is_due

    @property
    def is_requested(self) -> bool:
        """Whether SIGUSR1 asks for a checkpoint, which it does of all runs of a process."""
        return self._checkpoints.is_requested

    def checkpoint(self) -> None:
        """Write a checkpoint of the last epoch, unless there is one.

        What prevents it is logged: it does not end the training.
        """
        self._checkpoints.write()

    # --- when it ends ---

    @property
    def has_ended(self) -> bool:
        """Whether its end is in its folder."""
        return self._record.has_ended

    def finish(self) -> None:
        """Write the results of the training: all are in the folder when this returns.

        Raises TargetMissed.
        """
        job, prepared, history = self._job, self._prepared, self._history
        self.checkpoint()
        with history.timed():
            summary = summarize(history.epochs, self._findings(), self._chance())
            save_weights(self._folder / WEIGHTS, prepared.network, history.trained)
            predictions = _predictions(prepared, history.trained)
            predictions.save(self._folder / PREDICTIONS)
        self._record = replace(self._record, chance=summary.chance)
        stopping = job.experiment.stopping
        scores = [epoch.scores for epoch in history.epochs]
        if shortfall := stopping.shortfall(watched(stopping.watch, scores)):
            raise TargetMissed(shortfall)
        metrics = summary.metrics()
        with held():
            if len(self._context.stack) < 2:  # a stack goes on from what all its runs have
                forget_previous(self._folder)
            self._end(
                "FINISHED",
                value=metrics[job.metric],
                metrics=metrics,
                findings=list(summary.findings),
            )
        self.finished = Finished(
            self._record, summary, history.epochs, history.trained, predictions
        )
        log.info("finished in %.1f s: %s", self._record.seconds, metrics)

    def _findings(self) -> list[str]:
        """Return what is wrong in the layers, if the job asks for diagnostics; log each finding."""
        if not self._job.diagnose:
            return []
        after = {epoch.number: epoch.layers for epoch in self._history.epochs if epoch.layers}
        looks = {0: self._first_look, **after}
        sentences = diagnostics.findings(self._prepared.network, looks)
        for sentence in sentences:
            log.warning(sentence)
        return sentences

    def _chance(self) -> str | None:
        """Return that the network answers no better than a guess, and why; log it."""
        prepared = self._prepared
        said = at_chance(prepared.training_run(), prepared.parameters, self._history.epochs)
        if said:
            log.warning(said)
        return said

    def fail(self, error: BaseException) -> None:
        """Write the error that ended the run, after a checkpoint of what is trained.

        Both are in the folder when this returns: a second signal waits for them. A run whose end is
        there already stays as it is.
        """
        if self.has_ended:
            return
        with held():
            if not isinstance(error, TrainingFailed):  # it would fail again
                self.checkpoint()
            try:
                self._end(**self._ending(error))
            except OSError as problem:  # a full disk
                log.warning("no %s: %s", RESULT, first_line(problem))

    def _ending(self, error: BaseException) -> dict[str, Any]:
        """Return what the record of a run says of the error that ended it."""
        if isinstance(error, Pruned):  # it leaves its sweep early; its checkpoint lets it go on
            epochs = self._history.epochs
            return {
                "status": "PRUNED",
                "failure": str(error),
                "metrics": summarize(epochs, ()).metrics() if epochs else {},
                "findings": self._findings(),
            }
        status, reason = ending(error)
        return {
            "status": status,
            "failure": reason,
            "findings": self._findings() if isinstance(error, TrainingFailed) else [],
            "cause": type(error).__name__,
        }

    def _end(self, status: Status, **known: Any) -> None:
        """Write the end of the run into its folder. Raises OSError."""
        known["seconds"] = self._history.seconds
        self._record = replace(self._record, status=status, **known)
        self._record.write(self._folder)


def ending(error: BaseException) -> tuple[Status, str]:
    """Return the status of a run that an exception ended, and the reason in words."""
    if isinstance(error, KeyboardInterrupt):
        return "KILLED", "interrupted"
    if isinstance(error, SystemExit):
        return "KILLED", "terminated"
    return "FAILED", str(error) or type(error).__name__


def _predictions(prepared: Prepared, trained: Parameters) -> Predictions:
    """Return the trained network's predictions for the test set, or without one the last set."""
    part, split = list(prepared.dataset.splits())[-1]
    return Predictions.of(part, split, *prepared.predict(trained, split.images))

"""Keeps a run while it trains and when it ends: first in its folder, then in MLflow."""

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from src.experiment.checkpointing import Checkpointing
from src.experiment.experiment import Prepared
from src.experiment.history import HistoryFile
from src.experiment.job import Job
from src.experiment.kept_epochs import KeptEpochs
from src.experiment.predictions import Predictions
from src.experiment.record_file import RecordFile
from src.experiment.results import RESULT, Result, Summary, summarize
from src.experiment.run_context import RunContext
from src.experiment.run_folder import (
    CHECKPOINT,
    HISTORY,
    PREVIOUS,
    RUN,
    RunRecord,
    forget_later,
    forget_previous,
    load_checkpoint,
)
from src.experiment.tracked_run import TrackedRun
from src.nn.network import Parameters
from src.nn.weights import save_weights
from src.support.errors import Pruned, TargetMissed, TrainingFailed, first_line
from src.support.signals import held
from src.tracking.tracker import Tracker, ending
from src.training import diagnostics
from src.training.chance import at_chance
from src.training.training_run import Epoch, Progress, watched

log = logging.getLogger(__name__)

# Of a run that has ended, beside what MLflow gets of every run.
_KEPT = (RUN, RESULT, HISTORY, "weights.npz")


@dataclass(frozen=True)
class Finished:
    """A run that has finished, as Python code sees it."""

    result: Result
    summary: Summary
    history: Sequence[Epoch]
    parameters: Parameters  # trained
    predictions: Predictions


class Recorder:
    """Keeps a run while it trains: first in its folder, then in MLflow."""

    finished: Finished

    def __init__(
        self,
        job: Job,
        prepared: Prepared,
        run_context: RunContext,
        tracker: Tracker,
        history: HistoryFile,
        record: RunRecord,
    ) -> None:
        self._job, self._prepared, self._run_context = job, prepared, run_context
        self._record = RecordFile(run_context.folder, record)
        self._tracked = TrackedRun(tracker, run_context, history)
        self._result = Result(
            run_context.name,
            list(run_context.overrides),
            "FINISHED",
            job.metric,
            stack=list(run_context.stack),
            stack_position=run_context.stack_position,
        )
        self._kept = KeptEpochs(
            history, record.started, prepared.parameters, is_exact=run_context.is_exact
        )
        if run_context.goes_on:
            self._restore()
        # From where training starts; None for its beginning.
        self.start: Progress | None = self._kept.progress
        self._checkpoints = Checkpointing(
            run_context.folder, record.identity, job.checkpoint, self._kept
        )
        self.has_ended = False  # whether its result is in its folder

    def _restore(self) -> None:
        """Take up the state of the last checkpoint, if there is one."""
        begin = self._prepared.training_run().begin(self._prepared.parameters)
        folder, at = self._run_context.folder, self._run_context.start_at
        identity = self._record.record.identity
        if at is not None:
            forget_later(folder, begin, identity, at)
        if checkpoint := load_checkpoint(folder, begin, identity, at):
            self._kept.restore(checkpoint)

    # --- while it trains ---

    def begin(self) -> None:
        """Keep what is known before training."""
        tracked = self._tracked
        with self._kept.timed():
            self._record.update()
            tracked.begin(self._job, self._prepared, self._record.opened)
            if self._job.diagnose:
                first_look = diagnostics.measurements(self._first_look)
                tracked.measurements(first_look, self._record.record.started)
            tracked.files_to_go_on(RUN)
            tracked.curves()

    @functools.cached_property
    def _first_look(self) -> tuple[diagnostics.LayerState, ...]:
        """The state of the layers before training."""
        return self._prepared.inspect()

    def epoch(self, epoch: Epoch) -> None:
        """Keep an epoch: it is on disk when this returns. Write a checkpoint if one is due.

        Raises NotReproduced if the epoch was kept before an interruption, with another result.
        """
        self.keep(epoch)
        if self.is_due or self.is_requested:
            self.checkpoint()

    def keep(self, epoch: Epoch) -> None:
        """Keep an epoch, without a checkpoint: it is on disk when this returns.

        A signal waits until it is: a checkpoint then has all epochs that the file has. Raises
        NotReproduced if the epoch was kept before an interruption, with another result.
        """
        with held():
            is_new = self._kept.add(epoch)
            # An epoch that MLflow has, but not its row, would have two times after a loss.
            if is_new and not self._tracked.is_away:
                self._tracked.curves()

    @property
    def is_due(self) -> bool:
        """Whether the time has come for a checkpoint of the last epoch."""
        return self._checkpoints.is_due

    @property
    def is_requested(self) -> bool:
        """Whether SIGUSR1 asks for a checkpoint, which it does of all runs of a process."""
        return self._checkpoints.is_requested

    def within_epoch(self, progress: Progress) -> None:
        """Take note of how far the run has come within a long epoch."""
        self._kept.progress = progress
        if self._checkpoints.is_due_within(progress):
            self.checkpoint()

    def checkpoint(self) -> None:
        """Write a checkpoint of the last epoch, unless there is one.

        What prevents it is logged: it does not end the training.
        """

        def pass_on() -> None:
            self._tracked.files_to_go_on(HISTORY, CHECKPOINT, PREVIOUS)
            self._tracked.curves()

        self._checkpoints.write(pass_on)

    # --- when it ends ---

    def finish(self) -> None:
        """Keep the results of the training: all are in the folder when this returns.

        Raises TargetMissed.
        """
        job, prepared, kept = self._job, self._prepared, self._kept
        folder = self._run_context.folder.absolute()
        self.checkpoint()
        with kept.timed():
            summary = summarize(kept.epochs, self.findings(), self._chance())
            save_weights(folder / "weights.npz", prepared.network, kept.trained)
            predictions = _predictions(prepared, kept.trained)
            predictions.save(folder / "predictions.npz")
            self._tracked.summary(summary, kept.last_time)
            if not self._run_context.sweep_id:  # in a sweep most pictures are never looked at
                # Imported after training: Matplotlib takes half a second.
                from src.experiment.pictures.folder import draw

                self._tracked.pictures(draw(folder, job, prepared, self._run_context.name))
            self._tracked.results(job, prepared, kept.trained)
        stopping = job.experiment.stopping
        scores = [epoch.scores for epoch in kept.epochs]
        self._result = replace(self._result, chance=summary.chance)
        if shortfall := stopping.shortfall(watched(stopping.watch, scores)):
            raise TargetMissed(shortfall)
        metrics = summary.metrics()
        self._result = replace(
            self._result,
            value=metrics[job.metric],
            metrics=metrics,
            findings=list(summary.findings),
            seconds=kept.seconds,
        )
        self.finished = Finished(self._result, summary, kept.epochs, kept.trained, predictions)
        with held():
            if len(self._run_context.stack) < 2:  # a stack goes on from what all its runs have
                forget_previous(folder)
            self._keep_result()

    def findings(self) -> list[str]:
        """Return what is wrong in the layers, if the job asks for diagnostics; log each finding."""
        if not self._job.diagnose:
            return []
        after = {epoch.number: epoch.layers for epoch in self._kept.epochs if epoch.layers}
        looks = {0: self._first_look, **after}
        sentences = diagnostics.findings(self._prepared.network, looks)
        for sentence in sentences:
            log.warning(sentence)
        return sentences

    def _chance(self) -> str | None:
        """Return that the network answers no better than a guess, and why; log it."""
        prepared = self._prepared
        said = at_chance(prepared.training_run(), prepared.parameters, self._kept.epochs)
        if said:
            log.warning(said)
        return said

    def keep_failure(self, error: BaseException) -> None:
        """Keep the error that ended the run, after a checkpoint of what is trained.

        Both are in the folder when this returns: a second signal waits for them. A run whose result
        is there already stays as it is.
        """
        if self.has_ended:
            return
        with held():
            if not isinstance(error, TrainingFailed):  # it would fail again
                self.checkpoint()
            self._result = replace(self._result, **self._ending(error), seconds=self._kept.seconds)
            try:
                self._keep_result()
            except OSError as problem:  # a full disk: MLflow hears of the failure all the same
                log.warning("no %s: %s", RESULT, first_line(problem))
                self._tracked.end(self._result)

    def _ending(self, error: BaseException) -> dict[str, Any]:
        """Return what the result of a run says of the error that ended it."""
        if isinstance(error, Pruned):  # it leaves its sweep early; its checkpoint lets it go on
            self._tracked.history()
            epochs = self._kept.epochs
            return {
                "status": "PRUNED",
                "failure": str(error),
                "metrics": summarize(epochs, ()).metrics() if epochs else {},
                "findings": self.findings(),
            }
        status, reason = ending(error)
        return {
            "status": status,
            "failure": reason,
            "findings": self.findings() if isinstance(error, TrainingFailed) else [],
            "cause": type(error).__name__,
        }

    def fail(self, error: BaseException) -> None:
        """Keep the error that ended the run, then close the run in MLflow."""
        self.keep_failure(error)
        self._close()

    def close(self) -> None:
        """Close a run that has finished in MLflow."""
        self._close()
        result = self._result
        log.info(
            "finished in %.1f s as MLflow run %s: %s",
            result.seconds,
            result.run_id,
            result.metrics,
        )
        self.finished = replace(self.finished, result=result)

    def _keep_result(self) -> None:
        """Write the result into the folder: whatever happens to MLflow, it is known."""
        known = self._record.record  # MLflow's ids, if it has opened the run by now
        self._result = replace(self._result, experiment_id=known.experiment_id, run_id=known.run_id)
        self._result.write(self._run_context.folder)
        self._record.update(status=self._result.status)
        logs = [path.name for path in self._run_context.folder.glob("*.log")]
        self._tracked.files_to_go_on(*_KEPT, *logs)
        self._tracked.curves()
        self._tracked.end(self._result)
        self.has_ended = True

    def _close(self) -> None:
        """Close the run in MLflow, and wait for that."""
        if identity := self._tracked.identity():
            experiment_id, run_id = identity
            self._result = replace(self._result, experiment_id=experiment_id, run_id=run_id)
            try:
                self._result.write(self._run_context.folder)
                self._record.update(experiment_id=experiment_id, run_id=run_id)
            except OSError as error:  # the file stays as it was
                log.warning("%s does not name the MLflow run: %s", RESULT, first_line(error))
        self._tracked.close()


def _predictions(prepared: Prepared, trained: Parameters) -> Predictions:
    """Return the trained network's predictions for the test set, or without one the last set."""
    part, split = list(prepared.dataset.splits())[-1]
    return Predictions.of(part, split, *prepared.predict(trained, split.images))

"""Keeps a run while it trains and when it ends, in its folder and in MLflow."""

import contextlib
import functools
import logging
import math
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from src.experiment.experiment import Prepared
from src.experiment.history import HistoryFile, Row
from src.experiment.job import Job
from src.experiment.pace import Pace
from src.experiment.predictions import Predictions
from src.experiment.results import RESULT, Result, Summary, measurements, summarize
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
    save_checkpoint,
)
from src.nn.network import Parameters
from src.nn.weights import save_weights
from src.support.errors import (
    NotReproduced,
    Pruned,
    TargetMissed,
    TrainingFailed,
    first_line,
)
from src.support.signals import checkpoint_requests, held
from src.tracking.journal import Status
from src.tracking.tracker import Tracker, ending
from src.training import diagnostics
from src.training.checkpoint import Checkpoint
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
        self._job = job
        self._prepared = prepared
        self._run_context = run_context
        self._tracker = tracker
        self._file = history
        self._record, self._record_lock = record, threading.Lock()
        self._result = Result(
            run_context.name,
            list(run_context.overrides),
            "FINISHED",
            job.metric,
            stack=list(run_context.stack),
            stack_position=run_context.stack_position,
        )
        self._history: list[Epoch] = []
        self._trained = prepared.parameters
        self._keeping = 0.0  # seconds
        # From where training starts, and how far it has come; None before the first epoch.
        self.start: Progress | None = None
        self._progress: Progress | None = None
        self._handed_over = len(history.rows)  # the tracker has read those of an earlier process
        self._saved = (0, 0)  # the place of the last checkpoint
        self.has_ended = False  # whether its result is in its folder
        self._requests = checkpoint_requests()
        if run_context.goes_on:
            self._restore()
        self._pace = Pace(job.checkpoint, self.start.seconds if self.start else 0.0)

    def _restore(self) -> None:
        """Take up the state of the last checkpoint, if there is one."""
        begin = self._prepared.training_run().begin(self._prepared.parameters)
        folder, at = self._run_context.folder, self._run_context.start_at
        if at is not None:
            forget_later(folder, begin, self._record.identity, at)
        checkpoint = load_checkpoint(folder, begin, self._record.identity, at)
        if checkpoint is None:
            return
        self.start = self._progress = checkpoint.progress
        self._saved = checkpoint.progress.place
        self._history = list(checkpoint.epochs)
        self._trained, self._keeping = checkpoint.progress.kept, checkpoint.keeping
        # A machine that died may have lost the last lines: the checkpoint has them, too.
        kept = zip(checkpoint.epochs, checkpoint.times, strict=True)
        if line := self._file.mend([_row(epoch, at) for epoch, at in kept]):
            log.warning("%s: line %d is damaged; it is taken from the checkpoint", HISTORY, line)

    @property
    def seconds(self) -> float:
        """The seconds spent on the run so far: its share of training, and keeping results."""
        return self._keeping + (self._history[-1].seconds if self._history else 0.0)

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._keeping += time.perf_counter() - start

    @property
    def _last_time(self) -> int:
        """The time of the last epoch, or of the start, in milliseconds since 1970."""
        rows = self._file.rows
        return int(rows[-1]["time"]) if rows else self._record.started

    def _now(self) -> int:
        """Return the time that the run's own clock shows, in milliseconds since 1970.

        It counts the seconds spent on the run, so that durations compare: not the time between an
        interruption and a resume, and in a stack the run's share only.
        """
        return max(self._last_time, self._record.started + int(self.seconds * 1000))

    def begin(self) -> None:
        """Keep what is known before training."""
        run_context, tracker = self._run_context, self._tracker
        with self._timed():
            self._update_record()
            tracker.when_open(self._opened)
            if run_context.sweep_id and not run_context.goes_on:
                differing = [name for name in run_context.varied if name in run_context.settings]
                tracker.sweep(run_context.sweep_id, self._job.metric, differing)
            tracker.parameters(run_context.settings)
            tracker.dataset(self._prepared.dataset)
            configuration = run_context.folder.absolute().glob(".hydra/*.yaml")
            tracker.files(sorted(configuration), "config")
            if self._job.diagnose:
                first_look = diagnostics.measurements(self._first_look)
                tracker.metrics(first_look, 0, self._record.started)
            self._keep_files_in_mlflow(RUN)
            self._hand_over()

    @functools.cached_property
    def _first_look(self) -> tuple[diagnostics.LayerState, ...]:
        """The state of the layers before training."""
        return self._prepared.inspect()

    def _hand_over(self) -> None:
        """Give the new rows of the history to MLflow, which keeps equal points once."""
        for row in self._file.rows[self._handed_over :]:
            values = {name: row[name] for name in row if name not in ("epoch", "time")}
            self._tracker.metrics(values, int(row["epoch"]), int(row["time"]))
        self._handed_over = len(self._file.rows)

    def _keep_files_in_mlflow(self, *names: str) -> None:
        """Let MLflow keep these files too, if nothing else does: the folder may be lost."""
        if self._run_context.away_from:
            paths = [self._run_context.folder.absolute() / name for name in names]
            self._tracker.files([path for path in paths if path.exists()])

    def _opened(self, experiment_id: str, run_id: str) -> None:
        """Keep the ids that MLflow has given the run. Called in the tracker's thread."""
        with self._record_lock:
            if self._record.status == "RUNNING":  # afterwards the folder may have another owner
                self._record = replace(self._record, experiment_id=experiment_id, run_id=run_id)
                self._record.write(self._run_context.folder)

    def _update_record(self, **changes: Any) -> None:
        """Write what is known of the run into its folder."""
        with self._record_lock:
            self._record = replace(self._record, **changes)
            self._record.write(self._run_context.folder)

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
            self._keep(epoch)

    def _keep(self, epoch: Epoch) -> None:
        rows = self._file.rows
        if epoch.number <= len(rows):
            self._compare(epoch, rows[epoch.number - 1])
        else:
            with self._timed():
                self._file.add(_row(epoch, self._now()))
            # An epoch that MLflow has, but not its row, would have two times after a loss.
            if not self._run_context.away_from:
                self._hand_over()
        # The curve is kept, but not the weights and the progress of every epoch. An epoch that is
        # computed again keeps its first time: checkpoints say what the file says.
        seconds = rows[epoch.number - 1]["seconds"]
        self._history.append(replace(epoch, parameters=(), progress=None, seconds=seconds))
        if epoch.kept:
            self._trained = epoch.parameters
        self._progress = epoch.progress

    @property
    def is_due(self) -> bool:
        """Whether the time has come for a checkpoint of the last epoch."""
        return bool(self._history) and self._pace.due(
            self._history[-1].number, self._history[-1].seconds
        )

    @property
    def is_requested(self) -> bool:
        """Whether SIGUSR1 asks for a checkpoint, which it does of all runs of a process."""
        return checkpoint_requests() > self._requests

    def within_epoch(self, progress: Progress) -> None:
        """Take note of how far the run has come within a long epoch."""
        assert progress.begun
        self._progress = progress
        trained = progress.seconds + progress.begun.seconds
        if self.is_requested or self._pace.due_within(trained):
            self.checkpoint()

    def _compare(self, epoch: Epoch, row: Row) -> None:
        """Raise NotReproduced unless an epoch is what its row says, apart from the time it took."""
        values = {"epoch": epoch.number, **measurements(epoch)}
        for name, value in values.items():
            before = row.get(name, math.nan)
            if name == "seconds" or value == before or (value != value and before != before):
                continue
            message = f"epoch {epoch.number}, computed again, has {name} {value!r}, not {before!r}"
            if self._run_context.is_exact:
                raise NotReproduced(
                    f"{message} as {HISTORY} says: the processor, BLAS or a plugin has changed"
                )
            log.warning(message)
            return

    def checkpoint(self) -> None:
        """Write a checkpoint of the last epoch, unless there is one.

        What prevents it is logged: it does not end the training.
        """
        self._requests = checkpoint_requests()
        progress = self._progress
        if progress is None or progress.place == self._saved:
            return
        start = time.perf_counter()
        checkpoint = Checkpoint(
            progress,
            self._history[: progress.epoch],
            [int(row["time"]) for row in self._file.rows[: progress.epoch]],
            self._keeping,
        )
        try:
            with self._timed():
                save_checkpoint(self._run_context.folder, checkpoint, self._record.identity)
            self._saved = progress.place
            self._keep_files_in_mlflow(HISTORY, CHECKPOINT, PREVIOUS)
            self._hand_over()
        except OSError as error:
            log.warning("no checkpoint of epoch %d: %s", progress.epoch, first_line(error))
        self._pace.written(time.perf_counter() - start)

    def finish(self) -> None:
        """Keep the results of the training: all are in the folder when this returns.

        Raises TargetMissed.
        """
        job, prepared, tracker = self._job, self._prepared, self._tracker
        folder = self._run_context.folder.absolute()
        self.checkpoint()
        with self._timed():
            summary = summarize(self._history, self.findings())
            save_weights(folder / "weights.npz", prepared.network, self._trained)
            predictions = _predictions(prepared, self._trained)
            predictions.save(folder / "predictions.npz")
            # At step 0, since they belong to no epoch: MLflow draws them as bars with their values.
            tracker.metrics(_finals_and_bests(summary), 0, self._last_time)
            if not self._run_context.sweep_id:  # in a sweep most pictures are never looked at
                # Imported after training: Matplotlib takes half a second.
                from src.experiment.pictures.folder import draw

                pictures = draw(folder, job, prepared, self._run_context.name)
                tracker.files(pictures, "pictures")
            tracker.files([folder / "history.csv", folder / "predictions.npz"])
            experiment = job.experiment
            tracker.model(
                experiment.model,
                experiment.loss,
                prepared.dataset,
                self._trained,
                folder / "weights.npz",
            )
        stopping = job.experiment.stopping
        scores = [epoch.scores for epoch in self._history]
        if shortfall := stopping.shortfall(watched(stopping.watch, scores)):
            raise TargetMissed(shortfall)
        metrics = summary.metrics()
        self._result = replace(
            self._result,
            value=metrics[job.metric],
            metrics=metrics,
            findings=list(summary.findings),
            seconds=self.seconds,
        )
        self.finished = Finished(self._result, summary, self._history, self._trained, predictions)
        with held():
            if len(self._run_context.stack) < 2:  # a stack goes on from what all its runs have
                forget_previous(folder)
            self._keep_result()

    def findings(self) -> list[str]:
        """Return what is wrong in the layers, if the job asks for diagnostics; log each finding."""
        if not self._job.diagnose:
            return []
        after = {epoch.number: epoch.layers for epoch in self._history if epoch.layers}
        looks = {0: self._first_look, **after}
        sentences = diagnostics.findings(self._prepared.network, looks)
        for sentence in sentences:
            log.warning(sentence)
        return sentences

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
            self._result = replace(self._result, **self._ending(error), seconds=self.seconds)
            try:
                self._keep_result()
            except OSError as problem:  # a full disk: MLflow hears of the failure all the same
                log.warning("no %s: %s", RESULT, first_line(problem))
                self._tell_end()

    def _ending(self, error: BaseException) -> dict[str, Any]:
        """Return what the result of a run says of the error that ended it."""
        if isinstance(error, Pruned):  # it leaves its sweep early; its checkpoint lets it go on
            self._tracker.files([self._run_context.folder.absolute() / HISTORY])
            return {
                "status": "PRUNED",
                "failure": str(error),
                "metrics": summarize(self._history, ()).metrics() if self._history else {},
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
        known = self._record  # MLflow's ids, if it has opened the run by now
        self._result = replace(self._result, experiment_id=known.experiment_id, run_id=known.run_id)
        self._result.write(self._run_context.folder)
        self._update_record(status=self._result.status)
        logs = [path.name for path in self._run_context.folder.glob("*.log")]
        self._keep_files_in_mlflow(*_KEPT, *logs)
        self._hand_over()
        self._tell_end()
        self.has_ended = True

    def _tell_end(self) -> None:
        result = self._result
        pruned = result.status == "PRUNED"  # MLflow has no word for it
        status = "FINISHED" if pruned else cast(Status, result.status)
        reason = {"pruned" if pruned else "failure": result.failure}
        self._tracker.end(status, result.seconds, **reason)

    def _close(self) -> None:
        """Close the run in MLflow, and wait for that."""
        if identity := self._tracker.identity():
            experiment_id, run_id = identity
            self._result = replace(self._result, experiment_id=experiment_id, run_id=run_id)
            try:
                self._result.write(self._run_context.folder)
                self._update_record(experiment_id=experiment_id, run_id=run_id)
            except OSError as error:  # the file stays as it was
                log.warning("%s does not name the MLflow run: %s", RESULT, first_line(error))
        self._tracker.close()


def _finals_and_bests(summary: Summary) -> dict[str, float]:
    """Return a summary's figures under the names that MLflow knows them by.

    MLflow's page of a run sorts its charts by these names: behind each set's curves, which lead.
    """
    return {
        key if "/best/" in key else key.replace("/", "/final/"): value
        for key, value in summary.metrics().items()
    }


def _predictions(prepared: Prepared, trained: Parameters) -> Predictions:
    """Return the trained network's predictions for the test set, or without one the last set."""
    part, split = list(prepared.dataset.splits())[-1]
    return Predictions.of(part, split, *prepared.predict(trained, split.images))


def _row(epoch: Epoch, at: int) -> Row:
    """Return an epoch's row in the history; ``at`` is in milliseconds since 1970."""
    return {"epoch": epoch.number, **measurements(epoch), "time": at}

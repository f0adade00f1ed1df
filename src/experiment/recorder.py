"""Keeps a run while it trains and when it ends, in its folder and in MLflow."""

import contextlib
import csv
import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from src.experiment.experiment import Prepared
from src.experiment.job import Job
from src.experiment.predictions import Predictions
from src.experiment.results import Result, Summary, measurements, summarize
from src.nn.network import Parameters
from src.nn.weights import save_weights
from src.support.errors import TargetMissed, TrainingFailed, first_line
from src.tracking.provenance import code_digest, git_tags
from src.tracking.tracker import Tracker, ending
from src.training import diagnostics
from src.training.training_run import Epoch, watched

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunContext:
    """What identifies a run: its folder, its name, and the command that asked for it."""

    folder: Path  # exists
    name: str
    overrides: Sequence[str]
    # Every resolved setting by its dotted key, and every choice by its group.
    settings: Mapping[str, Any]
    position: str = ""  # in its sweep, such as 3/64
    sweep_id: str | None = None
    varied: Sequence[str] = ()  # the settings in which the runs of its sweep differ
    stack: Sequence[int] = ()  # the numbers of the jobs trained in one stack with it, and its own
    stack_position: int | None = None  # its place among them, from 0


@dataclass(frozen=True)
class Finished:
    """A run that has finished, as Python code sees it."""

    result: Result
    summary: Summary
    history: Sequence[Epoch]
    parameters: Parameters  # trained
    predictions: Predictions


@contextlib.contextmanager
def record(job: Job, prepared: Prepared, run_context: RunContext) -> Iterator["Recorder"]:
    """Open a run and yield its recorder: give it each epoch, then call ``finish``.

    However the block ends, the run leaves its result in its folder and is closed in MLflow with
    the matching status. Several runs may be open at a time. Raises what the block raises, and the
    first error of MLflow's store when all else is done.
    """
    tracker = job.tracking.start(job.outputs, run_context.name, _tags(job, prepared, run_context))
    recorder = Recorder(job, prepared, run_context, tracker)
    try:
        with _history_file(run_context.folder / "history.csv") as keep:
            recorder.begin(keep)
            yield recorder
    except BaseException as error:
        recorder.fail(error)
        raise
    recorder.close()


def _tags(job: Job, prepared: Prepared, run_context: RunContext) -> dict[str, str]:
    """Return the tags of a run in MLflow: the user's own, and what identifies the run."""
    return {
        **{name: str(value) for name, value in job.tags.items()},
        **({"mlflow.note.content": job.note} if job.note else {}),
        "overrides": " ".join(run_context.overrides),
        "output_dir": str(run_context.folder.absolute()),
        "config_digest": job.experiment.digest,
        "data_digest": prepared.dataset.digest,
        "code_digest": code_digest(),
        **git_tags(),
        **({"sweep_id": run_context.sweep_id} if run_context.sweep_id else {}),
        **_stack_tags(run_context),
    }


def _stack_tags(run_context: RunContext) -> dict[str, str]:
    """Return with which jobs of its sweep a run was trained: they decide its last bits."""
    if not run_context.stack:
        return {}
    members = " ".join(map(str, run_context.stack))
    return {"stack": members, "stack_position": str(run_context.stack_position)}


class Recorder:
    """Keeps a run while it trains: first in its folder, then in MLflow."""

    finished: Finished

    def __init__(
        self, job: Job, prepared: Prepared, run_context: RunContext, tracker: Tracker
    ) -> None:
        self._job = job
        self._prepared = prepared
        self._run_context = run_context
        self._tracker = tracker
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

    def begin(self, keep: Callable[[Epoch], None]) -> None:
        """Keep what is known before training. ``keep`` writes an epoch to disk."""
        self._keep = keep
        run_context, tracker = self._run_context, self._tracker
        with self._timed():
            if run_context.sweep_id:
                differing = [name for name in run_context.varied if name in run_context.settings]
                tracker.sweep(run_context.sweep_id, self._job.metric, differing)
            tracker.parameters(run_context.settings)
            tracker.dataset(self._prepared.dataset)
            tracker.files(sorted(run_context.folder.glob(".hydra/*.yaml")), "config")
            if self._job.diagnose:
                tracker.metrics(diagnostics.measurements(self._first_look), 0, self.seconds)

    @functools.cached_property
    def _first_look(self) -> tuple[diagnostics.LayerState, ...]:
        """The state of the layers before training."""
        return self._prepared.inspect()

    def epoch(self, epoch: Epoch) -> None:
        """Keep an epoch: it is on disk when this returns."""
        with self._timed():
            self._keep(epoch)
        # The curve is kept, but not the weights and the progress of every epoch.
        self._history.append(replace(epoch, parameters=(), progress=None))
        if epoch.kept:
            self._trained = epoch.parameters
        self._tracker.metrics(measurements(epoch), epoch.number, self.seconds)

    def finish(self) -> None:
        """Keep the results of the training, in the folder first. Raises TargetMissed."""
        job, prepared, tracker = self._job, self._prepared, self._tracker
        folder = self._run_context.folder
        with self._timed():
            summary = summarize(self._history, self.findings())
            save_weights(folder / "weights.npz", prepared.network, self._trained)
            predictions = _predictions(prepared, self._trained)
            predictions.save(folder / "predictions.npz")
            # At step 0, since they belong to no epoch: MLflow draws them as bars with their values.
            tracker.metrics(_finals_and_bests(summary), 0, self.seconds)
            if not self._run_context.sweep_id:  # in a sweep most pictures are never looked at
                # Imported after training: Matplotlib takes half a second.
                from src.experiment.pictures.folder import draw

                pictures = draw(folder, job, prepared, self._run_context.name)
                tracker.files(pictures, "pictures")
            tracker.files([folder / "history.csv", folder / "predictions.npz"])
            experiment = job.experiment
            tracker.model(experiment.model, experiment.loss, prepared.dataset, self._trained)
        stopping = job.experiment.stopping
        scores = [epoch.scores for epoch in self._history]
        if shortfall := stopping.shortfall(watched(stopping.watch, scores)):
            raise TargetMissed(shortfall)
        self.finished = Finished(self._result, summary, self._history, self._trained, predictions)

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

    def fail(self, error: BaseException) -> None:
        """Close the run with the error that ended it."""
        status, reason = ending(error)
        findings = self.findings() if isinstance(error, TrainingFailed) else []
        self._result = replace(
            self._result,
            status=status,
            failure=reason,
            findings=findings,
            seconds=self.seconds,
        )
        try:
            self._end()
        except Exception as store_error:  # the run is ended by its own error, not by this one
            log.warning("MLflow's store failed: %s", first_line(store_error))

    def close(self) -> None:
        """Close a run that has finished. Raises the first error of MLflow's store."""
        summary = self.finished.summary
        metrics, findings = summary.metrics(), list(summary.findings)
        self._result = replace(
            self._result,
            value=metrics[self._job.metric],
            metrics=metrics,
            findings=findings,
            seconds=self.seconds,
        )
        try:
            self._end()
        except Exception as error:
            _, reason = ending(error)
            self._result = replace(self._result, status="FAILED", failure=reason)
            self._result.write(self._run_context.folder)
            raise
        result = self._result
        log.info("finished in %.1f s as MLflow run %s: %s", result.seconds, result.run_id, metrics)
        self.finished = replace(self.finished, result=result)

    def _end(self) -> None:
        """Write the result into the folder, then close the run in MLflow and wait for that."""
        folder = self._run_context.folder
        self._result.write(folder)  # whatever happens to MLflow now, the result is known
        if identity := self._tracker.identity():
            experiment_id, run_id = identity
            self._result = replace(self._result, experiment_id=experiment_id, run_id=run_id)
            self._result.write(folder)
        status: Any = self._result.status
        self._tracker.close(status, self._result.seconds, self._result.failure)


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


@contextlib.contextmanager
def _history_file(path: Path) -> Iterator[Callable[[Epoch], None]]:
    """Yield a function that writes an epoch as a line of a CSV file, at once."""
    with path.open("w", newline="", encoding="utf-8") as file:
        columns: list[str] = []

        def keep(epoch: Epoch) -> None:
            row = {"epoch": epoch.number, **measurements(epoch)}
            if not columns:
                columns.extend(row)
                csv.writer(file).writerow(columns)
            # What was not measured in an epoch stays empty.
            csv.DictWriter(file, columns).writerow(row)
            file.flush()

        yield keep

"""Keeps a run while it trains: its folder, its MLflow run and its end."""

import contextlib
import csv
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
from src.support.errors import TargetMissed, TrainingFailed, UserError
from src.tracking.provenance import code_digest, git_tags
from src.tracking.tracker import Tracker, ending
from src.training import diagnostics
from src.training.training_run import Epoch, watched

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunContext:
    """Where a run comes from: what was asked for, and what it is called."""

    folder: Path  # exists
    name: str
    overrides: Sequence[str]
    settings: Mapping[
        str, Any
    ]  # every resolved setting by its dotted key, and every choice by its group
    position: str = ""  # in its sweep, such as 3/64
    sweep_id: str | None = None
    varied: Sequence[str] = ()  # the settings in which the runs of its sweep differ
    stack: Sequence[int] = ()  # the numbers of the jobs trained in one stack with it, and its own
    stack_position: int | None = None  # its place among them, from 0


@dataclass(frozen=True)
class Finished:
    """A run that went to its end, as Python sees it."""

    result: Result
    summary: Summary
    history: Sequence[Epoch]
    parameters: Parameters  # trained
    predictions: Predictions


@contextlib.contextmanager
def record(job: Job, prepared: Prepared, run_context: RunContext) -> Iterator["Recorder"]:
    """Open a run that is fed its epochs and then finished; several may be open at a time.

    However the block ends, the run leaves its result and is closed in MLflow with the status that it deserves.
    """
    tags = {
        "overrides": " ".join(run_context.overrides),
        "output_dir": str(run_context.folder.absolute()),
        "config_digest": job.experiment.digest,
        "data_digest": prepared.dataset.digest,
        "code_digest": code_digest(),
        **git_tags(),
        **({"sweep_id": run_context.sweep_id} if run_context.sweep_id else {}),
        **_stack_tags(run_context),
    }
    with job.tracking.start(job.outputs, run_context.name, tags) as tracker:
        result = Result(
            run_context.name,
            list(run_context.overrides),
            "FINISHED",
            job.metric,
            stack=list(run_context.stack),
            stack_position=run_context.stack_position,
        )
        recorder = Recorder(job, prepared, run_context, tracker, result)
        try:
            with _history_file(run_context.folder / "history.csv") as keep:
                recorder.begin(keep)
                yield recorder
        except BaseException as error:
            status, reason = ending(error)
            findings = recorder.findings() if isinstance(error, TrainingFailed) else []
            ended = replace(
                result, status=status, failure=reason, findings=findings, seconds=recorder.seconds
            )
            _identified(ended, tracker).write(run_context.folder)
            raise
    recorder.close()


def _stack_tags(run_context: RunContext) -> dict[str, str]:
    """Return with which jobs of its sweep a run was trained: they decide its last bits."""
    if not run_context.stack:
        return {}
    members = " ".join(map(str, run_context.stack))
    return {"stack": members, "stack_position": str(run_context.stack_position)}


class Recorder:
    """Keeps a run while it trains: each epoch at once, and what came of it at the end."""

    finished: Finished

    def __init__(
        self,
        job: Job,
        prepared: Prepared,
        run_context: RunContext,
        tracker: Tracker,
        result: Result,
    ) -> None:
        self._job, self._prepared, self._origin, self._tracker, self._result = (
            job,
            prepared,
            run_context,
            tracker,
            result,
        )
        self._history: list[Epoch] = []
        self._trained = prepared.parameters
        self._keeping = 0.0  # seconds

    @property
    def seconds(self) -> float:
        """The seconds spent on the run until now."""
        return self._keeping + (self._history[-1].seconds if self._history else 0.0)

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._keeping += time.perf_counter() - start

    def begin(self, keep: Callable[[Epoch], None]) -> None:
        """Keep what the run sets out with; ``keep`` writes an epoch to disk."""
        self._keep = keep
        run_context, tracker = self._origin, self._tracker
        with self._timed():
            if run_context.sweep_id:
                differing = [name for name in run_context.varied if name in run_context.settings]
                tracker.sweep(run_context.sweep_id, self._job.metric, differing)
            tracker.parameters(run_context.settings)
            tracker.dataset(self._prepared.dataset)
            tracker.files(sorted(run_context.folder.glob(".hydra/*.yaml")), "config")
            if self._job.diagnose:
                tracker.metrics(diagnostics.measurements(self._prepared.inspect()), 0)

    def epoch(self, epoch: Epoch) -> None:
        """Keep an epoch: it is on disk when this returns."""
        with self._timed():
            self._keep(epoch)
            self._tracker.metrics(measurements(epoch), epoch.number)
        self._history.append(
            replace(epoch, parameters=(), progress=None)
        )  # the curve is kept, not every epoch's weights
        if epoch.kept:
            self._trained = epoch.parameters

    def finish(self) -> None:
        """Keep what came of the training. Raises TargetMissed."""
        job, prepared, tracker, folder = (
            self._job,
            self._prepared,
            self._tracker,
            self._origin.folder,
        )
        with self._timed():
            summary = summarize(self._history, self.findings())
            finals_and_bests = {
                key if key.startswith("best/") else f"final/{key}": value
                for key, value in summary.metrics().items()
            }
            tracker.metrics(
                finals_and_bests, 0
            )  # of no epoch: the UI draws them as bars with their numbers

            save_weights(folder / "weights.npz", prepared.network, self._trained)
            predictions = _predictions(prepared, self._trained)
            predictions.save(folder / "predictions.npz")
            if not self._origin.sweep_id:  # in a sweep most runs' pictures are never looked at
                # Imported after training: Matplotlib takes half a second.
                from src.experiment.pictures.folder import draw

                tracker.files(draw(folder, job, prepared, self._origin.name), "pictures")
            tracker.files([folder / "history.csv", folder / "predictions.npz"])
            tracker.model(
                job.experiment.model, job.experiment.loss, prepared.dataset, self._trained
            )
        stopping = job.experiment.stopping
        if shortfall := stopping.shortfall(
            watched(stopping.watch, [epoch.scores for epoch in self._history])
        ):
            raise TargetMissed(shortfall)
        self.finished = Finished(self._result, summary, self._history, self._trained, predictions)

    def findings(self) -> list[str]:
        """Return what is wrong in the layers, where somebody asked."""
        if not self._job.diagnose:
            return []
        sentences = diagnostics.findings(
            self._prepared.network, _looks(self._prepared, self._history)
        )
        for sentence in sentences:
            log.warning(sentence)
        return sentences

    def close(self) -> None:
        """Leave the result of a run that has finished."""
        summary = self.finished.summary
        metrics, findings = summary.metrics(), list(summary.findings)
        value = metrics[self._job.metric]
        result = replace(
            _identified(self._result, self._tracker),
            value=value,
            metrics=metrics,
            findings=findings,
            seconds=self.seconds,
        )
        result.write(self._origin.folder)
        log.info("finished in %.1f s as MLflow run %s: %s", result.seconds, result.run_id, metrics)
        self.finished = replace(self.finished, result=result)


def _identified(result: Result, tracker: Tracker) -> Result:
    """Return the result with the ids that MLflow knows it by, where it has become known there."""
    try:
        experiment_id, run_id = tracker.identity()
    except UserError:
        return result
    return replace(result, experiment_id=experiment_id, run_id=run_id)


def _predictions(prepared: Prepared, trained: Parameters) -> Predictions:
    """Return what the trained network says of the test set, or of the last set that there is."""
    part, split = list(prepared.dataset.splits())[-1]
    return Predictions.of(part, split, *prepared.predict(trained, split.images))


@contextlib.contextmanager
def _history_file(path: Path) -> Iterator[Callable[[Epoch], None]]:
    """Keep each epoch as a line of a CSV, on disk before it is shown: what was seen survives whatever dies."""
    with path.open("w", newline="", encoding="utf-8") as file:
        columns: list[str] = []

        def keep(epoch: Epoch) -> None:
            row = {"epoch": epoch.number, **measurements(epoch)}
            if not columns:
                columns.extend(row)
                csv.writer(file).writerow(columns)
            csv.DictWriter(file, columns).writerow(
                row
            )  # what was not measured in an epoch stays empty
            file.flush()

        yield keep


def _looks(
    prepared: Prepared, history: Sequence[Epoch]
) -> dict[int, Sequence[diagnostics.LayerState]]:
    """Return the states of the layers by epoch, from 0, the start."""
    return {
        0: prepared.inspect(),
        **{epoch.number: epoch.layers for epoch in history if epoch.layers},
    }

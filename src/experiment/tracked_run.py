"""Tells MLflow of a run what the run's folder has."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from src.experiment.experiment import Prepared
from src.experiment.history import HistoryFile
from src.experiment.job import Job
from src.experiment.results import Result, Summary
from src.experiment.run_context import RunContext
from src.experiment.run_folder import HISTORY
from src.nn.network import Parameters
from src.tracking.journal import Status
from src.tracking.tracker import Tracker


class TrackedRun:
    """A run as MLflow hears of it: its settings, its curves, its files and its end."""

    def __init__(self, tracker: Tracker, run_context: RunContext, history: HistoryFile) -> None:
        """The tracker, which was just opened, has read the rows that the history has by now."""
        self._tracker, self._run_context = tracker, run_context
        self._history, self._handed_over = history, len(history.rows)
        self._folder = run_context.folder.absolute()
        # Another machine goes on from what MLflow has: then MLflow keeps the files for that, too.
        self.is_away = run_context.away_from is not None

    def begin(self, job: Job, prepared: Prepared, opened: Callable[[str, str], None]) -> None:
        """Tell what is known before training; ``opened`` is called with MLflow's ids."""
        run_context, tracker = self._run_context, self._tracker
        tracker.when_open(opened)
        if run_context.sweep_id and not run_context.goes_on:
            differing = [name for name in run_context.varied if name in run_context.settings]
            tracker.sweep(run_context.sweep_id, job.metric, differing)
        tracker.parameters(run_context.settings)
        tracker.dataset(prepared.dataset)
        # The overrides are a tag, and what Hydra keeps beside is of no use elsewhere.
        tracker.files(sorted(self._folder.glob(".hydra/config.yaml")), "config")

    def measurements(self, values: dict[str, float], at: int) -> None:
        """Tell what belongs to no epoch; ``at`` is in milliseconds since 1970."""
        self._tracker.metrics(values, 0, at)

    def curves(self) -> None:
        """Tell the new rows of the history. MLflow keeps equal points once."""
        for row in self._history.rows[self._handed_over :]:
            values = {name: row[name] for name in row if name not in ("epoch", "time")}
            self._tracker.metrics(values, int(row["epoch"]), int(row["time"]))
        self._handed_over = len(self._history.rows)

    def files_to_go_on(self, *names: str) -> None:
        """Let MLflow keep these files if nothing else does: the folder may be lost."""
        if self.is_away:
            paths = [self._folder / name for name in names]
            self._tracker.files([path for path in paths if path.exists()])

    def history(self) -> None:
        """Let MLflow keep the history of a run that ends early."""
        self._tracker.files([self._folder / HISTORY])

    def summary(self, summary: Summary, at: int) -> None:
        """Tell the kept and the best scores; ``at`` is in milliseconds since 1970."""
        # At step 0, since they belong to no epoch: MLflow draws them as bars with their values.
        self.measurements(_finals_and_bests(summary), at)

    def results(self, job: Job, prepared: Prepared, trained: Parameters) -> None:
        """Let MLflow keep the results of the training, whose files are in the folder."""
        self._tracker.files([self._folder / HISTORY, self._folder / "predictions.npz"])
        # A sweep logs its best run when it ends, unless the weights are on another machine.
        if not self._run_context.sweep_id or self.is_away or job.tracking.models == "all":
            chosen, weights = job.experiment, self._folder / "weights.npz"
            self._tracker.model(chosen.model, chosen.loss, prepared.dataset, trained, weights)

    def pictures(self, paths: Sequence[Path]) -> None:
        """Let MLflow keep pictures."""
        self._tracker.files(paths, "pictures")

    def end(self, result: Result) -> None:
        """Tell how the run has ended."""
        pruned = result.status == "PRUNED"  # MLflow has no word for it
        status = "FINISHED" if pruned else cast(Status, result.status)
        reason = {"pruned" if pruned else "failure": result.failure}
        self._tracker.end(status, result.seconds, **reason)

    def identity(self) -> tuple[str, str] | None:
        """Return MLflow's ids of the experiment and of the run, or None if the store is away."""
        return self._tracker.identity()

    def close(self) -> None:
        """Close the run in MLflow, and wait for that."""
        self._tracker.close()


def _finals_and_bests(summary: Summary) -> dict[str, float]:
    """Return a summary's figures under the names that MLflow knows them by.

    MLflow's page of a run sorts its charts by these names: behind each set's curves, which lead.
    """
    return {
        key if "/best/" in key else key.replace("/", "/final/"): value
        for key, value in summary.metrics().items()
    }

"""The summary of a sweep: what its driver writes down, and the run of its own that MLflow shows."""

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from src.support.errors import DataError, in_one_line
from src.support.files import write_whole
from src.support.sealed import read_sealed, sealed
from src.support.serialization import check_types
from src.tracking.errors import is_local, one_line, refuses
from src.tracking.search import KIND, SWEEP
from src.tracking.told import SUMMARY, Told, ids
from src.tracking.upload import cut, state
from src.tracking.view import best_view

if TYPE_CHECKING:
    from mlflow import MlflowClient

REPORT, LEADERBOARD, PLAN = "report.html", "leaderboard.json", "plan.json"
_FILES = (REPORT, LEADERBOARD, PLAN)
# By this tag MLflow's UI knows which artifacts are tables. Its own log_table would append to the
# table of a sweep that goes on.
_TABLES = "mlflow.loggedArtifacts"


@dataclass(frozen=True)
class SweepSummary:
    """What MLflow shows of a sweep as a whole: ``summary.json`` in its folder."""

    sweep_id: str
    note: str
    metric: str  # that ranks the configurations
    settings: Sequence[str]  # in which they differ
    # The folders of each configuration's runs within the sweep's, the best configuration first.
    configurations: Sequence[Sequence[str]]
    best: str | None  # the folder of the run that is logged as a model
    seconds: float
    started: int = field(default_factory=lambda: int(time.time() * 1000))
    key: str = field(default_factory=lambda: secrets.token_hex(16))

    def write(self, folder: Path) -> None:
        """Write the summary into the sweep's folder. One that goes on keeps its run in MLflow."""
        known = SweepSummary.find(folder)
        values = asdict(self) | ({"key": known.key, "started": known.started} if known else {})
        write_whole(folder / SUMMARY, sealed(values))

    @staticmethod
    def load(folder: Path) -> "SweepSummary":
        """Return the summary in a sweep's folder. Raises DataError if it is damaged."""
        path = folder / SUMMARY
        try:
            summary = SweepSummary(**read_sealed(path))
            check_types(summary)
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{path}: not the summary of a sweep ({in_one_line(error)})") from None
        return summary

    @staticmethod
    def find(folder: Path) -> "SweepSummary | None":
        """Return the summary in a folder, or None if it holds no sound one."""
        try:
            return SweepSummary.load(folder)
        except DataError:
            return None


def is_best(folder: Path) -> bool:
    """Return whether the run in a folder is the one of its sweep that is logged as a model."""
    summary = SweepSummary.find(folder.parent)
    return summary is not None and summary.best == folder.name


class SummaryUpload:
    """The summary of a sweep on its way to MLflow."""

    has_ended, is_best = True, False
    views: Mapping[str, str] = {}

    def __init__(self, folder: Path) -> None:
        """Raises DataError if the folder holds no sound summary."""
        self.folder, self._summary = folder, SweepSummary.load(folder)
        self.told = Told.load(folder)
        self.lacking: dict[str, str] = {}
        self._is_told = False

    @property
    def has_news(self) -> bool:
        """Whether something is there that MLflow does not have."""
        return not self.is_done

    @property
    def is_done(self) -> bool:
        """Whether nothing can be told at present."""
        return self._is_told or bool(self.lacking)

    def advance(
        self,
        client: "MlflowClient",
        experiment_id: str,
        died: tuple[str, str] | None = None,
        heard: Callable[[], None] = lambda: None,
    ) -> None:
        """Tell what MLflow does not have. See ``Upload.advance``."""
        try:
            self._advance(client, experiment_id)
        except Exception as error:
            if not (refuses(error) or is_local(error)):
                raise
            self.lacking["summary"] = one_line(error)
        heard()
        self.told.is_complete = self._is_told = not self.lacking
        self.told.write(self.folder)

    def _advance(self, client: "MlflowClient", experiment_id: str) -> None:
        from mlflow.entities import RunTag

        summary = self._summary
        tags = {
            KIND: SWEEP,
            "summary_of": summary.sweep_id,  # not sweep_id: it is none of the sweep's runs
            "output_dir": str(self.folder.absolute()),
            "mlflow.note.content": cut(summary.note),
            _TABLES: json.dumps([{"path": LEADERBOARD, "type": "table"}]),
            "key": summary.key,
        }
        found = client.search_runs([experiment_id], f"tags.key = '{summary.key}'", max_results=1)
        run = next(iter(found), None) or client.create_run(
            experiment_id, summary.started, tags, run_name=f"sweep {summary.sweep_id}"
        )
        if (self.told.key, self.told.run_id) != (summary.key, run.info.run_id):
            self.told = Told(summary.key, experiment_id=experiment_id, run_id=run.info.run_id)
        told = self.told
        client.log_batch(run.info.run_id, tags=[RunTag(*tag) for tag in tags.items()])
        for name in _FILES:
            found_state = state(self.folder, name)
            if found_state and told.files.get(name) != found_state:
                client.log_artifact(run.info.run_id, str(self.folder / name))
                told.files[name] = found_state
        known = [
            [own[1] for name in names if (own := ids(self.folder / name))]
            for names in summary.configurations
        ]
        views = best_view(summary.sweep_id, summary.metric, summary.settings, known)
        for key, value in views.items():
            client.set_experiment_tag(experiment_id, key, value)
        end = summary.started + int(1000 * summary.seconds)
        client.set_terminated(run.info.run_id, "FINISHED", end)
        told.status = "FINISHED"

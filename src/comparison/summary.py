"""Keeps the summary of a sweep: the report in its folder, and a run of its own in MLflow."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from src.comparison.page import write_page
from src.support.files import write_whole
from src.sweep.plan import PLAN
from src.tracking.search import KIND, SWEEP
from src.tracking.settings import Tracking
from src.tracking.view import best_view

if TYPE_CHECKING:
    from src.comparison.comparison import Comparison

REPORT, LEADERBOARD = "report.html", "leaderboard.json"
_KNOWN = "summary.json"  # which run in MLflow holds the summary
# By this tag MLflow's UI knows which artifacts are tables. Its own log_table would append to the
# table of a sweep that goes on.
_TABLES = "mlflow.loggedArtifacts"


def write_summary(comparison: "Comparison", folder: Path) -> Path:
    """Write the report and the leaderboard into a sweep's folder; return the report's path."""
    report = folder / REPORT
    write_page(comparison, report)
    first = [*comparison.differing, "mean", "low", "high", "n", "test_mean", "tied"]
    frame = comparison.configurations.drop(columns="group")
    table = frame[[*first, *(name for name in frame if name not in first)]].reset_index()
    write_whole(folder / LEADERBOARD, table.to_json(orient="split", index=False, indent=1).encode())
    return report


def track_summary(
    comparison: "Comparison", folder: Path, sweep_id: str, tracking: Tracking, outputs: Path
) -> tuple[str, str] | None:
    """Keep the summary in MLflow; return the ids of the experiment and of the run, if it is there.

    A sweep that goes on keeps its run. If the store is away, ``python -m src.sync`` does it later.
    """
    tags = {
        KIND: SWEEP,
        "summary_of": sweep_id,  # not sweep_id: it is none of the sweep's runs
        "output_dir": str(folder.absolute()),
        "mlflow.note.content": "\n\n".join([*comparison.answer, *comparison.notes]),
        _TABLES: json.dumps([{"path": LEADERBOARD, "type": "table"}]),
    }
    known = _known(folder)
    tracker = tracking.start(outputs, f"sweep {sweep_id}", tags, known, folder.absolute())
    names = (REPORT, LEADERBOARD, PLAN)
    tracker.files([folder.absolute() / name for name in names if (folder / name).exists()])
    runs = comparison.runs[comparison.runs["run_id"] != ""]
    of_configurations = runs.groupby("configuration", sort=False)["run_id"].agg(list)
    views = best_view(sweep_id, comparison.metric, comparison.differing, list(of_configurations))
    tracker.views(views)
    tracker.end("FINISHED", float(comparison.runs["seconds"].sum()))
    identity = tracker.identity()
    tracker.close()
    if identity:
        write_whole(folder / _KNOWN, json.dumps({"run_id": identity[1]}).encode())
    return identity


def _known(folder: Path) -> str | None:
    """Return the run in MLflow that holds the summary already."""
    try:
        known = json.loads((folder / _KNOWN).read_text(encoding="utf-8"))
        return str(known["run_id"])
    except (OSError, ValueError, TypeError, KeyError):
        return None

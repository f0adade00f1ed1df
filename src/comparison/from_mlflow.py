"""Reads kept runs from MLflow: from their folders where these exist, else from what MLflow has."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from src.comparison.kept import KeptRun, read_folder
from src.runs.folder import RUN
from src.support.errors import DataError
from src.tracking.search import FoundRun, Search

if TYPE_CHECKING:
    import pandas as pd

# Of runs whose curves only MLflow has, these are read.
_CURVES = [f"{part}/{score}" for part in ("train", "val", "test") for score in ("loss", "accuracy")]
_COUNTS = ["updates", "samples", "seconds"]


def runs_in_mlflow(search: Search, search_filter: str = "") -> list[KeptRun]:
    """Return the runs that a filter finds in an experiment, in the order of their start.

    Raises UserError if MLflow refuses the filter, and DataError if it finds no run.
    """
    found = search.runs(search_filter)
    if not found:
        said = f" that fit --filter {search_filter}" if search_filter else ""
        raise DataError(f"MLflow's experiment holds no runs{said}: see them with make ui")
    return [_own(run) or _kept(run) for run in found]


def _own(run: FoundRun) -> KeptRun | None:
    """Return the run in the folder that MLflow names, if it is that run."""
    folder = Path(run.tags.get("output_dir", ""))
    if "output_dir" not in run.tags or not (folder / RUN).exists():
        return None
    try:
        own = read_folder(folder)
    except DataError:
        return None
    return own if own.run_id == run.run_id else None


def _kept(run: FoundRun) -> KeptRun:
    tags, status = run.tags, run.status
    if "pruned" in tags and status == "FINISHED":
        status = "PRUNED"
    finals = {key.replace("/final/", "/"): v for key, v in run.metrics.items() if "/final/" in key}
    epochs = tags.get("epochs", run.parameters.get("epochs", ""))
    return KeptRun(
        name=run.name,
        settings=run.parameters,
        status=status,
        failure=tags.get("failure"),
        metrics={**run.metrics, **finals},
        seconds=run.seconds,
        epochs=int(epochs) if epochs.isdecimal() else None,
        started=run.start,
        sweep_id=tags.get("sweep_id"),
        run_id=run.run_id,
        experiment_id=run.experiment_id,
        sizes=_sizes(tags.get("sizes", "")),
        data=tags.get("data_digest", ""),
        code=tags.get("code_digest", ""),
        files=run.files,
        is_ours="config_digest" in tags,
    )


def _sizes(text: str) -> dict[str, int]:
    """Return the samples of each set, from ``train=1077 val=360``."""
    pairs = (part.partition("=") for part in text.split())
    return {name: int(number) for name, _, number in pairs if number.isdecimal()}


def curves_in_mlflow(search: Search, runs: Sequence[KeptRun]) -> "pd.DataFrame":
    """Return the epochs of runs of which only MLflow has the curves; ``run`` is their number.

    What a run did not log is NaN.
    """
    import pandas as pd

    wanted = {
        run.run_id: [key for key in [*_CURVES, *_COUNTS] if key in run.metrics]
        for run in runs
        if run.run_id and run.history is None
    }
    curves = search.curves(wanted)
    frames = []
    for number, run in enumerate(runs):
        if own := curves.get(run.run_id):
            frame = pd.DataFrame(own).rename_axis("epoch").sort_index().reset_index()
            frame.insert(0, "run", number)
            frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame({"run": []})

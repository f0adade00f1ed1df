"""Tells MLflow what it missed of runs, because it was away or not used, and logs their networks."""

from src.support import signals

if __name__ == "__main__":  # the imports below take a second, and show no traceback of a signal
    signals.leave_at_once_on_signals()

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from src.runs.folder import RUN, WEIGHTS
from src.runs.record import Record, status
from src.runs.tracking import Tracking
from src.support.errors import InvalidValue, UserError
from src.support.masking import mask
from src.support.paths import CONF
from src.terminal import report
from src.terminal.ending import ending_in_order
from src.tracking.links import run_link
from src.tracking.told import Told, pending


def main() -> None:
    """Upload the runs of the folders given, by default all under the outputs folder.

    Exits with 1 if MLflow still misses something, with 2 if a folder does not exist.
    """
    with ending_in_order():
        _main()


def _main() -> None:
    """Upload what is pending. Raises what a signal raises."""
    parser = argparse.ArgumentParser(
        prog="python -m src.sync",
        description="Tell MLflow what it missed of runs: after an outage, after "
        "tracking.offline=true, or because their process and its mirror died.",
    )
    parser.add_argument(
        "folders",
        nargs="*",
        type=Path,
        metavar="FOLDER",
        help="of a run, or one that holds runs at any depth; by default the outputs folder",
    )
    parser.add_argument(
        "--outputs",
        type=Path,
        metavar="FOLDER",
        default=Path(OmegaConf.load(CONF / "config.yaml").outputs),
        help="the folder that holds the database, unless MLFLOW_TRACKING_URI names a store",
    )
    parser.add_argument(
        "--model",
        action="store_true",
        help="also log the networks of these runs as models; a sweep logs that of its best run",
    )
    chosen = parser.parse_args()
    folders: Sequence[Path] = chosen.folders or [chosen.outputs]
    for folder in folders:
        if chosen.folders and not folder.is_dir():
            report.problem(f"{folder}: no such folder; give the folder of a run")
            sys.exit(2)
    if chosen.model and not chosen.folders:
        parser.error("--model: name the folders of the runs")
    found = list(folders) if chosen.model else pending(folders)
    if not found:
        report.fact("sync", "MLflow has everything")
    done = [_sync(folder, chosen.outputs, model=chosen.model) for folder in found]
    if not all(done):
        sys.exit(1)


def _sync(folder: Path, outputs: Path, *, model: bool) -> bool:
    """Upload a run and tell about it; return whether MLflow has everything."""
    from src.tracking.mirror import tell

    try:
        if model and not (status(folder) == "FINISHED" and (folder / WEIGHTS).exists()):
            raise UserError(
                f"{folder}: holds no weights.npz of a run that has finished: only the network of "
                "a finished run can be logged"
            )
        had_model = Told.load(folder).has_model
        tracking = _tracking(folder)
        told, refused = tell(folder, tracking, outputs, wants_model=model)
    except UserError as error:
        report.problem(str(error))
        return False
    report.fact("folder", str(folder))
    if told.experiment_id and told.run_id:
        link = run_link(tracking.store(outputs), told.experiment_id, told.run_id)
        report.fact("MLflow", link)
    if model and told.has_model:
        report.fact("model", f"{folder}: {'was logged before' if had_model else 'logged'}")
    if refused:
        report.problem(f"{folder}: MLflow refuses a part of the run: {refused}")
    return not refused


def _tracking(folder: Path) -> Tracking:
    """Return the store of this command, and the experiment that a run was meant for.

    Raises UserError if the store can't be opened.
    """
    settings = OmegaConf.load(CONF / "tracking" / "local.yaml")
    experiment = settings.experiment
    if (folder / RUN).exists():
        experiment = Record.load(folder).settings.get("tracking.experiment", experiment)
    uri = os.environ.get("MLFLOW_TRACKING_URI") or None
    try:
        return Tracking(uri, experiment)
    except InvalidValue as error:
        raise UserError(f"MLFLOW_TRACKING_URI={mask(str(uri))}: {error.rule}") from None


if __name__ == "__main__":
    main()

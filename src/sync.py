"""Tells MLflow what it missed of runs, because it was away or not used, and logs their networks."""

from src.support import signals

if __name__ == "__main__":  # the imports below take a second, and show no traceback of a signal
    signals.leave_at_once_on_signals()

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from src.support.errors import UserError
from src.support.paths import CONF
from src.terminal import report
from src.terminal.ending import ending_in_order
from src.tracking.journal import pending
from src.tracking.links import run_link
from src.tracking.sync import sync


def log_network(folder: Path) -> bool:
    """Log the network of a finished run to MLflow, as a model that can be loaded and served.

    Returns False if the run has one already. Raises UserError if the folder is not that of a
    finished run which MLflow knows, or the store refuses the model.
    """
    from src.config.kept_configuration import check_kept
    from src.experiment.results import RESULT, Result
    from src.tracking.kept_run import add_model, require_store
    from src.tracking.model import describe

    job, prepared = check_kept(folder)
    result = Result.load(folder) if (folder / RESULT).exists() else None
    weights = folder / "weights.npz"
    if result is None or result.run_id is None or not weights.exists():
        raise UserError(
            f"{folder}: holds no result.json with the run's id in MLflow, or no weights.npz: "
            "only the network of a finished run can be logged"
        )
    chosen, tracking = job.experiment, job.tracking
    require_store(
        tracking.store(job.outputs), "give this command where the run was started, in that folder"
    )
    client, _ = tracking.open(job.outputs)
    network = describe(chosen.model, chosen.loss, prepared.dataset, prepared.parameters)
    return add_model(client, result.run_id, network, weights)


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
        "tracking.offline=true, or because their process died.",
    )
    parser.add_argument(
        "folders",
        nargs="*",
        type=Path,
        metavar="FOLDER",
        help="of a run, or one that holds runs at any depth; by default the outputs folder",
    )
    parser.add_argument(
        "--model",
        action="store_true",
        help="also log the networks of these runs as models; a sweep logs that of its best run",
    )
    chosen = parser.parse_args()
    default = Path(OmegaConf.load(CONF / "config.yaml").outputs)
    folders: Sequence[Path] = chosen.folders or [default]
    for folder in folders:
        if chosen.folders and not folder.is_dir():
            report.problem(f"{folder}: no such folder; give the folder of a run")
            sys.exit(2)
    if chosen.model and not chosen.folders:
        parser.error("--model: name the folders of the runs")
    found = pending(folders)
    if not found:
        report.fact("sync", "MLflow has everything")
    done = [_sync(folder) for folder in found]
    if chosen.model:
        done += [_log_network(folder) for folder in folders]
    if not all(done):
        sys.exit(1)


def _sync(folder: Path) -> bool:
    """Upload a run and tell about it; return whether MLflow has everything."""
    try:
        synced = sync(folder)
    except UserError as error:
        report.problem(str(error))
        return False
    if synced is None:  # another process was faster
        return True
    report.fact("folder", str(folder))
    report.fact("MLflow", run_link(synced.store, synced.experiment_id, synced.run_id))
    if synced.refused:
        report.problem(f"{folder}: MLflow refuses a part of the run: {synced.refused}")
    return not synced.refused


def _log_network(folder: Path) -> bool:
    """Log the network of a run, tell about it, and return whether MLflow has it."""
    try:
        is_new = log_network(folder)
    except UserError as error:
        report.problem(str(error))
        return False
    report.fact("model", f"{folder}: {'logged' if is_new else 'was logged before'}")
    return True


if __name__ == "__main__":
    main()

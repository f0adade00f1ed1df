"""Draws the pictures of any run, finished or not: ``python -m src.pictures --help``."""

from src.support import signals

if __name__ == "__main__":  # the imports below take a second, and show no traceback of a signal
    signals.leave_at_once_on_signals()

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from src.support.errors import UserError

# Everything heavy is imported where it is used: --help must not wait for it.
if TYPE_CHECKING:
    from src.runs.tracking import Tracking


def draw_run(folder: Path, *, samples: Sequence[int] = (), into: Path | None = None) -> list[Path]:
    """Draw the pictures of a run from what it left in its folder; return the files written.

    A run that failed or still trains lacks some files: what can be drawn without them is drawn. The
    data is read from where the run's configuration says. Relative paths in it start from the
    current folder, as they did when the run began.

    Args:
        folder: Of the run; it holds ``.hydra/config.yaml``.
        samples: Numbers of samples in the test set, drawn with the probabilities of their classes.
        into: The folder of the pictures, made if it is new; by default that of the run.

    Raises:
        UserError: The folder is not a run's, its data is gone or has changed, a sample does not
            exist, or the pictures cannot be written.
    """
    from src.config.kept_configuration import check_kept
    from src.runs.folder import RUN
    from src.runs.pictures.folder import draw
    from src.runs.record import Record

    job, prepared = check_kept(folder)
    name = Record.load(folder).name if (folder / RUN).exists() else job.name or folder.name
    into = into or folder
    try:
        into.mkdir(parents=True, exist_ok=True)
        paths = draw(folder, job, prepared, name, samples=samples, into=into)
    except OSError as error:
        raise UserError(
            f"{into}: cannot be written to ({error.strerror}): --into names another folder"
        ) from None
    return paths


def _log(folder: Path, outputs: Path, paths: Sequence[Path]) -> None:
    """Log pictures to a run in MLflow. Raises UserError if it does not have the run."""
    from src.tracking.kept_run import add_files, require_store
    from src.tracking.store import open_tracking
    from src.tracking.told import ids

    known = ids(folder)
    if known is None:
        raise UserError(
            f"{folder}: MLflow does not have this run: python -m src.sync {folder} uploads it; "
            "or leave out --log"
        )
    tracking = _tracking()
    require_store(tracking.store(outputs))
    add_files(open_tracking(tracking, outputs)[0], known[1], paths, "pictures")


def _tracking() -> "Tracking":
    from src.config.composition import compose, composer
    from src.config.reader import read

    with composer():
        return read(compose([])).tracking


def find_run(run: str, outputs: Path) -> Path:
    """Return the folder of a run that is named by its folder or by its id in MLflow.

    Raises UserError if there is none.
    """
    if Path(run).is_dir():
        return Path(run)
    if not _is_run_id(run):
        raise UserError(
            f"{run}: there is no such folder: give the folder of a run or its id in MLflow"
        )
    from src.tracking.kept_run import folder_of, require_store
    from src.tracking.store import open_tracking

    tracking = _tracking()
    require_store(tracking.store(outputs))
    return folder_of(open_tracking(tracking, outputs)[0], run)


def _is_run_id(text: str) -> bool:
    return len(text) == 32 and set(text) <= set("0123456789abcdef")


def main() -> None:
    """Draw the pictures of the runs named. Exit codes: 0 drawn, 2 not all could be drawn."""
    chosen = _parser().parse_args()
    from src.terminal.ending import ending_in_order

    with ending_in_order():
        drawn = [_draw(run, chosen) for run in chosen.runs]
    sys.exit(0 if all(drawn) else 2)


def _draw(run: str, chosen: argparse.Namespace) -> bool:
    """Draw the pictures of a run; return whether they could be drawn."""
    from src.terminal import report

    try:
        folder = find_run(run, chosen.outputs)
        into = chosen.into
        if into and len(chosen.runs) > 1:  # one folder per run, named as in outputs
            into = into / folder.absolute().parent.name / folder.absolute().name
        paths = draw_run(folder, samples=chosen.samples, into=into)
        if chosen.log:
            _log(folder, chosen.outputs, paths)
        if chosen.samples:
            _show_samples(folder, chosen.samples)
    except UserError as error:
        report.problem(str(error))
        return False
    for path in paths:
        report.fact("picture", str(path))
    return True


def _show_samples(folder: Path, samples: Sequence[int]) -> None:
    """Show the predictions of samples, one line each."""
    from src.runs.predictions import Predictions
    from src.terminal import report

    kept = Predictions.load(folder / "predictions.npz")
    for number in samples:
        predicted, label = kept.predicted[number], kept.labels[number]
        verdict = "correct" if predicted == label else f"wrong, it is {label}"
        probability = kept.probabilities[number, predicted]
        report.fact(f"{kept.part} {number}", f"{predicted} with {probability:.1%}: {verdict}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m src.pictures",
        description="Draw the pictures of runs: training samples, curves, confusion matrix, "
        "predictions, first-layer weights, and layers where they were diagnosed. "
        "A run that failed or still trains gets those that can be drawn.",
        epilog="exit codes: 0 all drawn, 2 a run, its data or an argument is wrong",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="the folder of a run, or its id in MLflow"
    )
    parser.add_argument(
        "--outputs",
        type=Path,
        default=Path("outputs"),
        metavar="FOLDER",
        help="where the MLflow store is in which an id is looked up (default: outputs)",
    )
    parser.add_argument(
        "--samples",
        type=_numbers,
        default=(),
        metavar="N,N",
        help="also draw these samples of the test set with their probabilities, such as 0,100,17",
    )
    parser.add_argument(
        "--into",
        type=Path,
        metavar="FOLDER",
        help="where the pictures go (default: the run's folder); one folder per run for several",
    )
    parser.add_argument("--log", action="store_true", help="log the pictures to MLflow, too")
    return parser


def _numbers(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(
            f"{text} is not a list of sample numbers: give whole numbers such as 0,100,17"
        )
    return tuple(int(part) for part in parts)


if __name__ == "__main__":
    main()

"""Compares kept runs: which configuration is better, by how much, how surely and why.

``python -m src.compare --help`` shows the command line; from Python, ``Comparison`` gives frames.
"""

import gc

from src.support import signals

if __name__ == "__main__":  # the imports below take a second, and show no traceback of a signal
    signals.leave_at_once_on_signals()
    # Nearly all that a comparison makes, it keeps to its end: to look for garbage again and again
    # takes as long as everything else.
    gc.disable()

import argparse
from collections.abc import Sequence
from pathlib import Path

from src.comparison.comparison import Comparison
from src.support.errors import ConfigError, DataError, UserError

__all__ = ["Comparison", "latest", "main"]

_SWEEPS, _RUNS = "sweeps", "runs"


def latest(outputs: Path) -> list[Path]:
    """Return what is compared by default: the latest sweep in outputs, else all single runs.

    Raises DataError if there is neither.
    """
    from src.sweep.plan import PLAN

    sweeps = sorted(outputs.glob(f"{_SWEEPS}/*/{PLAN}"), key=lambda path: path.stat().st_mtime)
    if sweeps:
        return [sweeps[-1].parent]
    if any((outputs / _RUNS).glob("*/run.json")):
        return [outputs / _RUNS]
    raise DataError(
        f"{outputs}: holds no runs: train some with python -m src.run -m lr=0.03,0.1 "
        "'seed=range(3)', or name their folder"
    )


def _places(given: Sequence[str], outputs: Path) -> list[Path]:
    """Return the folders that are named by their paths, or as sweeps in outputs by their ids."""
    places = []
    for name in given:
        known = [Path(name), outputs / _SWEEPS / name, outputs / _RUNS / name]
        found = next((path for path in known if path.is_dir()), None)
        if found is None:
            raise DataError(
                f"{name}: no such folder, and no sweep in {outputs / _SWEEPS}: "
                "give the folder of a sweep, of a run, or one that holds runs"
            )
        places.append(found)
    return places


def main() -> None:
    """Compare the runs named. Exit codes: 0 compared, 2 a run or an argument is wrong."""
    chosen = _parser().parse_args()
    from src.terminal.ending import ending_in_order

    with ending_in_order():
        _compare(chosen)


def _compare(chosen: argparse.Namespace) -> None:
    from src.terminal import report

    if chosen.filter is not None or chosen.experiment is not None:
        if chosen.sweeps:
            raise ConfigError(
                f"{chosen.sweeps[0]}: a folder is read without MLflow: leave out --filter and "
                "--experiment, or the folder"
            )
        experiment = chosen.experiment or "scratchgrid"
        comparison = Comparison.find(
            chosen.filter or "", chosen.outputs, experiment, chosen.metric, chosen.at
        )
        report.fact("compared", f"{len(comparison.kept)} runs of MLflow's experiment {experiment}")
        places = [Path()]
    else:
        places = _places(chosen.sweeps, chosen.outputs) or latest(chosen.outputs)
        comparison = Comparison.read(places, chosen.metric, chosen.at)
        named = "" if chosen.sweeps else "  (the latest; name others, or outputs for all runs)"
        runs = f"{len(comparison.kept)} runs"
        report.fact("compared", f"{runs} in {', '.join(map(str, places))}{named}")
    if chosen.pair:
        _pair(comparison, chosen.pair, chosen.picture, places)
    else:
        report.comparison_table(comparison)
        report.comparison_answer(comparison)
        report.comparison_details(comparison)
    if chosen.csv:
        _write_csv(comparison, chosen.csv)
        report.fact("csv", str(chosen.csv))
    if chosen.html:
        from src.comparison.page import write_page

        write_page(comparison, chosen.html)
        report.fact("report", str(chosen.html))


def _pair(
    comparison: Comparison, pair: Sequence[str], picture: Path | None, places: Sequence[Path]
) -> None:
    """Show two configurations or runs compared, and draw the samples on which they disagree."""
    from src.terminal import report

    a, b = pair
    report.comparison_pair(
        comparison.pair(a, b), comparison.metric, comparison.says(a), comparison.says(b)
    )
    path = picture or (places[0] if len(places) == 1 else Path()) / "disagreement.png"
    drawn = comparison.draw_disagreement(a, b, path)
    if drawn:
        report.fact("picture", f"{path}: {drawn}")
    else:
        report.fact("picture", "none: they agree on all samples, or the images are not at hand")


def _write_csv(comparison: Comparison, path: Path) -> None:
    """Write the configurations as CSV. Raises UserError if the file can't be written."""
    from src.support.files import write_whole

    try:
        frame = comparison.configurations.drop(columns="group")
        write_whole(path, frame.to_csv().encode())
    except OSError as error:
        raise UserError(f"--csv {path}: can't be written ({error.strerror})") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m src.compare",
        description="Compare configurations, whose seeds are replicates: a table, which is best "
        "and how surely, what matters and why. By default, the latest sweep is compared.",
        epilog="exit codes: 0 compared, 2 a run or an argument is wrong",
    )
    parser.add_argument(
        "sweeps",
        nargs="*",
        metavar="SWEEP",
        help="the folder of a sweep or of a run, one that holds such folders, or a sweep_id",
    )
    parser.add_argument(
        "--filter",
        metavar="FILTER",
        help="compare the runs that MLflow finds, such as \"params.model = 'relu2'\"",
    )
    parser.add_argument(
        "--experiment",
        metavar="NAME",
        help="compare the runs of this experiment in MLflow (with --filter: scratchgrid)",
    )
    parser.add_argument("--metric", help="that decides, such as val/loss (default: the runs' own)")
    parser.add_argument(
        "--at",
        metavar="BUDGET",
        help="compare at epochs=N, updates=N, samples=N or seconds=N instead of at the end",
    )
    parser.add_argument(
        "--pair",
        nargs=2,
        metavar=("A", "B"),
        help="compare two configurations, such as C1 C4, or two runs by their folders",
    )
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="where --pair draws (default: in the folder)"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table as CSV")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the report as one page")
    parser.add_argument(
        "--outputs",
        type=Path,
        default=Path("outputs"),
        metavar="FOLDER",
        help="where sweeps and the MLflow store are (default: outputs)",
    )
    return parser


if __name__ == "__main__":
    main()

"""The command: measures what is asked for, shows it and keeps it."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from src.support.threads import available_cores
from tests.benchmarks import ours, peers
from tests.benchmarks.images import Images, load
from tests.benchmarks.measuring import Runner, Times, machine, measure, peak
from tests.benchmarks.reporting import Report
from tests.benchmarks.works import ALONE, ONE_CORE, OURS, PEERS, PLAIN, WORKS, Work

_QUICK = 128  # samples: a whole number of every batch
_OURS = {
    OURS: ours.chosen,
    PLAIN: ours.plain,
    ALONE: ours.one_after_another,
    ONE_CORE: ours.one_core,
}


def main() -> None:
    """Time a training pass of ours, PyTorch, scikit-learn and JAX, where they are installed."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=main.__doc__)
    parser.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="medians are over so many (default: 5)"
    )
    parser.add_argument(
        "--only", default="", metavar="SUBSTRING", help="rows with this in their name"
    )
    parser.add_argument(
        "--peers", nargs="*", default=PEERS, choices=PEERS, help="beside whom (default: all)"
    )
    parser.add_argument("--outputs", type=Path, default=Path("outputs/bench"), metavar="FOLDER")
    parser.add_argument(
        "--quick", action="store_true", help="a few samples each, to see that it works"
    )
    asked = parser.parse_args()
    works = [work for work in WORKS if asked.only in work.name]
    if not works:
        parser.error(
            f"no row has {asked.only} in its name; there are\n"
            + "\n".join(work.name for work in WORKS)
        )
    if asked.rounds < 1:
        parser.error("--rounds must be 1 or more")
    if asked.quick:
        works = [replace(work, samples=_QUICK, few=_QUICK) for work in works]

    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=200)
    conditions = machine()  # before: the load is that of others
    images = load()
    there = [peer for peer in asked.peers if peers.is_installed(peer)]
    cores = sorted({1, available_cores()})
    peaks = {threads: peak(threads, asked.quick) for threads in cores}
    found = {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
    )
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        task = progress.add_task("", total=len(works))
        for work in works:
            found[work] = _row(
                work, images, there, asked, lambda text: progress.update(task, description=text)
            )
            progress.advance(task)
    missing = [peer for peer in asked.peers if peer not in there]
    report = Report(found, images.name, peaks, conditions, missing, asked.quick)
    report.show(console)
    report.save(asked.outputs)
    console.print(f"kept in {asked.outputs}")


def _row(
    work: Work,
    images: Images,
    there: Sequence[str],
    asked: argparse.Namespace,
    tick: Callable[[str], None],
) -> Times:
    """Make all who can do this work, and time them."""
    makers = {**_OURS, **{peer: peers.MAKERS[peer] for peer in there}}
    runners: dict[str, Runner] = {}
    for who, make in makers.items():
        runner = make(work, images)
        if runner:
            runners[who] = runner
    return measure(runners, asked.rounds, asked.quick, lambda who: tick(f"{work.name}: {who}"))


if __name__ == "__main__":
    main()

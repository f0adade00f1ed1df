"""The command: simulates sweeps on many workers, reads finished ones, or has many processes log."""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.scale.measured import measure
from tests.scale.simulation import Outcome, Stages, Sweep, Workers, simulate
from tests.scale.writers import server, write

_COUNTS = (10, 100, 1_000, 10_000)


def main() -> None:
    """Ask how far a sweep scales."""
    parser = argparse.ArgumentParser(prog="python -m tests.scale", description=main.__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_simulate(commands.add_parser("simulate", help="a sweep on 10 to 10,000 workers"))
    _add_agree(commands.add_parser("agree", help="finished sweeps beside their simulation"))
    _add_scheduler(commands.add_parser("scheduler", help="what Dask takes for a task"))
    _add_writers(commands.add_parser("writers", help="many processes that log to one server"))
    chosen = parser.parse_args()
    chosen.act(chosen)


def _add_simulate(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(act=_simulate)
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--together", type=int, default=32, help="runs in a group")
    parser.add_argument("--seconds", type=float, default=60.0, help="that a group trains")
    parser.add_argument("--spread", type=float, default=0.2, help="of these, as a share")
    parser.add_argument("--lifetime", type=float, default=4.0, help="mean hours of a worker")
    parser.add_argument("--driver", type=float, default=3.0, help="ms for each job")
    parser.add_argument("--scheduler", type=float, default=1.0, help="ms for each group")
    parser.add_argument("--gap", type=float, default=0.5, help="s between two groups of a worker")
    parser.add_argument("--database", type=float, default=40.0, help="ms to write a run")
    parser.add_argument("--workers", type=int, nargs="+", default=_COUNTS)


def _simulate(chosen: argparse.Namespace) -> None:
    sweep = Sweep(chosen.runs, chosen.together, chosen.seconds, chosen.spread)
    stages = Stages(
        chosen.driver / 1000, chosen.scheduler / 1000, chosen.gap, chosen.database / 1000
    )
    rows: list[tuple[str, Outcome]] = []
    for count in chosen.workers:
        workers = Workers(count, arrival=0.05, lifetime=chosen.lifetime * 3600)
        rows.append((f"{count:,}", simulate(sweep, workers, stages)))
        # One row per group, and its curves in a file, in place of a row per run.
        light = replace(stages, database=stages.database / chosen.together)
        rows.append((f"{count:,}, one row per group", simulate(sweep, workers, light)))
    _show(rows)


def _show(rows: Sequence[tuple[str, Outcome]]) -> None:
    table = Table("workers", "hours", "trained", "lost", "scheduler", "database", box=None)
    for name, outcome in rows:
        shares = outcome.trained, outcome.lost, outcome.scheduler, outcome.database
        hours = (outcome.driver + outcome.span) / 3600
        table.add_row(name, f"{hours:.1f}", *(f"{share:.1%}" for share in shares))
    Console(width=100).print(table)


def _add_agree(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(act=_agree)
    parser.add_argument("first", type=Path, help="the folder of a sweep on --of workers")
    parser.add_argument("others", type=Path, nargs="+", help="of sweeps on --workers workers")
    parser.add_argument("--of", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)


def _agree(chosen: argparse.Namespace) -> None:
    """Simulate sweeps with what the first one shows of groups and gaps, and compare."""
    known = measure(chosen.first, chosen.of)
    together = round(known.runs / len(known.groups))
    stages = Stages(0.0, 0.001, known.gap, 0.0)  # a group's time includes its database
    table = Table("sweep", "groups", "measured s", "simulated s", "simulated/measured", box=None)
    for folder in chosen.others:
        found = measure(folder, chosen.workers)
        sweep = Sweep(len(found.groups) * together, together, known.mean, known.spread)
        seconds = simulate(sweep, Workers(chosen.workers), stages).span
        ratio = f"{seconds / found.span:.2f}"
        table.add_row(
            folder.name, str(len(found.groups)), f"{found.span:.1f}", f"{seconds:.1f}", ratio
        )
    Console(width=120).print(table)


def _add_scheduler(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(act=_scheduler)
    parser.add_argument("--tasks", type=int, default=10_000)


def _scheduler(chosen: argparse.Namespace) -> None:
    """Time tasks that do nothing, on two workers: the scheduler is what they wait for."""
    from distributed import Client, LocalCluster

    # The scheduler of a local cluster runs in this process.
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster) as client:
        client.gather(client.map(_nothing, range(100), pure=False))
        before, begin = time.process_time(), time.monotonic()
        client.gather(client.map(_nothing, range(chosen.tasks), pure=False))
        cpu, seconds = time.process_time() - before, time.monotonic() - begin
    Console().print(
        f"{chosen.tasks} tasks: {1000 * seconds / chosen.tasks:.2f} ms each, of which "
        f"{1000 * cpu / chosen.tasks:.2f} ms are CPU time of driver and scheduler"
    )


def _nothing(number: int) -> int:
    return number


def _add_writers(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(act=_writers)
    parser.add_argument("--writers", type=int, default=64)
    parser.add_argument("--runs", type=int, default=10, help="of each writer")
    parser.add_argument("--workers", type=int, default=2, help="processes of the server")
    parser.add_argument("--address", help="of a server that is there; else one is started")


def _writers(chosen: argparse.Namespace) -> None:
    if chosen.address:
        written = write(chosen.address, chosen.writers, chosen.runs)
    else:
        with tempfile.TemporaryDirectory(prefix="s") as folder:
            Path(folder).chmod(0o755)  # for PostgreSQL's own user
            with server(Path(folder), chosen.workers) as address:
                written = write(address, chosen.writers, chosen.runs)
    rate = written.of / written.seconds
    Console().print(
        f"{chosen.writers} writers: {written.whole} of {written.of} runs whole, "
        f"{written.seconds:.1f} s, {rate:.1f} runs per second"
    )


if __name__ == "__main__":
    main()

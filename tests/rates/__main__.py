"""Prints how often a comparison is wrong and how often it finds what is there: ``make rates``."""

import argparse
from collections.abc import Callable, Iterator

import numpy as np
from joblib import Parallel, delayed

from tests.rates.simulation import (
    KINDS,
    by_division,
    coverage,
    equal,
    one_ahead,
    rates,
    two_tied,
)

_CONFIGURATIONS, _SEEDS = (2, 6, 20), (2, 3, 5, 10)
_DIVISIONS = ((3, 1), (4, 1), (5, 1), (10, 1), (20, 1), (3, 3), (2, 5), (5, 2))


def _cell(kind: str, k: int, seeds: int, sweeps: int) -> str:
    random = np.random.default_rng([KINDS.index(kind), k, seeds])
    alike = rates(kind, equal(k), seeds, sweeps, random)
    tied = rates(kind, two_tied(k), seeds, sweeps, random) if k > 2 else alike
    right = rates(kind, one_ahead(k), seeds, sweeps, random).right
    covered = coverage(kind, seeds, sweeps // 6 + 1, random)
    shares = (tied.named, alike.named, alike.marked, right, covered)
    return _row(kind, k, seeds, *(f"{share:.1%}" for share in shares))


def _division_cell(divisions: int, seeds: int, sweeps: int) -> str:
    random = np.random.default_rng([divisions, seeds])
    named, covered = by_division(divisions, seeds, sweeps, random)
    return _row(divisions, seeds, f"{named:.1%}", f"{covered:.1%}")


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _table(
    titles: list[str], rows: Iterator[tuple[Callable[..., str], tuple[object, ...]]]
) -> None:
    print(_row(*titles))
    print(_row(*["---"] * len(titles)))
    jobs = (delayed(cell)(*arguments) for cell, arguments in rows)
    for row in Parallel(n_jobs=-1, return_as="generator")(jobs):
        print(row, flush=True)
    print()


def main() -> None:
    """Print both tables, in Markdown."""
    parser = argparse.ArgumentParser(prog="make rates", description=__doc__)
    parser.add_argument("--sweeps", type=int, default=2000, help="simulated sweeps per cell")
    sweeps = parser.parse_args().sweeps
    titles = ["scores", "configurations", "seeds", "wrong name, two tied", "wrong name, all equal"]
    _table(
        [*titles, "any told from the best", "right name, 2 sd ahead", "interval covers"],
        ((_cell, (kind, k, n, sweeps)) for kind in KINDS for k in _CONFIGURATIONS for n in _SEEDS),
    )
    _table(
        ["divisions", "seeds each", "wrong name, two equal", "interval covers"],
        ((_division_cell, (divisions, seeds, sweeps // 2)) for divisions, seeds in _DIVISIONS),
    )


if __name__ == "__main__":
    main()

"""The simulation of great sweeps, where its result is known, and what finished sweeps took."""

import os
from pathlib import Path

import pytest

from src.runs.folder import RESULT
from src.sweep.plan import Plan
from tests.scale.measured import measure
from tests.scale.simulation import Stages, Sweep, Workers, simulate

FREE = Stages(driver=0, scheduler=0, gap=0, database=0)


def test_equal_groups_fill_the_workers() -> None:
    outcome = simulate(Sweep(640, 32, seconds=10, spread=0), Workers(5), FREE)
    assert outcome.span == pytest.approx(40)
    assert outcome.trained == pytest.approx(1)
    assert outcome.lost == 0
    outcome = simulate(Sweep(640, 32, seconds=10, spread=0), Workers(19), FREE)
    assert outcome.span == pytest.approx(20)  # one is left over


@pytest.mark.parametrize("stage", ["scheduler", "database"])
def test_what_serves_one_at_a_time_ends_the_growth(stage: str) -> None:
    each = {"scheduler": 0.5, "database": 0.5 / 32}[stage]
    stages = Stages(**{**vars(FREE), stage: each})
    sweep = Sweep(32_000, 32, seconds=10, spread=0)
    few, many = (simulate(sweep, Workers(count), stages) for count in (5, 1_000))
    assert few.trained > 0.9
    assert many.span == pytest.approx(1_000 * 0.5, rel=0.05)  # no matter how many workers
    assert getattr(many, stage) > 0.95


def test_workers_that_die_cost_what_they_had_not_kept() -> None:
    sweep = Sweep(32_000, 32, seconds=100, spread=0.2, checkpoint=10)
    workers = Workers(20, lifetime=500, replaced=30)
    outcome = simulate(sweep, workers, FREE)
    own = outcome.span * workers.count
    assert outcome.trained * own == pytest.approx(1_000 * 100, rel=0.02)  # all of it, once
    # A worker dies about every 500 s, in the middle of the 10 s between two checkpoints.
    assert outcome.lost == pytest.approx(5 / 530, rel=0.3)


@pytest.mark.slow
def test_a_sweep_is_measured_by_the_times_of_its_files(tmp_path: Path) -> None:
    times = {0: (100, 108), 1: (101, 110), 2: (110.5, 119), 3: (112, 122)}
    folders = [str(number) for number in times]
    jobs = [[f"seed={number}"] for number in times]
    Plan.of("s", jobs, folders, folders, [[0, 1], [2, 3]]).write(tmp_path)
    os.utime(tmp_path / "plan.json", (95, 95))
    for number, (begin, end) in times.items():
        for name, time in ((".hydra/config.yaml", begin), (RESULT, end)):
            file = tmp_path / str(number) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
            os.utime(file, (time, time))
    found = measure(tmp_path, workers=1)
    assert (found.runs, found.before, found.groups) == (4, 5, [(0, 10), (10.5, 22)])
    assert (found.mean, found.gap, found.span) == (10.75, 0.5, 22)
    (tmp_path / "3" / RESULT).unlink()
    with pytest.raises(ValueError, match="the sweep is not finished"):
        measure(tmp_path, workers=1)

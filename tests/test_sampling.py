"""Presets, drawn and zipped sweeps, settings of swept choices, and the plan of a sweep."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from src.api import train
from src.config.composition import compose, composer
from src.config.preflight import check
from src.config.swept_choices import forced
from src.data import Source
from src.support.errors import ConfigError
from src.support.paths import CONF
from src.sweep.calibration import StackForecast, epoch_seconds, total_seconds
from src.sweep.sampling import Interval, Listed, Setting, combinations, drawn, zipped
from tests.conftest import Ended

Invoke = Callable[..., Ended]


def listed(key: str, *values: object) -> Listed:
    return Listed(key, tuple((f"{key}={value}",) for value in values))


def values(jobs: list[list[str]], key: str) -> list[str]:
    return [override.partition("=")[2] for job in jobs for override in job if f"{key}=" in override]


# --- drawing -----------------------------------------------------------------------------------


def test_draws_follow_their_distribution() -> None:
    log = np.array(values(drawn([Interval("lr", 0.001, 1, log=True)], 800), "lr"), float)
    even = np.array(values(drawn([Interval("lr", 2, 5)], 800), "lr"), float)
    other = Interval("other", 0, 1)  # so that no two draws are equal
    whole = np.array(values(drawn([Interval("k", 1, 4, whole=True), other], 900), "k"), int)
    assert stats.kstest(np.log10(log), "uniform", (-3, 3)).pvalue > 1e-3
    assert stats.kstest(even, "uniform", (2, 3)).pvalue > 1e-3
    assert stats.chisquare(np.bincount(whole, minlength=4)[1:]).pvalue > 1e-3
    assert set(whole) == {1, 2, 3}


def test_each_drawn_configuration_gets_every_seed_and_more_samples_repeat_the_first() -> None:
    settings: list[Setting] = [
        Interval("lr", 0.1, 1),
        listed("model", "a", "b"),
        listed("seed", 0, 1, 2),
    ]
    few, more = drawn(settings, 4), drawn(settings, 9)
    assert len(few) == 12
    assert more[:12] == few
    assert values(few, "seed") == ["0", "1", "2"] * 4
    assert len(set(values(few, "lr"))) == 4


def test_of_a_grid_no_combination_is_drawn_twice() -> None:
    settings = [listed("a", 1, 2, 3), listed("b", 1, 2)]
    some = drawn(settings, 4)
    assert len({tuple(job) for job in some}) == 4
    every = drawn(settings, 50)
    assert sorted(every) == sorted(combinations(settings))


def test_zipped_lists_go_side_by_side() -> None:
    settings = [listed("a", 1, 2), listed("c", 5), listed("b", 3, 4)]
    assert combinations(zipped(settings, ["a", "b"])) == [
        ["a=1", "b=3", "c=5"],
        ["a=2", "b=4", "c=5"],
    ]
    with pytest.raises(ConfigError, match=r"sweep\.zip=\[a,c\]: the lists must be equally long"):
        zipped(settings, ["a", "c"])
    with pytest.raises(ConfigError, match=r"sweep\.zip=\[a,x\]: x has no list of values"):
        zipped(settings, ["a", "x"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lr=interval(0.1,1)"], "lr=interval(0.1,1): say how many values to draw"),
        (["lr=interval(1,0.1)", "samples=2"], "the first number must be below the second"),
        (["lr=tag(log,interval(0,1))", "samples=2"], "both numbers must be above 0"),
        (["lr=tag(lock,interval(0,1))", "samples=2"], "unknown tag lock; there are log and int"),
        (["lr=0.1,0.2", "samples=0"], "samples=0: must be 1 or more"),
        (["lr=0.1,0.2", "+sweep.halfing=3"], "sweep.exact and sweep.halving and sweep.zip"),
        (["sweep=cart"], "sweep=cart: no such option; did you mean card?"),
    ],
)
def test_a_sweep_that_can_not_be_drawn_is_refused_in_one_line(
    arguments: list[str], message: str, invoke: Invoke, tmp_path: Path
) -> None:
    ended = invoke("-m", *arguments)
    assert ended.code == 2, ended.out + ended.err
    assert message in ended.err
    assert len(ended.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("argument", ["sweep=card", "+sweep=card", "samples=3", "plan=true"])
def test_what_belongs_to_a_sweep_needs_m(argument: str, invoke: Invoke, tmp_path: Path) -> None:
    ended = invoke(argument)
    assert ended.code == 2
    assert "add -m" in ended.err
    assert list(tmp_path.iterdir()) == []


def test_python_refuses_what_belongs_to_a_sweep(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="samples=3: belongs to a sweep"):
        train("samples=3", f"outputs={tmp_path / 'o'}")
    assert list(tmp_path.iterdir()) == []


# --- settings of swept choices -----------------------------------------------------------------


def test_settings_of_a_swept_choice_are_forced_also_where_a_preset_sweeps_it() -> None:
    setting = "initializer.weights.high=0.1"
    assert forced(["initializer=xavier,uniform", setting])[1] == f"++{setting}"
    assert forced(["+sweep=initializers", setting])[1] == f"++{setting}"
    assert forced(["initializer=uniform", setting])[1] == setting
    assert forced(["lr=0.1,0.2", setting])[1] == setting


@pytest.mark.slow
def test_a_setting_counts_where_the_option_has_it(invoke: Invoke, tmp_path: Path) -> None:
    sweep = ("-m", "plan=true", "epochs=1")
    ended = invoke(*sweep, "batching=full,mini", "batching.size=16,64")
    assert ended.code == 0, ended.err
    assert "3 runs: 3 new" in ended.out
    ended = invoke(*sweep, "batching=full,mini", "batching.sise=16,64")
    assert ended.code == 2
    assert "batching.sise: no such key; did you mean size?" in ended.err
    assert list(tmp_path.iterdir()) == []


# --- presets and the plan ----------------------------------------------------------------------

PRESETS = {"card": 288, "lr_range": 10, "initializers": 40, "seeds": 10}


def test_every_preset_is_tested() -> None:
    assert PRESETS.keys() == {path.stem for path in (CONF / "sweep").glob("*.yaml")}


@pytest.mark.parametrize("name", sorted(PRESETS.keys() - {"card"}))
def test_the_plan_of_a_preset_runs_nothing(name: str, invoke: Invoke, tmp_path: Path) -> None:
    ended = invoke("-m", f"+sweep={name}", "plan=true", "model=relu2_small", "epochs=2")
    assert ended.code == 0, ended.err
    assert f"{PRESETS[name]} runs: {PRESETS[name]} new" in ended.out
    assert "about" in ended.out
    assert list(tmp_path.iterdir()) == []


def test_the_card_can_be_narrowed(invoke: Invoke, tmp_path: Path) -> None:
    narrow = ("model=relu2_small", "initializer=xavier,he", "batching=mini,full", "seed=0,1")
    ended = invoke("-m", "sweep=card", *narrow, "plan=true")
    assert ended.code == 0, ended.err
    assert "24 runs: 24 new" in ended.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_plan_says_what_is_done_and_a_drawn_sweep_runs_each_draw(invoke: Invoke) -> None:
    sweep = ("-m", "lr=tag(log,interval(0.01,1))", "seed=0,1", "epochs=1", "model=relu2_small")
    ended = invoke(*sweep, "samples=2")
    assert ended.code == 0, ended.err
    assert "4 of 4 finished" in ended.out
    ended = invoke(*sweep, "samples=3", "plan=true")
    assert "6 runs: 4 done, 2 new" in ended.out
    assert len(ended.folders) == 4


def test_an_epoch_is_timed_and_a_long_one_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    with composer():
        job, prepared = check(compose(["model=relu2_small", "batching=sample"]))
    datasets: dict[Source, object] = {job.experiment.data: prepared.dataset}
    whole = epoch_seconds([job.experiment], datasets)  # type: ignore[arg-type]
    monkeypatch.setattr("src.sweep.calibration._CHEAP", 0.0)
    scaled = epoch_seconds([job.experiment] * 8, datasets)  # type: ignore[arg-type]
    assert 0 < whole < 60
    assert 0 < scaled < 60


def test_an_epoch_is_timed_without_what_other_processes_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with composer():
        job, prepared = check(compose(["model=relu2_small", "batching=full"]))
    datasets: dict[Source, object] = {job.experiment.data: prepared.dataset}
    quiet = epoch_seconds([job.experiment], datasets)  # type: ignore[arg-type]
    clock = itertools.count()  # a machine so busy that seconds pass between any two looks
    monkeypatch.setattr("src.sweep.calibration.time.perf_counter", lambda: float(next(clock)))
    busy = epoch_seconds([job.experiment], datasets)  # type: ignore[arg-type]
    assert busy < max(10 * quiet, 0.2)


def test_workers_take_the_next_stack_when_they_are_free() -> None:
    stacks = [StackForecast(1, 1, seconds) for seconds in (5.0, 3.0, 2.0, 2.0)]
    assert total_seconds(stacks, 2) == 7.0
    assert total_seconds(stacks, 1) == 12.0

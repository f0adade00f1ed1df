"""The parts of a sweep, each by itself: pruning, values, estimates, jobs."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from src.runs.folder import CHECKPOINT, RUN
from src.runs.record import Identity, Record
from src.support.errors import ConfigError
from src.sweep import away, calibration
from src.sweep.away import Returned
from src.sweep.calibration import StackForecast, forecast, total_seconds
from src.sweep.jobs import Composed, SweepJob, set_values
from src.sweep.plan import Plan, Wanted
from src.sweep.pruning import (
    Halving,
    Judge,
    Reached,
    Rounds,
    Saved,
    Values,
    Verdict,
    await_verdict,
    configuration,
    rungs,
)
from src.sweep.run_context import single, swept
from src.sweep.sampling import Interval, Listed, combinations, drawn, zipped
from src.tracking.told import TOLD
from src.training.batching import Full
from tests.test_grouping import member

# --- pruning --------------------------------------------------------------------------------------


def job(number: int, *, metric: str = "val/loss", **changes: Any) -> SweepJob:
    given = member(**changes)
    known: Any = SimpleNamespace(experiment=given.experiment, metric=metric)
    nothing: Any = None
    identity = Identity("", "", "", "", {})
    return SweepJob(number, (), Path(), known, given, nothing, identity)


@pytest.mark.parametrize(
    ("configurations", "epochs", "factor", "expected"),
    [(3, 9, 3, [3]), (4, 9, 3, [1, 3]), (10, 100, 3, [4, 12, 34]), (9, 1, 3, []), (2, 2, 2, [1])],
)
def test_rungs(configurations: int, epochs: int, factor: int, expected: list[int]) -> None:
    assert rungs(configurations, epochs, factor) == expected


def test_seeds_of_one_configuration_are_halved_together() -> None:
    jobs = [job(n, lr=0.1 * (1 + n // 2), seed=n % 2, epochs=9) for n in range(6)]
    judge = Halving.of(3, jobs)
    assert (judge.rungs, judge.name) == ([3], "halving_3")
    assert configuration(jobs[0].job.experiment) == configuration(jobs[1].job.experiment)
    values = {0: 0.5, 1: 0.7, 2: 0.2, 3: 0.3, 4: 0.6, 5: 0.6}
    verdict = judge.judge(3, values)
    assert set(verdict.leaving) == {0, 1, 4, 5}
    assert verdict.leaving[0].startswith("left after 3 of 9 epochs: rank ")
    assert verdict.leaving[1].endswith("of 3 configurations (val/loss 0.6000), and 1 stay")
    assert verdict.sentence == (
        "after 3 of 9 epochs, 1 of 3 configurations stay, with val/loss from 0.2500"
    )
    failed = judge.judge(3, {0: None, 2: None, 4: None})
    assert failed.sentence == "after 3 of 9 epochs, 1 of 3 configurations stay"
    assert all("(a run failed)" in reason for reason in failed.leaving.values())
    assert len(failed.leaving) == 2


def test_of_failed_configurations_the_one_with_fewer_failures_is_better() -> None:
    judge = Halving(2, {n: n // 2 for n in range(8)}, 8, "val/accuracy")
    values = {0: None, 1: None, 2: 0.9, 3: None, 4: 0.1, 5: 0.1, 6: 0.2, 7: 0.0}
    ranks = {n: reason.split("rank ")[1][0] for n, reason in judge.judge(1, values).leaving.items()}
    assert ranks == {2: "3", 3: "3", 0: "4", 1: "4"}


@pytest.mark.parametrize(
    ("jobs", "message"),
    [
        ([job(0, epochs=2), job(1, epochs=3)], "the runs differ in epochs"),
        ([job(0), job(1, metric="val/accuracy")], "the runs differ in metric"),
        ([job(0, metric="test/loss")], "use metric=val/loss"),
    ],
)
def test_what_can_not_be_compared_is_not_halved(jobs: list[SweepJob], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Halving.of(3, jobs)


class Worst(Judge):
    """Lets the job with the greatest number leave, and notes what it was asked."""

    def __init__(self) -> None:
        self.name, self.rungs = "worst", [2, 4]
        self.asked: list[tuple[int, dict[int, float | None]]] = []

    def judge(self, epoch: int, values: Values) -> Verdict:
        self.asked.append((epoch, dict(values)))
        return Verdict({max(values): "the last"} if len(values) > 1 else {}, f"after {epoch}")


def test_a_rung_is_decided_when_all_that_are_there_have_told(tmp_path: Path) -> None:
    judge, announced = Worst(), list[str]()
    rounds = Rounds(judge, tmp_path, [0, 1, 2], announced.append)
    rounds.hear(Reached(2, {0: 0.1}))
    rounds.hear(Reached(4, {0: 0.2}))  # one is ahead of the others
    rounds.hear(Reached(3, {1: 0.2}))  # no rung
    assert judge.asked == []
    rounds.hear(Reached(2, {1: 0.3, 2: None}))
    assert judge.asked == [(2, {0: 0.1, 1: 0.3, 2: None})]
    assert await_verdict(tmp_path, 2) == {2: "the last"}
    rounds.hear(Reached(2, {1: 9.0}))  # decided already
    rounds.hear(Reached(4, {1: 0.4}))
    assert judge.asked[1:] == [(4, {0: 0.2, 1: 0.4})]
    assert announced == ["after 2", "after 4"]


def test_jobs_whose_worker_is_lost_are_judged_as_failed_and_not_waited_for(tmp_path: Path) -> None:
    judge = Worst()
    rounds = Rounds(judge, tmp_path, [0, 1, 2])
    rounds.lose([2])
    rounds.hear(Reached(2, {0: 0.1, 1: 0.2}))
    assert judge.asked == [(2, {0: 0.1, 1: 0.2, 2: None})]
    rounds.lose([0, 1])
    assert len(judge.asked) == 1  # nobody is left to judge
    assert await_verdict(tmp_path, 4) == {}


def test_a_decision_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            (tmp_path / "left_after_epoch_3.json").write_text('{"leaving": {"1": "x"}}')

    monkeypatch.setattr("src.sweep.pruning.time.sleep", sleep)
    assert await_verdict(tmp_path, 3) == {1: "x"}
    assert len(waits) == 2


def test_what_was_saved_adds_up() -> None:
    assert Saved() + Saved(1, 20, 3) + Saved(2, 5, 1) == Saved(3, 25, 4)


# --- values ---------------------------------------------------------------------------------------


def listed(key: str, *values: object) -> Listed:
    return Listed(key, tuple((f"{key}={value}",) for value in values))


@pytest.mark.parametrize(("low", "high", "log"), [(1, 1, False), (0, 1, True), (-1, 1, True)])
def test_intervals_that_are_refused(low: float, high: float, log: bool) -> None:
    with pytest.raises(ConfigError, match="interval"):
        Interval("lr", low, high, log=log)


def test_draws_are_whole_or_have_four_digits() -> None:
    assert Interval("k", 1, 9, whole=True).override(3.99) == "k=3"
    assert Interval("lr", 0.1, 1).override(0.123456) == "lr=0.1235"
    (value,) = Interval("lr", 1e-300, 1e300, log=True).draw(np.random.default_rng(0))
    assert 1e-300 < float(value[3:]) < 1e300


def test_zipped_and_drawn_settings() -> None:
    settings = [listed("a", 1, 2), listed("b", 3, 4), listed("seed", 0, 1)]
    assert zipped(settings, []) == settings
    assert combinations(zipped(settings, ["a", "b"]))[:2] == [
        ["a=1", "b=3", "seed=0"],
        ["a=1", "b=3", "seed=1"],
    ]
    with pytest.raises(ConfigError, match="b 2, c 1 values"):
        zipped([*settings, listed("c", 5)], ["b", "c"])
    with pytest.raises(ConfigError, match="say how many values to draw"):
        combinations([Interval("lr", 0, 1)])
    jobs = drawn(settings, 99)
    assert sorted(jobs) == sorted(combinations(settings))
    assert drawn(settings, 3) == jobs[:6]
    assert len(drawn([listed("a", *range(30))], 30)) == 30  # whichever comes late


# --- estimates ------------------------------------------------------------------------------------


def test_workers_take_the_next_stack_when_they_are_free() -> None:
    stacks = [StackForecast(1, 1, seconds) for seconds in (5.0, 3.0, 3.0, 1.0)]
    assert total_seconds(stacks, 2) == 6.0
    assert total_seconds(stacks, 1) == 12.0
    assert total_seconds(stacks, 9) == 5.0


def test_stacks_of_one_kind_and_size_are_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[int] = []

    def seconds(experiments: Any, datasets: Any) -> float:
        timed.append(len(experiments))
        return 2.0

    monkeypatch.setattr(calibration, "epoch_seconds", seconds)
    alone = [[job(n, lr=n + 1, seed=n, engine="plain", epochs=n + 1)] for n in range(2)]
    pairs = [[job(n, lr=n + 1, epochs=3), job(n, lr=9, epochs=3)] for n in range(2)]
    orders = [[job(0, seed=0, epochs=3), job(1, seed=1, epochs=3)]]
    larger = [[job(n, epochs=3) for n in range(3)]]
    found = forecast([*alone, *pairs, *orders, *larger], {}, 1)
    assert timed == [1, 2, 2, 3]
    assert [one.runs for one in found] == [1, 1, 2, 2, 2, 3]
    assert [one.epochs for one in found] == [1, 2, 3, 3, 3, 3]
    assert found[2].seconds == pytest.approx(3 * 2.0 + 2 * 0.2 + 0.5)
    assert found[0].seconds == pytest.approx(2.0 + 0.2 + 0.5)


def split(samples: int) -> Any:
    from src.data import Dataset, Split

    part = Split(np.zeros((samples, 4), np.uint8), np.zeros(samples, int))
    return Dataset("", part, part, part, (2, 2), 1.0, "0" * 32)


@pytest.mark.parametrize(
    ("samples", "each", "asked", "expected"),
    [
        (1024, 0.05, [256], 0.2),  # scaled
        (1024, 0.025, [256, 1024], 0.025),  # an epoch of 0.1 s is timed whole
        (256, 0.05, [256], 0.05),
        (100, 1.0, [100], 1.0),
    ],
)
def test_a_long_epoch_is_timed_with_fewer_samples(
    samples: int, each: float, asked: list[int], expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[int] = []

    def seconds(experiments: Any, datasets: Any, count: int) -> float:
        timed.append(count)
        return each

    monkeypatch.setattr(calibration, "_time", seconds)
    experiment = member().experiment
    found = calibration.epoch_seconds([experiment], {experiment.data: split(samples)})
    assert timed == asked
    assert found == pytest.approx(expected)


def test_the_mean_of_the_second_and_the_third_epoch_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = member().experiment
    small = replace(known, model=replace(known.model, inputs=4), batching=Full())
    data = split(10)
    clock = [0.0]

    def train(runs: Any, starts: Any, engine: str) -> Iterator[None]:
        for seconds in (9.0, 2.0, 4.0)[: runs[0].epochs]:
            clock[0] += seconds
            yield None

    monkeypatch.setattr(calibration, "train", train)
    monkeypatch.setattr("src.sweep.calibration.time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("src.sweep.calibration.time.process_time", lambda: 3 * clock[0])
    assert calibration._time([small], {small.data: data}, 5) == 3.0
    monkeypatch.setattr("src.sweep.calibration.time.process_time", lambda: clock[0] / 2)
    clock[0] = 0.0
    assert calibration._time([small, small], {small.data: data}, 5) == 1.5


# --- jobs and their context -----------------------------------------------------------------------


def test_a_composed_job_is_its_kind_with_its_own_values() -> None:
    first = Composed.of(OmegaConf.create({"a": {"b": 1, "c": 2}, "d": 3}))
    second = first.with_values({"a.b": 5}).with_values({"e": 6})
    assert second.config() == {"a": {"b": 5, "c": 2}, "d": 3, "e": 6}
    assert first.config() == {"a": {"b": 1, "c": 2}, "d": 3}
    assert second.kind is first.kind
    config = OmegaConf.create({"a": {"b": 1}})
    OmegaConf.set_struct(config, True)
    set_values(config, {"a": {"c": 2}})
    assert config == {"a": {"b": 1, "c": 2}}
    assert job(3).wanted == Wanted((), Identity("", "", "", "", {}))


def context(folder: Path, number: int, *overrides: str) -> Any:
    choices = {
        "model": "relu2",
        "distribution@initializer.weights": "he",
        "hydra/launcher": "basic",
        "sweep": "card",
        "schedule": None,
    }
    return SimpleNamespace(
        runtime=SimpleNamespace(output_dir=str(folder / str(number)), choices=choices),
        overrides=SimpleNamespace(task=list(overrides)),
        job=SimpleNamespace(num=number),
        sweep=SimpleNamespace(dir=str(folder)),
    )


def test_the_context_of_a_run(tmp_path: Path) -> None:
    config = OmegaConf.create(
        {"lr": 0.1, "name": None, "tracking": {"uri": "x"}, "model": {"a": 1}}
    )
    unnamed: Any = SimpleNamespace(name=None)
    found = single(config, context(tmp_path, 0, "lr=0.1", "outputs=o"), unnamed)
    assert (found.name, found.folder) == ("lr=0.1", tmp_path / "0")
    assert found.settings == {
        "model": "relu2", "initializer.weights": "he", "lr": 0.1, "model.a": 1,
    }  # fmt: skip
    assert single(config, context(tmp_path, 0), unnamed).name == "relu2"
    named: Any = SimpleNamespace(name="mine")
    assert single(config, context(tmp_path, 0, "lr=0.1"), named).name == "mine"
    other = swept(config, context(tmp_path, 1, "lr=0.2"), unnamed)  # of another sweeper
    assert (other.name, other.position, other.sweep_id) == ("lr=0.2", "2/?", tmp_path.name)
    assert (other.stack, other.stack_position, other.goes_on) == ((), None, False)
    Plan.of("s", [["lr=0.1"], ["lr=0.2"]]).write(tmp_path)
    own = swept(config, context(tmp_path, 1, "lr=0.2"), unnamed, (0, 1))
    assert (own.name, own.position, own.sweep_id) == ("lr=0.2", "2/2", "s")
    assert (own.varied, own.stack, own.stack_position) == (("lr",), (0, 1), 1)
    assert not own.goes_on
    (tmp_path / "1").mkdir()
    Record("before", [], "val/loss", epochs=1).write(tmp_path / "1")
    again = swept(config, context(tmp_path, 1, "lr=0.2"), named)
    assert (again.name, again.goes_on) == ("before", True)
    Plan.of("s2", [["lr=0.1"], ["lr=0.2"], ["lr=0.3"]]).write(tmp_path)
    os.utime(tmp_path / "plan.json", (1, 1))
    assert swept(config, context(tmp_path, 0), named).position == "1/3"  # read anew
    assert swept(config, context(tmp_path, 0), named).name == "mine"


# --- runs on other machines -----------------------------------------------------------------------


def test_what_is_sent_back_of_a_run(tmp_path: Path) -> None:
    for name in (RUN, "result.json", CHECKPOINT):
        (tmp_path / name).write_text(name)
    sent = Returned.of(3, tmp_path)
    assert sent == Returned(3, {RUN: b"run.json", "result.json": b"result.json"})
    (tmp_path / TOLD).write_text(TOLD)
    assert Returned.of(3, tmp_path) == sent
    assert list(Returned.of(3, tmp_path, is_last=True).files) == [TOLD, RUN, "result.json"]
    for _ in range(2):
        sent.write(tmp_path / "a" / "b")
    assert {path.name for path in (tmp_path / "a" / "b").iterdir()} == {RUN, "result.json"}


def test_what_a_stack_lacks_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(away, "fetch_runs", lambda *given: asked.append(given[1:4]))
    known: Any = SimpleNamespace(tracking=None, outputs=None)
    folders = {number: tmp_path / str(number) for number in (5, 7)}
    away.fetch(known, "s", [4, 5, 7], folders)
    assert asked == [("s", "4 5 7", {"1": folders[5], "2": folders[7]})]
    folders[5].mkdir()
    (folders[5] / RUN).touch()
    away.fetch(known, "s", [4, 5, 7], folders)
    assert asked[1:] == [("s", "4 5 7", {"2": folders[7]})]
    folders[7].mkdir()
    (folders[7] / RUN).touch()
    away.fetch(known, "s", [4, 5, 7], folders)
    assert len(asked) == 2

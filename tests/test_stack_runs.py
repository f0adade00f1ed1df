"""Runs that train as one stack: the end of each, its values, and what fails."""

import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from src.runs.record import Record
from src.runs.recorder import Finished, Recorder
from src.support.errors import Diverged, InvalidValue, Pruned
from src.sweep.stack import Assignment, Stack, run_stack
from src.training.training_run import Epoch
from tests.test_stacked import assignments


def runs(folder: Path, *jobs: list[str]) -> list[Assignment]:
    common = ["model=relu2_small", "tracking.offline=true", "data.split.train=64", "epochs=3"]
    made = assignments(folder, *([*common, *own] for own in jobs))
    # Pictures of a sweep's runs are not drawn, which saves seconds.
    return [replace(one, run_context=replace(one.run_context, sweep_id="s")) for one in made]


def epochs(folder: Path) -> int:
    path = folder / "history.csv"
    return max(0, path.read_text().count("\n") - 1) if path.exists() else 0


def test_a_stack_trains_each_run_to_its_own_end(tmp_path: Path) -> None:
    told: list[int | Path] = []
    early = ["stopping=target", "stopping.metric=val/accuracy", "stopping.value=0.01"]
    made = runs(tmp_path, ["lr=0.1"], ["lr=1e20"], ["lr=0.2", *early])
    outcomes = run_stack(made, told.append)
    assert [type(one) for one in outcomes] == [Finished, Diverged, Finished]
    assert [epochs(tmp_path / str(n)) for n in range(3)] == [3, 0, 1]
    assert [news for news in told if isinstance(news, int)] == [3, 1, 1]
    assert {news for news in told if isinstance(news, Path)} == {
        tmp_path / str(n) for n in range(3)
    }
    assert [Record.load(tmp_path / str(n)).status for n in range(3)] == [
        "FINISHED",
        "FAILED",
        "FINISHED",
    ]


def test_values_and_pruning_of_a_stack(tmp_path: Path) -> None:
    told: list[int | Path] = []
    made = runs(tmp_path, ["lr=0.1"], ["lr=1e20"], ["lr=0.2"])
    with Stack(made, told.append) as stack:
        assert stack.value(0, 1) is None
        stack.train(until=2)
        values = [[stack.value(i, epoch) for epoch in (1, 2)] for i in range(3)]
        assert values[1] == [None, None]
        assert stack.prune(1, "it has ended") == 0
        assert stack.prune(2, "others are better") == 1
        stack.train()
        stack.finish()
    assert isinstance(stack.outcomes[2], Pruned)
    assert str(stack.outcomes[2]) == "others are better"
    assert stack.idle == 1  # trained along
    assert stack.value(2, 2) is None
    first = stack.outcomes[0]
    assert isinstance(first, Finished)
    assert stack.value(0, 3) == first.record.value
    history = (tmp_path / "0" / "history.csv").read_text().splitlines()
    column = history[0].split(",").index("val/accuracy")
    assert values[0] == [float(line.split(",")[column]) for line in history[1:3]]
    assert Record.load(tmp_path / "2").status == "PRUNED"


def test_what_fails_after_the_training_fails_its_own_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = Recorder.finish

    def full(self: Recorder) -> None:
        if self._context.name == "job 1":
            raise OSError(28, "No space left on device")
        finish(self)

    monkeypatch.setattr(Recorder, "finish", full)
    outcomes = run_stack(runs(tmp_path, *([f"seed={k}"] for k in range(3))), lambda _: None)
    assert [type(one) for one in outcomes] == [Finished, RuntimeError, Finished]
    assert "No space left" in str(pickle.loads(pickle.dumps(outcomes[1])))
    assert Record.load(tmp_path / "1").status == "FAILED"


def test_an_error_at_the_end_closes_all_that_is_open(tmp_path: Path) -> None:
    def tell(news: int | Path) -> None:
        if isinstance(news, Path):
            raise OSError("the sweep's process is gone")

    outcomes = run_stack(runs(tmp_path, ["seed=0"], ["seed=1"]), tell)
    assert [type(one) for one in outcomes] == [Finished, RuntimeError]
    assert [Record.load(tmp_path / str(n)).status for n in (0, 1)] == ["FINISHED"] * 2


def test_a_run_that_can_not_be_opened_fails_alone(tmp_path: Path) -> None:
    made = runs(tmp_path, ["seed=0"], ["seed=1"])
    (tmp_path / "0").rmdir()
    (tmp_path / "0").touch()
    outcomes = run_stack(made, lambda _: None)
    assert isinstance(outcomes[0], Exception)
    assert isinstance(outcomes[1], Finished)


def test_an_error_of_the_training_itself_fails_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Iterator[list[Epoch]]:
        raise InvalidValue("lr", 1, "is wrong")
        yield []

    monkeypatch.setattr("src.sweep.stack.train", broken)
    outcomes = run_stack(runs(tmp_path, ["seed=0"], ["seed=1"]), lambda _: None)
    assert [str(one) for one in outcomes] == ["InvalidValue: lr=1: is wrong"] * 2
    assert [Record.load(tmp_path / str(n)).status for n in (0, 1)] == ["FAILED"] * 2


def test_a_checkpoint_is_written_when_it_is_due_for_all_or_asked_for_by_one() -> None:
    from src.sweep.stack import _checkpoint

    def written(*states: tuple[bool, bool]) -> int:
        done: list[int] = []
        made = [
            SimpleNamespace(
                recorder=SimpleNamespace(
                    is_due=due, is_requested=asked, checkpoint=lambda: done.append(1)
                )
            )
            for due, asked in states
        ]
        _checkpoint(cast(Any, made))
        return len(done)

    assert written((True, False), (True, False)) == 2
    assert written((True, False), (False, False)) == 0
    assert written((False, True), (False, False)) == 2
    assert written() == 0


def test_a_run_that_has_ended_is_trained_along_from_where_the_others_start(tmp_path: Path) -> None:
    """The bytes are those of the whole stack."""
    jobs = (
        ["seed=0", "epochs=4", "checkpoint.every=2"],
        ["seed=1", "epochs=4", "checkpoint.every=2"],
    )
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run_stack(runs(whole, *jobs), lambda _: None)
    with pytest.raises(KeyboardInterrupt), Stack(runs(parts, *jobs), lambda _: None) as stack:  # noqa: PT012
        stack.train(until=3)
        raise KeyboardInterrupt
    again = []
    for one in runs(tmp_path / "again", *jobs):
        number = int(one.run_context.folder.name)
        given = replace(
            one.run_context, folder=parts / str(number), goes_on=True, start_at=2, stack=(0, 1),
            stack_position=number,
        )  # fmt: skip
        again.append(replace(one, run_context=given, has_ended=number == 1))
    outcomes = []
    with Stack(again, lambda _: None) as stack:
        assert stack.numbers == {0: 0}
        stack.train()
        stack.finish()
        outcomes = list(stack.outcomes.items())
    assert [number for number, _ in outcomes] == [0]
    assert epochs(parts / "0") == 4
    both = [(folder / "0" / "weights.npz").read_bytes() for folder in (whole, parts)]
    assert both[0] == both[1]

"""Which stacks a sweep forms, and from which epoch they go on when it was interrupted."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from src.runs.context import RunContext
from src.runs.folder import CHECKPOINT, PREVIOUS, disown, own
from src.runs.record import Identity, Record, Status
from src.support.errors import Diverged
from src.sweep import company
from src.sweep.company import PlannedStack, Stage, attempted, common_start, divided, form, settle
from src.sweep.grouping import Member
from src.sweep.jobs import SweepJob
from src.sweep.plan import Plan
from src.sweep.stack import Assignment
from tests.test_grouping import member

IDENTITY = Identity("", "", "", "", {})


def job(number: int, given: Member | None = None, folder: Path = Path()) -> SweepJob:
    """Return a job of which only what stacks are formed by is known."""
    known: Any = None
    trained = given or member(lr=0.1 * (number + 1))
    return SweepJob(number, (), folder / str(number), known, trained, known, IDENTITY)


def ended_run(status: Status, cause: str | None = None) -> Record:
    """Return the record of a run that has ended."""
    return Record("", [], "val/loss", status=status, cause=cause)


def numbers(jobs: Sequence[SweepJob]) -> list[int]:
    return [one.number for one in jobs]


def plan(folder: Path, jobs: int, *stacks: tuple[int, ...]) -> Plan:
    written = Plan.of("s", [[f"lr={n}"] for n in range(jobs)], stacks=stacks)
    written.write(folder)
    return written


def stacks(folder: Path) -> tuple[tuple[int, ...], ...]:
    known = Plan.load(folder)
    assert known
    return known.stacks


# --- which stacks ---------------------------------------------------------------------------------


def test_new_stacks_are_added_to_the_plan(tmp_path: Path) -> None:
    jobs = [job(n) for n in range(8)]
    assert [list(one.numbers) for one in form(tmp_path, jobs, [], None)] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
    ]
    assert Plan.load(tmp_path) is None  # another sweeper's
    plan(tmp_path, 9, (8,))
    formed = form(tmp_path, jobs, [], 3)
    assert [numbers(one.jobs) for one in formed] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert stacks(tmp_path) == ((8,), (0, 1, 2), (3, 4, 5), (6, 7))


def test_jobs_are_in_their_stack_of_the_plan_again_and_what_has_ended_is_known(
    tmp_path: Path,
) -> None:
    before = ((0, 1, 2), (3, 4), (5, 6))
    plan(tmp_path, 8, *before)
    formed = form(tmp_path, [job(1), job(5), job(6), job(7)], [job(0), job(4)], None)
    found = {tuple(one.numbers): (numbers(one.jobs), numbers(one.ended)) for one in formed}
    assert found == {(0, 1, 2): ([1], [0]), (5, 6): ([5, 6], []), (7,): ([7], [])}
    assert stacks(tmp_path) == (*before, (7,))
    form(tmp_path, [job(1)], [], None)
    assert stacks(tmp_path) == (*before, (7,))


def test_the_stack_with_the_most_work_left_comes_first(tmp_path: Path) -> None:
    plan(tmp_path, 5, (0, 1, 2), (3, 4))
    ended = [job(0), job(1)]
    formed = form(tmp_path, [job(2), job(3), job(4)], ended, None)
    assert [numbers(one.jobs) for one in formed] == [[3, 4], [2]]


def test_a_stack_that_can_not_train_together_is_formed_anew(tmp_path: Path) -> None:
    """A plan may have been edited, or hold jobs of which each trains alone."""
    plan(tmp_path, 4, (0, 1), (2, 3))
    plain = [job(n, member(engine="plain", lr=n + 1)) for n in (2, 3)]
    formed = form(tmp_path, [job(0), job(1, member(8)), *plain], [], None)
    assert sorted(numbers(one.jobs) for one in formed) == [[0], [1], [2], [3]]
    alone = form(tmp_path, [plain[0]], [], None)
    assert [tuple(one.numbers) for one in alone] == [(2, 3)]


def test_what_an_earlier_attempt_has_ended_stays_so(tmp_path: Path) -> None:
    jobs = [job(n, folder=tmp_path) for n in range(4)]
    statuses: list[Status] = ["FINISHED", "KILLED", "FAILED"]
    for one, status in zip(jobs, statuses, strict=False):
        one.folder.mkdir()
        Record("", [], "val/loss", epochs=2, identity=IDENTITY).write(one.folder)
        ended_run(status).write(one.folder)
    again = attempted(PlannedStack((0, 1, 2, 3, 4), jobs, [job(4)]))
    assert (numbers(again.jobs), numbers(again.ended)) == ([1, 3], [4, 0, 2])
    assert again.numbers == (0, 1, 2, 3, 4)


# --- from where -----------------------------------------------------------------------------------


def stage(*epochs: int, left: int | None = None) -> Stage:
    return Stage(frozenset({0, *epochs}), left)


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ([stage(6), stage(4, left=6)], 6),  # it took part until 6
        ([stage(6), stage(4, left=7)], 0),
        ([stage(6), stage(6, 4, left=7)], 6),
        ([stage(), stage(left=3)], 0),
        ([stage(2), stage(left=0)], 2),
    ],
)
def test_a_member_is_missed_until_the_epoch_at_which_it_left(
    stages: list[Stage], expected: int
) -> None:
    assert common_start(stages) == expected


Stages = dict[int, Stage]


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Stages:
    """How far the runs have come, by their numbers, instead of what their folders hold."""
    stages: Stages = {}
    monkeypatch.setattr(company, "_stage", lambda one: stages[one.number])
    return stages


def assigned(number: int, epochs: int = 10, *, ended: bool = False, fresh: bool = False) -> Any:
    experiment = SimpleNamespace(epochs=epochs)
    context = RunContext(
        Path(), "", [], {}, stack=(number,), stack_position=0, goes_on=not (ended or fresh)
    )
    given = SimpleNamespace(experiment=experiment)
    return Assignment(cast(Any, given), cast(Any, None), context, has_ended=ended)


def described(parts: Sequence[Sequence[Assignment]]) -> list[list[tuple[int, int | None, bool]]]:
    """Return of each run its number, after which epoch it goes on, and whether bytes must agree."""
    return [
        [(one.number, one.run_context.start_at, one.run_context.is_exact) for one in part]
        for part in parts
    ]


def test_a_stack_that_begins_and_a_run_alone_go_on_as_they_are(known: Stages) -> None:
    fresh = [assigned(n, fresh=True) for n in (1, 2)]
    assert divided([1, 2], fresh, []) == [fresh]
    single = [assigned(1)]
    assert divided([1], single, []) == [single]


def test_all_go_on_after_the_epoch_that_they_have_in_common(known: Stages) -> None:
    known |= {1: stage(8, 4), 2: stage(4)}
    assert described(divided([1, 2], [assigned(1), assigned(2)], [])) == [
        [(1, 4, True), (2, 4, True)]
    ]


def test_one_run_that_goes_on_is_enough_for_a_common_start(known: Stages) -> None:
    known |= {1: stage(), 2: stage(4)}
    runs = [assigned(1, fresh=True), assigned(2)]
    assert described(divided([1, 2], runs, [])) == [[(1, 0, True), (2, 0, True)]]


def test_a_run_that_has_ended_is_trained_along_until_it_left(known: Stages) -> None:
    known |= {1: stage(4), 2: stage(4, left=6), 3: stage(left=3), 4: stage(4, left=4)}
    ended = [assigned(n, ended=True) for n in (2, 3, 4)]
    found = divided([3, 2, 1, 4], [assigned(1)], ended)
    assert described(found) == [[(2, 4, True), (1, 4, True)]]


@pytest.mark.parametrize(("epochs", "along"), [(20, True), (19, False)])
def test_no_more_is_trained_along_than_the_runs_take_from_their_beginning(
    known: Stages, epochs: int, along: bool
) -> None:
    known |= {1: stage(5), 2: stage(5, left=15), 3: stage(5, left=15)}
    ended = [assigned(n, ended=True) for n in (2, 3)]
    found = described(divided([1, 2, 3], [assigned(1, epochs)], ended))
    together = [(1, 5, True), (2, 5, True), (3, 5, True)]
    assert found == ([together] if along else [[(1, 5, False)]])


def test_runs_that_give_up_their_stack_go_on_after_their_own_epoch(known: Stages) -> None:
    known |= {1: stage(8), 2: stage(left=100), 3: stage(8, 6)}
    found = divided([1, 2, 3], [assigned(1), assigned(3)], [assigned(2, ended=True)])
    assert described(found) == [[(1, 8, False), (3, 8, False)]]


def test_a_run_that_had_left_its_stack_goes_on_alone(known: Stages) -> None:
    known |= {1: stage(4), 2: stage(4), 3: stage(left=2)}
    found = divided([1, 2, 3], [assigned(n) for n in (1, 2, 3)], [])
    assert described(found) == [[(1, 4, True), (2, 4, True)], [(3, None, False)]]


def test_without_all_of_its_stack_a_run_agrees_to_rounding_only(known: Stages) -> None:
    known |= {1: stage(4), 2: stage(4)}
    found = divided([1, 2, 3], [assigned(1), assigned(2)], [])
    assert described(found) == [[(1, 4, False), (2, 4, False)]]


def test_how_far_a_run_has_come_is_read_from_its_checkpoints(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(company, "checkpointed_epochs", lambda *_: {4, 8})
    monkeypatch.setattr(company, "Identity", SimpleNamespace(of=lambda _: IDENTITY))
    run = SimpleNamespace(begin=lambda _: None)
    prepared: Any = SimpleNamespace(training_run=lambda: run, parameters=None)
    (tmp_path / "history.csv").write_text("epoch,time\n1,1\n2,2\n")
    ended_run("FINISHED").write(tmp_path)
    found = []
    for one in (assigned(1, fresh=True), assigned(1), assigned(1, ended=True)):
        context = replace(one.run_context, folder=tmp_path)
        found.append(company._stage(replace(one, prepared=prepared, run_context=context)))
    assert found == [Stage(frozenset({0}), None), *[Stage(frozenset({0, 4, 8}), 2)] * 2]


@pytest.mark.parametrize(
    ("status", "cause", "left"),
    [
        ("FINISHED", None, 3),
        ("FAILED", Diverged.__name__, 4),  # in the epoch after its last one
        ("FAILED", "OSError", None),
        ("KILLED", None, None),
        (None, None, None),
    ],
)
def test_when_a_run_left_its_stack(
    status: Status | None, cause: str | None, left: int | None, tmp_path: Path
) -> None:
    (tmp_path / "history.csv").write_text("epoch,time\n1,1\n2,1\n3,1\n")
    if status:
        ended_run(status, cause).write(tmp_path)
    assert company._left(tmp_path) == left


def test_the_checkpoint_before_the_last_goes_when_its_stack_has_ended(tmp_path: Path) -> None:
    runs = []
    statuses: list[Status] = ["FINISHED", "KILLED"]
    for number, status in enumerate(statuses):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in (CHECKPOINT, PREVIOUS):
            (folder / name).touch()
        ended_run(status).write(folder)
        one = assigned(number)
        runs.append(replace(one, run_context=replace(one.run_context, folder=folder)))
    settle(runs)
    assert [(tmp_path / str(n) / PREVIOUS).exists() for n in (0, 1)] == [False, True]


def test_the_owner_of_a_run_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = jobs = [job(0, folder=tmp_path)]
    one.folder.mkdir()
    Record("", [], "val/loss", epochs=2, identity=IDENTITY).write(one.folder)
    own(one.folder)
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            ended_run("FINISHED").write(one.folder)
            disown(one.folder)

    monkeypatch.setattr("src.sweep.convergence.time.sleep", sleep)
    again = attempted(PlannedStack((0,), jobs))
    assert (numbers(again.jobs), numbers(again.ended), len(waits)) == ([], [0], 3)

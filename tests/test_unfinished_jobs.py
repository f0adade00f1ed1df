"""What is left to do of a sweep, read from its plan and from the folders of its runs."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from src.runs.folder import CHECKPOINT, PREVIOUS, disown, own
from src.runs.record import Identity, Record, Status
from src.support.errors import ConfigError
from src.sweep.convergence import (
    Standing,
    State,
    earlier_sweep,
    in_common,
    stand,
    told,
    told_of_code,
    wait_for_owner,
)
from src.sweep.plan import Plan, Wanted, collect, in_metric, run_name
from src.sweep.pruning import with_pruned

SAME, OTHER = {"NumPy": "2.1"}, {"NumPy": "2.2"}


def identity(name: str, code: str = "c", versions: dict[str, str] | None = None) -> Identity:
    return Identity(name, name, "data", code, versions or SAME)


def wanted(*names: str, lr: str = "") -> list[Wanted]:
    return [
        Wanted((f"seed={name}", *([f"lr={lr}"] if lr else [])), identity(name)) for name in names
    ]


def plan(*names: str, lr: str = "") -> Plan:
    jobs = wanted(*names, lr=lr)
    keys = [job.identity.key for job in jobs]
    return Plan.of("s", [job.overrides for job in jobs], keys, list(map(str, range(len(names)))))


def begun(folder: Path, known: Identity, status: Status | None = None, *files: str) -> Path:
    """Leave what a run leaves: its record, its result if it has ended, and empty files."""
    folder.mkdir(parents=True)
    record = Record("", [], "val/loss", epochs=2, identity=known)
    record.write(folder)
    if status:
        replace(record, status=status).write(folder)
    for name in files:
        (folder / name).touch()
    return folder


# --- which sweep goes on --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "asked", "expected"),
    [
        ("abc", "abc", 3),
        ("abc", "ab", 2),  # one holds all of the other
        ("ab", "abcd", 2),
        ("ab", "cd", 0),
        ("ab", "bc", 1),  # both vary the seed
        ("abc", "bcd", 2),
    ],
)
def test_a_sweep_is_the_same_if_one_holds_the_other_or_both_vary_the_same(
    known: str, asked: str, expected: int
) -> None:
    assert in_common(plan(*known), wanted(*asked)) == expected


def test_a_sweep_that_varies_another_setting_is_another_one() -> None:
    grid = [*wanted("a", lr="1"), *wanted("b", lr="2")]
    known = plan("b", "c", lr="2")
    assert in_common(known, grid) == 0
    assert in_common(known, wanted("b", "d", lr="2")) == 1


def test_of_several_sweeps_the_one_with_most_in_common_goes_on_and_then_the_newest(
    tmp_path: Path,
) -> None:
    assert earlier_sweep(tmp_path, wanted("a")) is None
    for age, (name, jobs) in enumerate(
        [("damaged", ""), ("other", "x"), ("old", "ab"), ("new", "ab"), ("few", "a")]
    ):
        folder = tmp_path / name
        folder.mkdir()
        plan(*jobs).write(folder) if jobs else (folder / "plan.json").write_text("{")
        os.utime(folder / "plan.json", (age, age))
    assert earlier_sweep(tmp_path, wanted("a", "b", "c")) == tmp_path / "new"
    os.utime(tmp_path / "old" / "plan.json", (9, 9))
    assert earlier_sweep(tmp_path, wanted("a", "b", "c")) == tmp_path / "old"
    assert earlier_sweep(tmp_path, wanted("x", "y")) == tmp_path / "other"
    assert earlier_sweep(tmp_path, wanted("z")) is None


# --- where each job stands ------------------------------------------------------------------------


def standings(folder: Path, known: Plan | None, jobs: Sequence[Wanted]) -> list[tuple[int, State]]:
    return [(one.number, one.state) for one in stand(folder, known, jobs)]


def test_where_a_job_stands_is_read_from_its_folder(tmp_path: Path) -> None:
    begun(tmp_path / "0", identity("a"), "FINISHED")
    begun(tmp_path / "1", identity("b"), "KILLED", CHECKPOINT)
    begun(tmp_path / "2", identity("c"), None, PREVIOUS)
    begun(tmp_path / "3", identity("d"), "FAILED")
    assert standings(tmp_path, plan(*"abcde"), wanted(*"abcdefg")) == [
        (0, State.DONE),
        (1, State.GOES_ON),
        (2, State.GOES_ON),
        (3, State.AGAIN),
        (4, State.NEW),  # it has not begun
        (5, State.NEW),
        (6, State.NEW),
    ]
    assert standings(tmp_path, None, wanted("a", "b")) == [(0, State.NEW), (1, State.NEW)]


def test_a_folder_that_holds_another_run_gives_its_job_a_new_number(tmp_path: Path) -> None:
    begun(tmp_path / "0", identity("longer"), "FINISHED")
    begun(tmp_path / "1", identity("b"))
    (tmp_path / "1" / "run.json").write_text("{")
    assert standings(tmp_path, plan("a", "b"), wanted("a", "b")) == [
        (2, State.NEW),
        (3, State.NEW),
    ]


@pytest.mark.parametrize(
    ("code", "versions", "status", "rerun", "expected"),
    [
        ("old", SAME, "FINISHED", "missing", Standing(0, State.DONE, True)),
        ("old", SAME, "FINISHED", "code", Standing(1, State.NEW, True)),
        ("c", SAME, "FINISHED", "code", Standing(0, State.DONE)),
        ("old", SAME, "KILLED", "missing", Standing(1, State.NEW, True)),
        ("c", OTHER, "KILLED", "missing", Standing(1, State.NEW, True)),
        ("c", SAME, "KILLED", "code", Standing(0, State.GOES_ON)),
    ],
)
def test_what_other_code_has_computed(
    code: str,
    versions: dict[str, str],
    status: Status,
    rerun: str,
    expected: Standing,
    tmp_path: Path,
) -> None:
    begun(tmp_path / "0", identity("a", code, versions), status, CHECKPOINT)
    assert stand(tmp_path, plan("a"), wanted("a"), rerun) == [expected]  # type: ignore[arg-type]


def test_jobs_of_one_identity_are_told_apart_by_their_overrides(tmp_path: Path) -> None:
    jobs = [Wanted((f"tags.x={k}",), identity("a")) for k in range(3)]
    known = Plan.of(
        "s", [job.overrides for job in jobs], [job.identity.key for job in jobs], ["0", "1", "2"]
    )
    asked = [jobs[1], Wanted(("tags.x=9",), identity("a")), jobs[0], jobs[2]]
    numbers = [one.number for one in stand(tmp_path, known, asked)]
    assert numbers == [1, 2, 0, 3]  # of those left, the newest; then there is none


def test_a_run_whose_process_ends_soon_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begun(tmp_path / "0", identity("a"))
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds
        if clock[0] > limit:
            disown(folder)

    monkeypatch.setattr("src.sweep.convergence.time.sleep", sleep)
    monkeypatch.setattr("src.sweep.convergence.time.monotonic", lambda: clock[0])
    own(folder)
    limit = 29.0
    assert standings(tmp_path, plan("a"), wanted("a")) == [(0, State.AGAIN)]
    own(folder)
    limit = 1000.0
    clock[0] = 0.0
    with pytest.raises(ConfigError, match="another process is training this run"):
        wait_for_owner(folder)
    assert 30 < clock[0] < 31
    disown(folder)
    begun(tmp_path / "1", identity("b"), "FINISHED")
    own(tmp_path / "1")  # nobody waits for what has finished
    assert standings(tmp_path, plan("a", "b"), wanted("b")) == [(1, State.DONE)]
    disown(tmp_path / "1")


def test_a_run_that_was_pruned_before_is_done_in_a_sweep_that_prunes(tmp_path: Path) -> None:
    known = plan("a", "b", "c")
    begun(tmp_path / "0", identity("a"), "PRUNED")
    begun(tmp_path / "1", identity("b"), "KILLED")
    found = {}
    for state in (State.GOES_ON, State.AGAIN, State.NEW):
        for number in (0, 1):
            standing = with_pruned(tmp_path, known, Standing(number, state))
            assert standing.number == number
            found[number, state] = standing.state
    assert found == {
        (0, State.GOES_ON): State.DONE,
        (0, State.AGAIN): State.DONE,
        (0, State.NEW): State.NEW,
        (1, State.GOES_ON): State.GOES_ON,
        (1, State.AGAIN): State.AGAIN,
        (1, State.NEW): State.NEW,
    }


# --- what is said of it ---------------------------------------------------------------------------


def count(done: int = 0, goes_on: int = 0, again: int = 0, new: int = 0) -> list[Standing]:
    states = zip(State, (done, goes_on, again, new), strict=True)
    return [Standing(0, state) for state, number in states for _ in range(number)]


@pytest.mark.parametrize(
    ("known", "line"),
    [
        (count(new=3), None),
        (count(done=1), "1 of 1 runs was done before"),
        (count(done=2, new=1), "2 of 3 runs were done before; 1 is new"),
        (
            count(goes_on=1, again=1, new=2),
            "0 of 4 runs were done before; 1 goes on from a checkpoint; 1 begins again; 2 are new",
        ),
        (
            count(goes_on=2, again=2),
            "0 of 4 runs were done before; 2 go on from a checkpoint; 2 begin again",
        ),
    ],
)
def test_what_was_done_and_is_left(known: list[Standing], line: str | None) -> None:
    assert told(known) == line


def test_what_other_code_has_computed_is_said() -> None:
    done, anew = Standing(0, State.DONE, True), Standing(0, State.NEW, True)
    others = count(1, 1, 1, 1)
    assert told_of_code(others, "missing") is None
    assert told_of_code([done, *others], "missing") == (
        "1 run was computed by other code: rerun=code computes them again"
    )
    assert told_of_code([done, done, anew], "missing") == (
        "2 runs were computed by other code: rerun=code computes them again; "
        "1 run of other code begins anew: it can't go on with this code"
    )
    assert told_of_code([anew, anew], "code") == "2 runs of other code begin anew"


# --- the plan -------------------------------------------------------------------------------------


def test_a_plan_that_grows_keeps_the_numbers_of_its_jobs(tmp_path: Path) -> None:
    jobs = wanted(*"abcd")
    first = Plan.extended(
        None, tmp_path, [(0, jobs[0], tmp_path / "0"), (1, jobs[1], tmp_path / "1")]
    )
    assert first == replace(plan("a", "b"), sweep_id=tmp_path.name)
    stacks = replace(first, stacks=((0, 1),))
    known = [
        (3, jobs[3], tmp_path / "x" / "3"),
        (1, jobs[1], tmp_path / "1"),
        (2, jobs[2], tmp_path / "2"),
    ]
    grown = Plan.extended(stacks, tmp_path, known)
    assert grown.overrides == tuple(job.overrides for job in jobs)
    assert grown.identities == tuple(job.identity.key for job in jobs)
    assert grown.folders == ("0", "1", "2", "x/3")
    assert grown.stacks == ((0, 1),)
    assert len(grown.names) == 4


@pytest.mark.parametrize(
    "change",
    [{"names": ["one"]}, {"identities": ["one"]}, {"folders": ["0", "1", "2"]}, {"overrides": 1}],
)
def test_a_damaged_plan_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    import json

    plan("a", "b").write(tmp_path)
    assert Plan.load(tmp_path) == plan("a", "b")
    path = tmp_path / "plan.json"
    known = json.loads(path.read_text())
    path.write_text(json.dumps({**known, "identities": [], "folders": []}))
    assert Plan.load(tmp_path) is not None  # as an older sweep's
    path.write_text(json.dumps({**known, **change}))
    with pytest.raises(ConfigError, match="not the plan of a sweep"):
        Plan.load(tmp_path)


def test_a_part_of_a_plan_has_the_names_of_the_whole() -> None:
    whole = plan(*"abc")
    assert whole.names == ("seed=a", "seed=b", "seed=c")
    part = whole.part([2, 0])
    assert (part.sweep_id, part.names) == ("s", ("seed=c", "seed=a"))
    assert part.overrides == (("seed=c",), ("seed=a",))


def test_what_does_not_change_the_result_is_no_part_of_a_name() -> None:
    given = ["lr=1", "outputs=x", "tracking/uri=y", "checkpoint.every=2", "sweep=card", "seed=3"]
    assert run_name(given) == "seed=3, lr=1"


def test_results_are_read_from_the_folders_or_say_why_there_is_none(tmp_path: Path) -> None:
    folders = [tmp_path / str(n) for n in range(4)]
    done = Record("seed=a", ["seed=a"], "val/loss", status="FINISHED", value=0.5)
    for folder in folders[:2]:
        folder.mkdir()
    done.write(folders[0])
    (folders[1] / "result.json").write_text("{")
    reasons: dict[int, tuple[Status, str]] = {2: ("KILLED", "interrupted"), 0: ("KILLED", "no")}
    found = collect(plan(*"abcd"), folders, reasons, "val/loss")
    assert found[0] == Record.load(folders[0])
    assert found[0].value == 0.5
    assert [(one.name, one.status) for one in found[1:]] == [
        ("seed=b", "LOST"),
        ("seed=c", "KILLED"),
        ("seed=d", "LOST"),
    ]
    assert "not the record of a run" in str(found[1].failure)
    assert found[2].failure == "interrupted"
    assert {one.metric for one in found} == {"val/loss"}


def test_a_result_has_the_value_of_the_metric_that_is_asked_for() -> None:
    metrics = {"test/loss": 0.7}
    known = Record("", [], "val/loss", status="FINISHED", value=0.5, metrics=metrics)
    assert in_metric(known, "test/loss") == replace(known, metric="test/loss", value=0.7)
    assert in_metric(known, "val/loss") is known
    assert in_metric(known, "test/accuracy") is known
    failed = replace(known, value=None)
    assert in_metric(failed, "test/loss") is failed
    same = replace(known, metrics={"val/loss": 0.6})
    assert in_metric(same, "val/loss").value == 0.5

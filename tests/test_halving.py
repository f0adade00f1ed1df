"""Sweeps in which the worse runs leave early: what stays is what it would be without."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from src.runs.recorder import Finished
from src.sweep.pruning import Halving, Reached, Rounds, await_verdict, rungs
from src.sweep.stack import Stack
from tests.conftest import Ended, run
from tests.test_stacked import assignments

SWEEP = [
    "model=relu2_small,sigmoid3",
    "lr=0.001,0.1,1e9",
    "seed=0,1",
    "epochs=9",
    "hydra.launcher.workers=2",
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """The sweep without halving."""
    return run(tmp_path_factory.mktemp("whole"), "-m", *SWEEP)


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """The same sweep; one in three of six configurations stays, then one."""
    return run(
        tmp_path_factory.mktemp("halved"), "-m", *SWEEP, "sweep.halving=3", "sweep.exact=true"
    )


def results(ended: Ended) -> list[dict[str, object]]:
    return [json.loads((folder / "result.json").read_text()) for folder in ended.folders]


def values(folder: Path) -> list[tuple[str, ...]]:
    """Return the history of a run but for its times; nothing if its first epoch diverged."""
    lines = (folder / "history.csv").read_text().splitlines()
    if not lines:
        return []
    timed = {lines[0].split(",").index(name) for name in ("seconds", "time")}
    return [
        tuple(value for i, value in enumerate(line.split(",")) if i not in timed) for line in lines
    ]


@pytest.mark.slow
def test_runs_that_stay_have_the_bytes_of_the_sweep_without_halving(
    whole: Ended, halved: Ended
) -> None:
    assert "stack" in halved.out
    stayed = [n for n, result in enumerate(results(halved)) if result["status"] == "FINISHED"]
    assert len(stayed) == 2  # the seeds of one configuration
    for n in stayed:
        ours, theirs = (ended.folders[n] for ended in (halved, whole))
        assert (ours / "weights.npz").read_bytes() == (theirs / "weights.npz").read_bytes()
        assert values(ours) == values(theirs)


@pytest.mark.slow
def test_runs_that_leave_have_the_epochs_of_the_sweep_without_halving_so_far(
    whole: Ended, halved: Ended
) -> None:
    left = [n for n, result in enumerate(results(halved)) if result["status"] == "PRUNED"]
    lengths = set()
    for n in left:
        ours, theirs = (values(ended.folders[n]) for ended in (halved, whole))
        assert ours == theirs[: len(ours)]
        lengths.add(len(ours) - 1)
    assert lengths == {1, 3}  # the rungs of 9 epochs


@pytest.mark.slow
def test_the_best_at_each_rung_stay_and_a_run_that_failed_is_behind(
    whole: Ended, halved: Ended
) -> None:
    """An independent count over the histories of the whole sweep."""
    histories = [values(folder) for folder in whole.folders]
    column = histories[0][0].index("val/accuracy")

    def mean(pair: int, epoch: int) -> float:
        own = [histories[n] for n in (2 * pair, 2 * pair + 1)]
        if any(len(history) <= epoch for history in own):
            return -1.0  # one has diverged
        return float(np.mean([float(history[epoch][column]) for history in own]))

    first = sorted(range(6), key=lambda pair: -mean(pair, 1))[:2]
    second = sorted(first, key=lambda pair: -mean(pair, 3))[:1]
    found = results(halved)
    finished = {n // 2 for n, result in enumerate(found) if result["status"] == "FINISHED"}
    assert finished == set(second)
    for pair in range(6):
        statuses = {found[n]["status"] for n in (2 * pair, 2 * pair + 1)}
        assert statuses <= {"FINISHED", "PRUNED", "FAILED"}
        if mean(pair, 1) == -1.0:
            assert pair not in first


@pytest.mark.slow
def test_runs_that_left_are_tagged_and_are_no_failures(halved: Ended, whole: Ended) -> None:
    client = MlflowClient(halved.store)
    experiments = [e.experiment_id for e in client.search_experiments()]
    found = client.search_runs(experiments)
    by_folder = {Path(run.data.tags["output_dir"]).name: run for run in found}
    for number, result in enumerate(results(halved)):
        mlflow_run = by_folder[str(number)]
        assert mlflow_run.info.status == ("FAILED" if result["status"] == "FAILED" else "FINISHED")
        assert ("pruned" in mlflow_run.data.tags) == (result["status"] == "PRUNED")
        assert ("failure" in mlflow_run.data.tags) == (result["status"] == "FAILED")
    assert "left early" in halved.out
    failed = any(result["status"] == "FAILED" for result in results(halved))
    assert halved.code == whole.code == int(failed)


@pytest.mark.slow
def test_what_was_saved_is_counted(halved: Ended) -> None:
    found = results(halved)
    left = [n for n, result in enumerate(found) if result["status"] == "PRUNED"]
    saved = sum(9 - (len(values(halved.folders[n])) - 1) for n in left)
    assert f"{len(left)} of 12 runs left early: {saved} of 108 epochs less" in halved.out


@pytest.mark.slow
def test_the_same_command_again_has_nothing_to_do_and_without_halving_all_go_on(
    invoke: Callable[..., Ended],
) -> None:
    sweep = ["-m", "model=relu2_small", "lr=0.01,0.03,0.1", "epochs=9"]
    assert invoke(*sweep, "sweep.halving=3", tracked=True).code == 0
    again = invoke(*sweep, "sweep.halving=3", tracked=True)
    assert "3 of 3 runs were done before" in again.out
    assert [r["status"] for r in results(again)].count("PRUNED") == 2
    on = invoke(*sweep, tracked=True)
    assert "2 go on from a checkpoint" in on.out
    assert [r["status"] for r in results(on)] == ["FINISHED"] * 3
    assert len(on.folders) == 3
    found = on.runs_in_mlflow()
    assert len(found) == 3
    assert not any("pruned" in run.tags for run in found)


def pruned_stack(folder: Path, shrinks: bool) -> tuple[Stack, list[int]]:
    """Train four runs, of which two leave after two of six epochs."""
    settings = ["model=relu2_small", "dtype=float64", "epochs=6", "tracking.offline=true"]
    runs = assignments(folder, *([*settings, f"lr={lr}"] for lr in (0.01, 0.02, 0.05, 0.1)))
    told: list[int | Path] = []
    with Stack(runs, told.append, shrinks=shrinks) as stack:
        stack.train(until=2)
        assert [stack.prune(i, "others are better") for i in (0, 2)] == [4, 4]
        stack.train()
        stack.finish()
    return stack, [news for news in told if isinstance(news, int)]


@pytest.mark.slow
def test_a_smaller_stack_agrees_to_rounding_and_computes_nothing_along(tmp_path: Path) -> None:
    (small, told), (whole, same) = (pruned_stack(tmp_path / str(s), s) for s in (True, False))
    assert told == same == [4, 4, 2, 2, 2, 2]
    assert (small.idle, whole.idle) == (0, 8)
    for i in (1, 3):
        ours, theirs = small.outcomes[i], whole.outcomes[i]
        assert isinstance(ours, Finished)
        assert isinstance(theirs, Finished)
        for a, b in zip(ours.parameters, theirs.parameters, strict=True):
            for x, y in zip(a, b, strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("configurations", "epochs", "factor", "expected"),
    [
        (27, 81, 3, [3, 9, 27]),
        (12, 18, 3, [1, 2, 6]),
        (1, 9, 3, []),
        (2, 10, 2, [5]),
        (9, 2, 3, [1]),
    ],
)
def test_rungs(configurations: int, epochs: int, factor: int, expected: list[int]) -> None:
    assert rungs(configurations, epochs, factor) == expected


def test_configurations_rank_by_the_mean_of_their_seeds_and_failures_last() -> None:
    pairs = {n: n // 2 for n in range(6)}
    values = {0: 0.9, 1: None, 2: 0.3, 3: 0.5, 4: 0.2, 5: 0.4}
    accuracy = Halving(2, pairs, 8, "val/accuracy").judge(2, values)
    assert set(accuracy.leaving) == {0, 1}  # a run failed, although the other is the best
    assert "rank 3 of 3" in accuracy.leaving[0]
    assert "a run failed" in accuracy.leaving[0]
    loss = Halving(3, pairs, 8, "val/loss").judge(2, values)
    assert set(loss.leaving) == {0, 1, 2, 3}  # the lowest mean stays
    best = Halving(3, pairs, 8, "val/accuracy").judge(2, values)
    assert set(best.leaving) == {0, 1, 4, 5}


def test_a_worker_that_dies_is_not_waited_for_and_its_runs_are_the_worst(tmp_path: Path) -> None:
    judge = Halving(2, {n: n for n in range(4)}, 8, "val/accuracy")
    assert judge.rungs == [2, 4]
    rounds = Rounds(judge, tmp_path, range(4))
    rounds.hear(Reached(2, {0: 0.5, 1: None}))
    assert list(tmp_path.iterdir()) == []
    rounds.lose([2, 3])
    assert set(await_verdict(tmp_path, 2)) <= {1, 2, 3}
    assert len(await_verdict(tmp_path, 2)) == 2
    rounds.hear(Reached(4, dict.fromkeys({0, 1} - set(await_verdict(tmp_path, 2)), 0.4)))
    assert 0 not in await_verdict(tmp_path, 4)


def test_decisions_of_an_interrupted_sweep_stay(tmp_path: Path) -> None:
    judge = Halving(2, {n: n for n in range(4)}, 8, "val/loss")
    Rounds(judge, tmp_path, range(4)).hear(Reached(2, {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4}))
    assert set(await_verdict(tmp_path, 2)) == {2, 3}  # a loss: the lowest stay
    again = Rounds(judge, tmp_path, [0, 1, 3])  # 3 was killed before it could leave
    again.hear(Reached(2, {0: 0.9, 1: 0.8, 3: 0.1}))
    assert set(await_verdict(tmp_path, 2)) == {2, 3}
    again.hear(Reached(4, {0: 0.2, 1: 0.1}))
    assert set(await_verdict(tmp_path, 4)) == {0}
    Rounds(judge, tmp_path, range(5))  # other jobs: nothing of it counts
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep.halving=1"], "sweep.halving=1: must be 2 or more"),
        (["sweep.halving=3", "epochs=2,3"], "sweep.halving=3: the runs differ in epochs"),
        (["sweep.halving=3", "metric=test/accuracy"], "use metric=val/accuracy"),
        (["sweep.halving=3", "hydra/launcher=basic"], "needs hydra/launcher=stacked"),
    ],
)
def test_what_can_not_be_halved_is_refused(
    arguments: list[str], message: str, invoke: Callable[..., Ended], tmp_path: Path
) -> None:
    ended = invoke("-m", "lr=0.1,0.2", *arguments)
    assert ended.code == 2, ended.out + ended.err
    assert message in ended.err
    assert list(tmp_path.iterdir()) == []

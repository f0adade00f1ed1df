"""Sweeps whose runs train in stacks: each is what it would be alone, and no failure spreads."""

import contextlib
import csv
import gc
import json
import os
import pickle
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from omegaconf import OmegaConf, open_dict

from src.config.composition import compose, composer
from src.config.hydra_internals import config_loader
from src.config.preflight import check
from src.data import Dataset, Source, Splitting
from src.data.digits import Digits
from src.runs.context import RunContext
from src.runs.record import Record
from src.runs.recorder import Finished, Recorder
from src.sweep import launcher as launcher_module
from src.sweep.composing import Composer
from src.sweep.executors import LocalExecutor, WorkerDied, start_method
from src.sweep.grouping import Member, group, likeness, sizes
from src.sweep.jobs import SweepJob
from src.sweep.sharing import SharedData, load
from src.sweep.stack import Assignment, run_stack
from src.tracking.told import pending
from src.training.training_run import Epoch
from tests.conftest import ROOT, Ended, command, run
from tests.test_resume import run_id_of
from tests.test_run import runs, wait_for, wait_for_a_run


def history(folder: Path) -> list[dict[str, float]]:
    with (folder / "history.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def assignments(folder: Path, *jobs: list[str]) -> list[Assignment]:
    """Return runs that are ready, as the launcher makes them ready."""
    made = []
    with composer():
        for number, overrides in enumerate(jobs):
            job, prepared = check(compose([*overrides, f"outputs={folder}"]))
            own = folder / str(number)
            own.mkdir(parents=True)
            made.append(
                Assignment(
                    job, prepared, RunContext(own, f"job {number}", overrides, {"seed": number})
                )
            )
    return made


# --- what a run of a stack comes to -----------------------------------------------------------

SWEEPS = {
    "per sample": ["batching=sample", "lr=0.01,0.02,0.03,0.05", "seed=0,1,2,3", "epochs=2"],
    "per sample, decay": [
        "batching=sample",
        "optimizer.weight_decay=0,1e-5,1e-4,1e-3",
        "seed=0,1,2,3",
        "epochs=2",
        "lr=0.02",
    ],
    "mini-batches": ["batching.size=50", "lr=0.1,0.3", "seed=0,1,2,3", "epochs=3"],
    "full batch": ["batching=full", "lr=0.1,0.3,0.5,1", "epochs=20"],
    "momentum": ["optimizer=momentum", "optimizer.weight_decay=0,1e-3", "seed=0,1", "epochs=3"],
    "adam, separate splits": [
        "optimizer=adam",
        "lr=0.001,0.01,0.002,0.02",
        "data.split.seed=1,2",
        "epochs=3",
    ],
    "dropout": ["model.dropout=0.2", "lr=0.1,0.3", "seed=0,1", "epochs=3"],
    "initializers": ["initializer=xavier,uniform,zeros,he", "epochs=3", "model.activation=relu"],
    "schedules and stopping": [
        "schedule=constant,cosine,plateau",
        "stopping=early",
        "stopping.patience=1,50",
        "epochs=12",
        "lr=0.5",
    ],
}

OFTEN = ("mini-batches", "full batch", "dropout")  # the others take minutes together


@pytest.mark.slow
@pytest.mark.parametrize(
    "sweep",
    [sweep if sweep in OFTEN else pytest.param(sweep, marks=pytest.mark.long) for sweep in SWEEPS],
)
def test_each_run_of_a_stack_agrees_with_the_run_made_alone(
    sweep: str, invoke: Callable[..., Ended]
) -> None:
    ended = invoke(
        "-m", "hydra.launcher.workers=1", "dtype=float64", "model.hidden=[12,8]", *SWEEPS[sweep]
    )
    assert ended.code == 0, ended.out + ended.err
    together = ended.folders
    assert all(len(Record.load(folder).stack) > 1 for folder in together)
    for folder in (together[0], together[len(together) // 2], together[-1]):
        before = set((ended.outputs / "runs").glob("*"))
        alone = invoke(*OmegaConf.load(folder / ".hydra" / "overrides.yaml"))
        assert alone.code == 0, alone.err
        (by_itself,) = set((ended.outputs / "runs").iterdir()) - before
        both = [history(by_itself), history(folder)]
        assert len(both[0]) == len(both[1])
        for one, other in zip(*both, strict=True):
            assert one.keys() == other.keys()
            for key in one.keys() - {"seconds", "time"}:
                assert one[key] == pytest.approx(other[key], rel=1e-9, abs=1e-12), key
        weights = [np.load(place / "weights.npz") for place in (by_itself, folder)]
        for name in weights[0].files:
            np.testing.assert_allclose(weights[1][name], weights[0][name], rtol=1e-8, atol=1e-10)


@pytest.fixture(scope="module")
def stacked(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A sweep in one worker of eight runs that train together: four diverge, two stop early."""
    folder = tmp_path_factory.mktemp("stacked")
    (folder / "spied").mkdir()
    return run(
        folder,
        "-m",
        "hydra.launcher.workers=1",
        "model=relu2",
        "epochs=4",
        "lr=0.1,1e20",
        "seed=0,1",
        "stopping=early",
        "stopping.patience=2",
        "stopping.min_delta=0,10",
        "+hydra.callbacks.spy._target_=tests.spy.Spy",
        f"+hydra.callbacks.spy.folder={folder / 'spied'}",
        "+hydra.job.env_set.SPIED=seen",
    )


@pytest.mark.slow
def test_what_ends_one_run_of_a_stack_leaves_the_others_alone(stacked: Ended) -> None:
    assert "8 runs: 2 stacks of 4; 1 process" in stacked.out
    assert stacked.code == 1
    results = [Record.load(folder) for folder in stacked.folders]
    for result in results:
        diverged, stops = (
            "lr=1e+20" in result.overrides,
            "stopping.min_delta=10" in result.overrides,
        )
        assert result.status == ("FAILED" if diverged else "FINISHED"), result
        assert ("loss became" in str(result.failure)) == diverged
        assert len(history(stacked.folders[results.index(result)])) == (
            0 if diverged else 3 if stops else 4
        )
    statuses = {run.data.tags["output_dir"]: run.info.status for run in runs(stacked)}
    assert statuses == {
        str(folder): result.status for folder, result in zip(stacked.folders, results, strict=True)
    }
    assert "4 of 8 finished" in stacked.out


@pytest.mark.slow
def test_each_run_of_a_stack_has_a_folder_a_log_and_artifacts_of_its_own(stacked: Ended) -> None:
    client = MlflowClient(stacked.store)
    for number, folder in enumerate(stacked.folders):
        result = Record.load(folder)
        assert OmegaConf.load(folder / ".hydra" / "hydra.yaml").hydra.job.num == number
        assert list(OmegaConf.load(folder / ".hydra" / "overrides.yaml")) == list(result.overrides)
        log = (folder / "run.log").read_text() if result.status == "FINISHED" else ""
        assert log.count("finished in") == (result.status == "FINISHED")
        run_id = run_id_of(folder)
        found = client.get_run(run_id)
        assert found.data.tags["output_dir"] == str(folder)
        config = client.list_artifacts(run_id, "config")
        assert [item.path for item in config] == ["config/config.yaml"]
        if result.status == "FINISHED":
            assert client.get_metric_history(run_id, "train/loss")[-1].step == len(history(folder))


@pytest.mark.slow
def test_callbacks_hear_of_each_job_when_it_starts_and_when_it_has_ended(stacked: Ended) -> None:
    spied = stacked.outputs / "spied"
    for number, folder in enumerate(stacked.folders):
        result = Record.load(folder)
        start = json.loads((spied / f"{number}.start").read_text())
        end = json.loads((spied / f"{number}.end").read_text())
        assert start == {"told": "seen", "name": "run", "trained": False}
        assert end["trained"]
        status, value = end["told"]
        if result.status == "FINISHED":
            assert (status, value) == ("COMPLETED", result.value)
        else:
            assert (status, value) == ("FAILED", result.failure)


@pytest.mark.slow
def test_a_full_disk_ends_its_own_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = Recorder.add

    def full(self: Recorder, epoch: Epoch) -> None:
        if self._context.name == "job 1" and epoch.number == 2:
            raise OSError(28, "No space left on device")
        add(self, epoch)

    monkeypatch.setattr(Recorder, "add", full)
    told: list[int | Path] = []
    outcomes = run_stack(
        assignments(tmp_path, *([f"seed={seed}", "epochs=3"] for seed in range(3))), told.append
    )
    assert str(outcomes[1]) == "OSError: [Errno 28] No space left on device"
    assert isinstance(outcomes[0], Finished)
    assert isinstance(outcomes[2], Finished)
    assert [news for news in told if isinstance(news, int)] == [3, 3, 2]
    assert sorted(news for news in told if isinstance(news, Path)) == [
        tmp_path / str(n) for n in range(3)
    ]
    statuses = [Record.load(tmp_path / str(n)).status for n in range(3)]
    assert statuses == ["FINISHED", "FAILED", "FINISHED"]


def test_an_interruption_closes_every_open_run_and_goes_on(tmp_path: Path) -> None:
    def interrupt(news: int | Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stack(assignments(tmp_path, ["seed=1"], ["seed=2"]), interrupt)
    results = [Record.load(tmp_path / str(n)) for n in (0, 1)]
    assert [(result.status, result.failure) for result in results] == [
        ("KILLED", "interrupted")
    ] * 2
    assert [len(history(tmp_path / str(n))) for n in (0, 1)] == [1, 1]


@pytest.mark.slow
def test_an_interruption_while_one_run_is_finished_ends_them_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = Recorder.finish

    def interrupted(self: Recorder) -> None:
        if self._context.name == "job 1":
            raise KeyboardInterrupt
        finish(self)

    monkeypatch.setattr(Recorder, "finish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_stack(
            assignments(tmp_path, *([f"seed={k}", "epochs=1"] for k in range(3))), lambda news: None
        )
    assert [Record.load(tmp_path / str(n)).status for n in range(3)] == [
        "FINISHED",
        "KILLED",
        "KILLED",
    ]


# --- which train together ---------------------------------------------------------------------


def member(*overrides: str) -> Member:
    with composer():
        return Member.of(check(compose(list(overrides)))[1])


def test_what_differs_in_rates_seeds_starts_and_penalties_trains_together_and_nothing_else() -> (
    None
):
    base = likeness(member())
    same = [
        ["lr=0.5"],
        ["seed=3"],
        ["initializer=he"],
        ["schedule=cosine"],
        ["stopping=early"],
        ["data.split.seed=5"],
        ["optimizer.weight_decay=1e-3"],
        ["train_metrics=exact"],
        ["metric=test/loss"],
        ["diagnose=2"],
    ]
    for overrides in same:
        assert likeness(member(*overrides)) == base, overrides
    other = [
        ["model=relu2"],
        ["batching.size=64"],
        ["batching=full"],
        ["optimizer=adam"],
        ["epochs=3"],
        ["dtype=float64"],
        ["loss=squared_error"],
        ["data.split.val=100"],
        ["optimizer.clip_norm=1"],
        ["batching.shuffle=false"],
    ]
    for overrides in other:
        assert likeness(member(*overrides)) != base, overrides
    assert likeness(member("engine=plain")) is None


def test_every_run_is_in_one_group_and_those_of_a_seed_side_by_side() -> None:
    grid = [member(f"seed={seed}", f"lr={lr}") for lr in (0.1, 0.2) for seed in range(4)]
    groups = group([*grid, member("engine=plain")])
    assert sorted(n for numbers in groups for n in numbers) == list(range(9))
    assert [8] in groups
    assert sorted(map(len, groups)) == [1, 4, 4]
    for numbers in groups:
        seeds = [n % 4 for n in numbers]
        assert len(numbers) == 1 or sorted(seeds) in ([0, 0, 1, 1], [2, 2, 3, 3])
    assert sorted(group(grid, 1)) == [[n] for n in range(8)]
    assert sorted(map(len, group(grid * 2, 5))) == [4, 4, 4, 4]


@pytest.mark.slow
def test_a_sweep_is_divided_in_two_and_no_stack_has_more_than_32_networks() -> None:
    grid = [member(f"lr={k + 1}") for k in range(96)]
    for count, expected in {2: [1, 1], 4: [2, 2], 12: [6, 6], 32: [16, 16], 64: [32, 32]}.items():
        assert sorted(map(len, group(grid[:count]))) == expected
    assert max(map(len, group(grid))) <= 32
    kinds = [
        member(f"lr={lr}", f"model.hidden=[{units}]")
        for units in (14, 15, 16)
        for lr in (0.1, 0.2, 0.3)
    ]
    assert sorted(group(kinds)) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


@pytest.mark.slow
def test_the_number_of_cores_decides_only_how_stacks_are_distributed(
    tmp_path: Path,
) -> None:
    arguments = ("-m", "model=sigmoid3", "epochs=2", "seed=0,1", "lr=0.1,0.3,0.5,0.7")
    one, two = (run(tmp_path / str(n), *arguments, f"hydra.launcher.workers={n}") for n in (1, 2))
    assert (one.code, two.code) == (0, 0), one.err + two.err
    client = MlflowClient(one.store)
    for number, folders in enumerate(zip(one.folders, two.folders, strict=True)):
        results = [Record.load(folder) for folder in folders]
        assert results[0].stack == results[1].stack
        assert len(results[0].stack) == 4
        assert results[0].stack[results[0].stack_position or 0] == number
        weights = [(folder / "weights.npz").read_bytes() for folder in folders]
        assert weights[0] == weights[1]
        tags = client.get_run(run_id_of(folders[0])).data.tags
        assert tags["stack"] == " ".join(map(str, results[0].stack))
        assert tags["stack_position"] == str(results[0].stack_position)


@pytest.mark.parametrize(
    ("overrides", "in_one_order", "in_orders"),
    [
        (["model=sigmoid3"], range(2, 33), range(4, 33)),
        (["model=sigmoid3", "batching.size=128"], range(2, 33), range(4, 21)),
        (["model=sigmoid3", "batching=sample"], range(8, 33), range(8, 33)),
        (["model=relu2"], range(4, 16), range(0)),
        (["model=relu2", "batching=sample"], range(8, 33), range(8, 33)),
        (["model=relu3", "batching=sample"], range(0), range(0)),
        (["model.hidden=[300]"], range(0), range(0)),
    ],
)
def test_as_many_train_in_a_stack_as_were_measured_to_be_faster(
    overrides: list[str], in_one_order: range, in_orders: range
) -> None:
    example = member(*overrides)
    for one_order, expected in ((True, in_one_order), (False, in_orders)):
        found = sizes(example, one_order)
        assert (found.start, found.stop) == (expected.start, expected.stop) or not (
            found or expected
        )


def test_orders_that_are_not_faster_in_one_stack_stay_apart() -> None:
    grid = [
        member(f"seed={seed}", f"lr={lr}", "model=relu2")
        for lr in (0.1, 0.2, 0.3, 0.4)
        for seed in (0, 1)
    ]
    assert sorted(group(grid)) == [[0, 2, 4, 6], [1, 3, 5, 7]]
    grid = [member(f"seed={seed}", "model=relu2") for seed in range(5)]
    assert sorted(group(grid)) == [[n] for n in range(5)]


# --- the parts --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "grid",
    [
        [["lr=0.1", "seed=0"], ["lr=0.2", "seed=0"], ["lr=1e-3", "seed=7"]],
        [["model=relu2", "lr=0.1"], ["model=sigmoid3", "lr=0.1"], ["model=relu2", "lr=0.3"]],
        [["name='a b'", "lr=1"], ["name=null", "lr=2"], ["name=c", "lr=0.5"]],
        [["model.hidden=[5]", "lr=1"], ["model.hidden=[7,3]", "lr=2"]],
        [["+note=1", "lr=1"], ["+note=2", "lr=2"]],
        [["batching.size=3", "batching={size: 4}"], ["batching.size=5", "batching={size: 6}"]],
        [["data.split.seed=1", "data.split.val=0.1"], ["data.split.seed=2", "data.split.val=null"]],
        [["++batching.size=3"], ["++batching.size=4"]],
    ],
)
def test_a_job_composed_from_another_is_what_hydra_composes(grid: list[list[str]]) -> None:
    import src.run  # noqa: F401 (registers a resolver)

    with composer():
        master = compose([], with_hydra=True)
        ours = Composer(config_loader(), master)
        for number, job in enumerate([*grid, *grid]):
            theirs = config_loader().load_sweep_config(master, job)
            with open_dict(theirs):
                theirs.hydra.job.id, theirs.hydra.job.num = str(number), number
            config, composed = ours(job, number)
            assert OmegaConf.to_yaml(config) == OmegaConf.to_yaml(theirs)
            assert OmegaConf.to_yaml(composed.config()) == OmegaConf.to_yaml(theirs)


def test_shared_data_is_the_data_in_arrays_of_numpy_s_own() -> None:
    sources = [
        Digits(split=Splitting(train=None, val=10, test=10, shuffle=True, seed=seed))
        for seed in (1, 1, 2)
    ]
    sources[1] = replace(sources[1], scale=1 / 255)  # another source of the same data
    datasets: dict[Source, Dataset] = {source: source.load() for source in sources}
    with SharedData() as data:
        for source, dataset in datasets.items():
            data.share(source, dataset)
        assert len(set(data.paths.values())) == 2
        taken = load(data.paths)
    for source, dataset in datasets.items():
        ours = taken[source]
        assert (ours.digest, ours.name, ours.scale) == (dataset.digest, dataset.name, dataset.scale)
        for (_, one), (_, other) in zip(ours.splits(), dataset.splits(), strict=True):
            np.testing.assert_array_equal(one.images, other.images)
            np.testing.assert_array_equal(one.labels, other.labels)
            assert type(one.images) is np.ndarray
            assert not one.images.flags.writeable  # the file's own pages
    assert taken[sources[0]].train.images is taken[sources[1]].train.images


def mapped_files() -> list[str]:
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line for line in lines if "scratchgrid." in line]


@pytest.mark.slow
def test_a_sweep_shares_its_data_once_and_leaves_no_file_mapped(
    invoke: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    shared: list[int] = []
    stacked = launcher_module.StackedLauncher
    launch = stacked.launch

    def spy(self: Any, *arguments: Any, **named: Any) -> Any:
        shared.append(len({line.split()[-1] for line in mapped_files()}))
        return launch(self, *arguments, **named)

    monkeypatch.setattr(stacked, "launch", spy)
    ended = invoke("-m", "seed=0,1,2", "epochs=1", "hydra.sweeper.max_batch_size=1")
    assert ended.code == 0, ended.err
    assert shared == [1, 1, 1]
    gc.collect()
    assert mapped_files() == []


@pytest.mark.slow
def test_a_job_is_composed_and_checked_once_and_holds_no_weights(
    invoke: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    accepted: list[SweepJob] = []
    stacked = launcher_module.StackedLauncher
    compose_one, accept = Composer.__call__, stacked.accept

    def composing(self: Composer, overrides: list[str], number: int) -> Any:
        calls.append(number)
        return compose_one(self, overrides, number)

    def accepting(self: Any, jobs: list[SweepJob], data: SharedData, *ended: Any) -> None:
        accepted.extend(jobs)
        accept(self, jobs, data, *ended)

    monkeypatch.setattr(Composer, "__call__", composing)
    monkeypatch.setattr(stacked, "accept", accepting)
    ended = invoke("-m", "seed=0,1", "epochs=1", "model.hidden=[500]")
    assert ended.code == 0, ended.err
    assert calls == [0, 1]
    assert all(len(pickle.dumps(job)) < 20_000 for job in accepted)  # the weights take 1.6 MB


@pytest.mark.slow
def test_the_launcher_composes_the_jobs_of_other_sweepers(invoke: Callable[..., Ended]) -> None:
    ended = invoke("-m", "seed=0,1", "epochs=1", "hydra/sweeper=basic")
    assert ended.code == 0, ended.err
    assert [Record.load(folder).status for folder in ended.folders] == ["FINISHED"] * 2


class Unpicklable:
    """Raises where it is pickled, as open files and locks do."""

    def __reduce__(self) -> Any:
        raise TypeError("can't be pickled")


class Fatal:
    """Kills the process that receives it."""

    def __reduce__(self) -> Any:
        return os.kill, (OwnPid(), signal.SIGKILL)


class OwnPid:
    """Becomes the id of the process that unpickles it."""

    def __reduce__(self) -> Any:
        return os.getpid, ()


def labour(task: Any, tell: Callable[[Any], None]) -> Any:
    if isinstance(task, tuple):
        return "received"
    tell(task)
    if task == 1:
        raise ValueError("one is wrong")
    if task == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if task == 3:
        return Unpicklable()
    return task * 10, os.getpid()


def work_through(
    tasks: list[Any], work: Any = labour, hear: Callable[[Any], None] = lambda news: None
) -> list[Any]:
    """Return the result of each task, or its exception."""
    with LocalExecutor(2, start_method()) as executor:
        futures = [executor.submit(work, task) for task in tasks]
        done = list(executor.as_completed(hear))
    assert set(done) == set(futures)
    assert len(done) == len(futures)
    return [future.exception() or future.result() for future in futures]


def test_a_worker_that_fails_takes_its_own_task_with_it() -> None:
    heard: list[int] = []
    results = work_through([0, 1, 2, 3, 4, 5], hear=heard.append)
    assert sorted(heard) == [0, 1, 2, 3, 4, 5]
    assert [results[n][0] for n in (0, 4, 5)] == [0, 40, 50]
    assert str(results[1]) == "ValueError: one is wrong"
    assert isinstance(results[2], WorkerDied)
    assert "by signal 9" in str(results[2])
    assert str(results[3]) == "TypeError: can't be pickled"
    assert len({results[n][1] for n in (0, 4, 5)}) == 3  # a fresh process for each


@pytest.mark.parametrize("size", [1, 10_000_000])  # less and more than a pipe holds
def test_a_worker_that_dies_before_it_begins_fails_its_own_task(size: int) -> None:
    results = work_through([0, (Fatal(), b"x" * size), 4])
    assert [results[0][0], results[2][0]] == [0, 40]
    assert "by signal 9" in str(results[1]) or "BrokenPipe" in str(results[1])


def test_a_task_that_can_t_be_sent_fails_alone() -> None:
    results = work_through([0, (Unpicklable(),), 4])
    assert [results[0][0], results[2][0]] == [0, 40]
    assert str(results[1]) == "TypeError: can't be pickled"


def deaf(task: int, tell: Callable[[Any], None]) -> None:
    """Work through which the first interruption does not get."""
    while True:
        with contextlib.suppress(KeyboardInterrupt):
            tell(os.getpid())
            while True:
                time.sleep(0.01)
        tell("still here")


def test_an_interruption_that_is_dropped_comes_again() -> None:
    heard: list[Any] = []

    def hear(news: Any) -> None:
        heard.append(news)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work_through([0], deaf, hear)
    assert not Path(f"/proc/{heard[0]}").exists()
    assert len(heard) == 1


# --- ends before the end ----------------------------------------------------------------------


def workers_of(process: "subprocess.Popen[str]") -> dict[Path, int]:
    """Return which process works on which run's folder, among all that descend from one."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or str(process.pid) not in ancestors(entry.name):
            continue
        for link in (entry / "fd").glob("*"):
            try:
                target = link.readlink()
            except OSError:
                continue
            if target.name == "history.csv":
                found[target.parent] = int(entry.name)
    return found


def ancestors(pid: str) -> list[str]:
    chain = []
    while pid not in ("0", "1"):
        try:
            pid = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            break
        chain.append(pid)
    return chain


def begun(tmp_path: Path, *arguments: str) -> "subprocess.Popen[str]":
    """Start a sweep and wait until each of its four runs has an epoch."""
    process = subprocess.Popen(
        command(tmp_path, "-m", *arguments),
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A shell's background jobs ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    for number in range(4):
        wait_for(tmp_path, f"sweeps/*/{number}/history.csv")
    wait_for_a_run(tmp_path, 4)  # MLflow hears of them beside training
    return process


def statuses(tmp_path: Path) -> dict[str, str]:
    return {
        str(found.info.run_name): found.info.status for found in runs(Ended(tmp_path, 0, "", ""))
    }


@pytest.mark.slow
def test_a_worker_that_is_killed_fails_its_own_runs_and_no_others(tmp_path: Path) -> None:
    # Enough epochs that no run ends before MLflow has opened all four, on a busy machine, too.
    process = begun(tmp_path, "lr=0.05,0.1", "batching.size=32,64", "epochs=1500")
    at_work = workers_of(process)
    assert len(set(at_work.values())) == 2
    pid = next(iter(at_work.values()))
    gone = {place.name for place, worker in at_work.items() if worker == pid}
    os.kill(pid, signal.SIGKILL)
    out, err = process.communicate()
    assert process.returncode == 1
    assert "2 of 4 finished" in out, out + err
    assert out.count("its worker process") == 2
    ended = Ended(tmp_path, 1, out, err)
    for place in ended.folders:
        assert (place / "result.json").exists() == (place.name not in gone)
    assert sorted(statuses(tmp_path).values()) == ["FAILED", "FAILED", "FINISHED", "FINISHED"]
    assert not pending([tmp_path])  # or the next command would close them again, as KILLED


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_sweep_that_is_ended_closes_its_runs_and_leaves_no_process(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    process = begun(tmp_path, "lr=0.05,0.1", "batching.size=32,64", "epochs=100000")
    pids = set(workers_of(process).values())
    process.send_signal(number)
    out, err = process.communicate()
    assert process.returncode == code, out + err
    assert set(statuses(tmp_path).values()) == {"KILLED"}
    for folder in Ended(tmp_path, 0, "", "").folders:
        assert Record.load(folder).failure == (
            "interrupted" if number == signal.SIGINT else "terminated"
        )
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.slow
def test_workers_whose_parent_is_gone_close_their_runs_and_end(tmp_path: Path) -> None:
    process = begun(tmp_path, "lr=0.05,0.1", "batching.size=32,64", "epochs=100000")
    pids = set(workers_of(process).values())
    process.kill()
    process.communicate()
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        time.sleep(0.1)
    assert set(statuses(tmp_path).values()) == {"KILLED"}


@pytest.mark.parametrize("setting", ["workers=0", "together=0", "workers=many", "together=true"])
def test_wrong_settings_of_the_launcher_are_refused(
    setting: str, invoke: Callable[..., Ended], tmp_path: Path
) -> None:
    ended = invoke("-m", "seed=0,1", f"hydra.launcher.{setting}")
    assert ended.code == 2, ended.out + ended.err
    assert f"hydra.launcher.{setting.replace('true', 'True')}: must be 1 or more" in ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_weights_of_float32_agree_to_rounding(invoke: Callable[..., Ended]) -> None:
    settings = ("model=sigmoid3", "epochs=3", "seed=1")
    alone = invoke(*settings, "lr=0.3")
    together = invoke("-m", "hydra.launcher.workers=1", *settings, "lr=0.1,0.2,0.3,0.4")
    assert "2 stacks of 2" in together.out
    assert together.code == alone.code == 0
    by_itself, _, _, same, *_ = (np.load(folder / "weights.npz") for folder in together.folders)
    for name in by_itself.files:
        np.testing.assert_allclose(same[name], by_itself[name], rtol=1e-3, atol=1e-4)


def test_a_sweep_has_a_folder_of_its_own_and_so_has_each_run(
    invoke: Callable[..., Ended], tmp_path: Path
) -> None:
    ended = invoke("-m", "seed=0,1", "hydra.sweep.subdir=x")
    assert ended.code == 2
    assert "error hydra.sweep.subdir: gives several jobs one folder; it must differ" in ended.err
    ended = invoke("-m", "seed=0,1", "hydra.sweeper.max_batch_size=0")
    assert (ended.code, ended.err) == (
        2,
        "error hydra.sweeper.max_batch_size=0: must be 1 or more, or null\n",
    )
    assert list(tmp_path.iterdir()) == []
    again = ("-m", "seed=0,1", "epochs=1", f"hydra.sweep.dir={tmp_path}/mine")
    assert invoke(*again).code == 0
    ended = invoke("-m", "seed=2,3", *again[2:])
    assert ended.code == 2
    assert "holds another sweep" in ended.err
    ended = invoke(
        *again[:-1], "hydra.sweep.subdir=${hydra:job.num}_${seed}", "hydra.sweeper.max_batch_size=1"
    )
    assert ended.code == 0
    assert "2 of 2 finished" in ended.out
    assert {path.name for path in tmp_path.glob("outputs/sweeps/*/*_*/result.json")} == {
        "result.json"
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lr=glob(*)"], "lr=glob(*): gives no values, so the sweep has no jobs"),
        (["lr=range(0)"], "lr=range(0): gives no values, so the sweep has no jobs"),
        (["lr=interval(0.1,1)"], "say how many values to draw, as with samples=20"),
        (["hydra.sweeper.params=3"], "hydra.sweeper.params=3: must be settings and their values"),
    ],
)
def test_a_sweep_that_is_no_grid_is_refused_in_one_line(
    arguments: list[str], message: str, invoke: Callable[..., Ended], tmp_path: Path
) -> None:
    ended = invoke("-m", *arguments)
    assert ended.code == 2, ended.out + ended.err
    assert message in ended.err
    assert len(ended.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_jobs_that_repeat_another_run_once_and_are_named(invoke: Callable[..., Ended]) -> None:
    ended = invoke("-m", "lr=0.1,0.10,0.2,0.1", "epochs=1")
    assert ended.code == 0, ended.err
    assert "2 jobs repeat another; each runs once" in ended.out
    assert "2 of 2 finished" in ended.out
    assert [folder.name for folder in ended.folders] == ["0", "1"]


@pytest.mark.slow
def test_params_of_the_sweeper_are_swept(invoke: Callable[..., Ended]) -> None:
    ended = invoke("-m", "+hydra.sweeper.params={lr: '0.1,0.2'}", "epochs=1")
    assert ended.code == 0, ended.err
    assert "2 of 2 finished" in ended.out


@pytest.mark.parametrize(
    ("option", "package"),
    [
        ("hydra/launcher=ray", "hydra-ray-launcher"),
        ("hydra/sweeper=ax", "hydra-ax-sweeper"),
    ],
)
def test_a_plugin_that_is_missing_is_named_with_its_package(
    option: str, package: str, invoke: Callable[..., Ended]
) -> None:
    ended = invoke("-m", "lr=0.1,0.2", option)
    assert (ended.code, ended.err) == (
        2,
        f"error {option}: is not installed; pip install {package} adds it\n",
    )

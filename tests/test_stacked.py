"""Sweeps whose runs train together: each is what it would have been alone, and what befalls one befalls no other."""

import contextlib
import csv
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from mlflow import MlflowClient
from omegaconf import OmegaConf, open_dict

from hydra_plugins.scratchgrid._composing import Composer
from src.config.composition import compose, composer
from src.config.preflight import check
from src.data import Dataset, Digits, Source, Splitting
from src.experiment.recorder import Finished, Recorder, RunContext
from src.experiment.results import Result
from src.nn.layers import Sigmoid
from src.support.paths import CONF
from src.sweep import sharing
from src.sweep.groups import group, likeness, sizes
from src.sweep.sharing import keep
from src.sweep.together import Assignment, execute_together
from src.sweep.workers import WorkerDied, start_method, work_through
from src.training.training_run import Epoch
from tests.conftest import ROOT, Ended, command, run
from tests.test_run import runs, wait_for


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


# --- what a run of a stack comes to ---------------------------------------------------------------------------------

SWEEPS = {
    "per sample": ["batching=sample", "lr=0.01,0.02,0.03,0.05", "seed=0,1", "epochs=2"],
    "per sample, decay": ["batching=sample", "optimizer.weight_decay=0,1e-5,1e-4,1e-3", "seed=0,1", "epochs=2", "lr=0.02"],
    "mini-batches": ["batching.size=50", "lr=0.1,0.3", "seed=0,1,2", "epochs=3"],
    "full batch": ["batching=full", "lr=0.1,0.3,1", "epochs=20"],
    "momentum": ["optimizer=momentum", "optimizer.weight_decay=0,1e-3", "seed=0,1", "epochs=3"],
    "adam, separate splits": ["optimizer=adam", "lr=0.001,0.01", "data.split.seed=1,2", "epochs=3"],
    "initializers": ["initializer=xavier,uniform,zeros,he", "epochs=3", "model.activation=relu"],
    "schedules and stopping": [
        "schedule=constant,cosine,plateau", "stopping=early", "stopping.patience=1,50", "epochs=12", "lr=0.5",
    ],
}  # fmt: skip


@pytest.mark.parametrize("sweep", SWEEPS, ids=str)
def test_each_run_of_a_stack_agrees_with_the_run_made_alone(
    sweep: str, invoke: Callable[..., Ended]
) -> None:
    ended = invoke(
        "-m", "hydra.launcher.workers=1", "dtype=float64", "model.hidden=[12,8]", *SWEEPS[sweep]
    )
    assert ended.code == 0, ended.out + ended.err
    together = ended.folders
    assert f"{len(together)} runs: 1 stack of {len(together)}; 1 process" in ended.out
    for folder in (together[0], together[len(together) // 2], together[-1]):
        before = set((ended.outputs / "runs").glob("*"))
        alone = invoke(*OmegaConf.load(folder / ".hydra" / "overrides.yaml"))
        assert alone.code == 0, alone.err
        (by_itself,) = set((ended.outputs / "runs").iterdir()) - before
        both = [history(by_itself), history(folder)]
        assert len(both[0]) == len(both[1])
        for one, other in zip(*both, strict=True):
            assert one.keys() == other.keys()
            for key in one.keys() - {"seconds"}:
                assert one[key] == pytest.approx(other[key], rel=1e-9, abs=1e-12), key
        weights = [np.load(place / "weights.npz") for place in (by_itself, folder)]
        for name in weights[0].files:
            np.testing.assert_allclose(weights[1][name], weights[0][name], rtol=1e-8, atol=1e-10)


@pytest.fixture(scope="module")
def stacked(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A sweep in one worker of runs that train together: of eight four diverge, and two stop early."""
    folder = tmp_path_factory.mktemp("stacked")
    (folder / "spied").mkdir()
    return run(
        folder, "-m", "hydra.launcher.workers=1", "model=relu2", "epochs=4", "lr=0.1,1e20", "seed=0,1",
        "stopping=early", "stopping.patience=2", "stopping.min_delta=0,10",
        "+hydra.callbacks.spy._target_=tests.spy.Spy", f"+hydra.callbacks.spy.folder={folder / 'spied'}",
        "+hydra.job.env_set.SPIED=seen",
    )  # fmt: skip


def test_what_ends_one_run_of_a_stack_leaves_the_others_alone(stacked: Ended) -> None:
    assert "8 runs: 2 stacks of 4; 1 process" in stacked.out
    assert stacked.code == 1
    results = [Result.load(folder) for folder in stacked.folders]
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


def test_each_run_of_a_stack_has_a_folder_a_log_and_artifacts_of_its_own(stacked: Ended) -> None:
    client = MlflowClient(stacked.store)
    for number, folder in enumerate(stacked.folders):
        result = Result.load(folder)
        assert OmegaConf.load(folder / ".hydra" / "hydra.yaml").hydra.job.num == number
        assert list(OmegaConf.load(folder / ".hydra" / "overrides.yaml")) == list(result.overrides)
        log = (folder / "run.log").read_text() if result.status == "FINISHED" else ""
        assert log.count("finished in") == (result.status == "FINISHED")
        assert (str(result.run_id) in log) == (result.status == "FINISHED")
        found = client.get_run(str(result.run_id))
        assert found.data.tags["output_dir"] == str(folder)
        config = [
            Path(item.path).name for item in client.list_artifacts(str(result.run_id), "config")
        ]
        assert sorted(config) == ["config.yaml", "hydra.yaml", "overrides.yaml"]
        if result.status == "FINISHED":
            assert client.get_metric_history(str(result.run_id), "train/loss")[-1].step == len(
                history(folder)
            )


def test_callbacks_hear_of_each_job_when_it_starts_and_when_it_has_ended(stacked: Ended) -> None:
    spied = stacked.outputs / "spied"
    for number, folder in enumerate(stacked.folders):
        result = Result.load(folder)
        start = json.loads((spied / f"{number}.start").read_text())
        end = json.loads((spied / f"{number}.end").read_text())
        assert start == {"told": "seen", "name": "run", "trained": False}
        assert end["trained"]
        status, value = end["told"]
        if result.status == "FINISHED":
            assert (status, value) == ("COMPLETED", result.value)
        else:
            assert (status, value) == ("FAILED", result.failure)


def test_the_table_names_every_run_in_the_order_of_its_metric(stacked: Ended) -> None:
    values = [Result.load(folder).value for folder in stacked.folders]
    finished = sorted((value for value in values if value is not None), reverse=True)
    lines = stacked.out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("rank")) + 1
    shown = [re.split(r"\s{2,}", line.strip())[2] for line in lines[start : start + len(finished)]]
    assert shown == [f"{value:.4f}" for value in finished]


def test_a_wrong_gradient_or_a_full_disk_ends_its_own_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = Recorder.epoch

    def full(self: Recorder, epoch: Epoch) -> None:
        if self._origin.name == "job 1" and epoch.number == 2:
            raise OSError(28, "No space left on device")
        keep(self, epoch)

    monkeypatch.setattr(Recorder, "epoch", full)
    derivative = Sigmoid.derivative
    wrong = {"on": True}
    monkeypatch.setattr(
        Sigmoid,
        "derivative",
        lambda self, x, y: y * (1 + y) if wrong.pop("on", False) else derivative(self, x, y),
    )
    jobs = [["gradcheck=true"], ["seed=1"], ["seed=2"]]
    told: list[int | Path] = []
    outcomes = execute_together(
        assignments(tmp_path, *([*job, "epochs=3"] for job in jobs)), told.append
    )
    assert "the gradient is wrong" in str(outcomes[0])
    assert str(outcomes[1]) == "OSError: [Errno 28] No space left on device"
    assert isinstance(outcomes[2], Finished)
    assert [news for news in told if isinstance(news, int)] == [2, 2, 2]
    assert [news for news in told if isinstance(news, Path)] == [tmp_path / "1", tmp_path / "2"]
    statuses = [Result.load(tmp_path / str(n)).status for n in (1, 2)]
    assert statuses == ["FAILED", "FINISHED"]
    assert not (tmp_path / "0" / "result.json").exists()  # nothing was begun


def test_an_interruption_closes_every_open_run_and_goes_on(tmp_path: Path) -> None:
    def interrupt(news: int | Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute_together(assignments(tmp_path, ["seed=1"], ["seed=2"]), interrupt)
    results = [Result.load(tmp_path / str(n)) for n in (0, 1)]
    assert [(result.status, result.failure) for result in results] == [
        ("KILLED", "interrupted")
    ] * 2
    assert [len(history(tmp_path / str(n))) for n in (0, 1)] == [1, 1]


def test_an_interruption_while_one_run_is_finished_ends_them_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = Recorder.finish

    def interrupted(self: Recorder) -> None:
        if self._origin.name == "job 1":
            raise KeyboardInterrupt
        finish(self)

    monkeypatch.setattr(Recorder, "finish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        execute_together(
            assignments(tmp_path, *([f"seed={k}", "epochs=1"] for k in range(3))), lambda news: None
        )
    assert [Result.load(tmp_path / str(n)).status for n in range(3)] == [
        "FINISHED",
        "KILLED",
        "KILLED",
    ]


# --- which train together -------------------------------------------------------------------------------------------


def prepared(*overrides: str) -> Any:
    with composer():
        return check(compose(list(overrides)))[1]


def test_what_differs_in_rates_seeds_starts_and_penalties_trains_together_and_nothing_else() -> (
    None
):
    base = likeness(prepared())
    same = [
        ["lr=0.5"], ["seed=3"], ["initializer=he"], ["schedule=cosine"], ["stopping=early"], ["data.split.seed=5"],
        ["optimizer.weight_decay=1e-3"], ["train_metrics=exact"], ["metric=test/loss"], ["diagnose=2"],
    ]  # fmt: skip
    for overrides in same:
        assert likeness(prepared(*overrides)) == base, overrides
    other = [
        ["model=relu2"], ["batching.size=64"], ["batching=full"], ["optimizer=adam"], ["epochs=3"], ["dtype=float64"],
        ["loss=squared_error"], ["data.split.val=100"], ["optimizer.clip_norm=1"], ["batching.shuffle=false"],
    ]  # fmt: skip
    for overrides in other:
        assert likeness(prepared(*overrides)) != base, overrides
    assert likeness(prepared("engine=plain")) is None
    assert likeness(prepared("model=relu2_dropout")) is None


def test_every_run_is_in_one_group_those_of_a_seed_together_and_every_worker_has_some() -> None:
    grid = [prepared(f"seed={seed}", f"lr={lr}") for lr in (0.1, 0.2) for seed in range(4)]
    groups = group([*grid, prepared("engine=plain")], 2)
    assert sorted(n for numbers in groups for n in numbers) == list(range(9))
    assert [8] in groups
    assert sorted(map(len, groups)) == [1, 4, 4]
    for numbers in groups:
        seeds = [n % 4 for n in numbers]
        assert len(numbers) == 1 or sorted(seeds) in ([0, 0, 1, 1], [2, 2, 3, 3])
    assert sorted(group(grid, 2, 1)) == [[n] for n in range(8)]
    assert sorted(map(len, group(grid, 1, 5))) == [4, 4]
    assert sorted(map(len, group(grid, 1, 3))) == [1] * 8  # so few would not be quicker


def test_a_group_has_no_more_than_a_worker_s_share() -> None:
    grid = [
        prepared(f"lr={lr}", f"model.hidden={net}")
        for net in ("[30]", "[16,16]")
        for lr in (0.1, 0.2, 0.3, 0.4)
    ]
    assert group(grid, 2) == [
        [4, 5, 6, 7],
        [0, 1],
        [2, 3],
    ]  # [30] is more than half of the work: it is divided
    assert group(grid, 1) == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize(
    ("overrides", "alone", "in_one_order", "in_orders"),
    [
        (["model=sigmoid3"], 1, range(2, 121), range(4, 41)),
        (["model=sigmoid3", "batching.size=128"], 1, range(2, 121), range(4, 21)),
        (["model=sigmoid3", "batching=sample"], 7, range(8, 129), range(8, 129)),
        (["model=relu2"], 3, range(4, 16), range(0)),
        (["model=relu2", "batching=sample"], 7, range(8, 33), range(8, 33)),
        (["model=relu3", "batching=sample"], 1, range(0), range(0)),
        (["model.hidden=[300]"], 1, range(0), range(0)),
        (["model=sigmoid3", "optimizer=adam"], 3, range(4, 31), range(4, 31)),
        (["model=relu2", "optimizer=adam"], 1, range(0), range(0)),
    ],
)
def test_as_many_train_together_as_were_measured_to_be_quicker(
    overrides: list[str], alone: int, in_one_order: range, in_orders: range
) -> None:
    example = prepared(*overrides)
    for one_order, expected in ((True, in_one_order), (False, in_orders)):
        found = sizes(example, one_order)
        assert (found.start, found.stop) == (expected.start, expected.stop) or not (
            found or expected
        )
    few = [
        replace(example, experiment=replace(example.experiment, lr=0.1 + k / 10))
        for k in range(alone)
    ]
    assert sorted(group(few, 1)) == [[k] for k in range(alone)]


def test_orders_that_do_not_pay_together_stay_apart() -> None:
    grid = [
        prepared(f"seed={seed}", f"lr={lr}", "model=relu2")
        for lr in (0.1, 0.2, 0.3, 0.4)
        for seed in (0, 1)
    ]
    assert sorted(group(grid, 1)) == [[0, 2, 4, 6], [1, 3, 5, 7]]
    grid = [prepared(f"seed={seed}", "model=relu2") for seed in range(5)]
    assert sorted(group(grid, 1)) == [[n] for n in range(5)]


# --- the parts ------------------------------------------------------------------------------------------------------


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

    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        hydra = Hydra.create_main_hydra2("run", create_config_search_path(str(CONF)))
        master = hydra.compose_config(
            "config", [], run_mode=RunMode.MULTIRUN, with_log_configuration=False
        )
        ours = Composer(hydra.config_loader, master)
        for number, job in enumerate([*grid, *grid]):
            theirs = hydra.config_loader.load_sweep_config(master, job)
            with open_dict(theirs):
                theirs.hydra.job.id, theirs.hydra.job.num = str(number), number
            assert OmegaConf.to_yaml(ours(job, number)) == OmegaConf.to_yaml(theirs)
    finally:
        GlobalHydra.instance().hydra = before


def test_shared_data_is_the_data_in_arrays_of_numpy_s_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [
        Digits(split=Splitting(train=None, val=10, test=10, shuffle=True, seed=seed))
        for seed in (1, 1, 2)
    ]
    sources[1] = replace(sources[1], scale=1 / 255)  # another source of the same data
    datasets: dict[Source, Dataset] = {source: source.load() for source in sources}
    paths = {source: keep(dataset, tmp_path) for source, dataset in datasets.items()}
    assert len(set(paths.values())) == len(list(tmp_path.iterdir())) == 2
    provided: dict[Any, Any] = {}
    monkeypatch.setattr(sharing, "provide", provided.__setitem__)
    sharing.take(paths)
    assert provided.keys() == datasets.keys()
    for source, dataset in datasets.items():
        taken = provided[source]
        assert (taken.digest, taken.name, taken.scale) == (
            dataset.digest,
            dataset.name,
            dataset.scale,
        )
        for (_, one), (_, other) in zip(taken.splits(), dataset.splits(), strict=True):
            np.testing.assert_array_equal(one.images, other.images)
            np.testing.assert_array_equal(one.labels, other.labels)
            assert type(one.images) is np.ndarray
            assert not one.images.flags.writeable  # the file's own pages
    assert provided[sources[0]].train.images is provided[sources[1]].train.images


def labour(task: int, tell: Callable[[Any], None]) -> Any:
    tell(task)
    if task == 1:
        raise ValueError("one is wrong")
    if task == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return task * 10, os.getpid()


def test_a_worker_that_dies_takes_its_own_task_with_it() -> None:
    heard: list[int] = []
    results = dict(work_through(start_method(), labour, [0, 1, 2, 3, 4, 5], 2, heard.append))
    assert sorted(heard) == [0, 1, 2, 3, 4, 5]
    assert [results[n][0] for n in (0, 3, 4, 5)] == [0, 30, 40, 50]
    assert str(results[1]) == "ValueError: one is wrong"
    assert isinstance(results[2], WorkerDied)
    assert "by signal 9" in str(results[2])
    assert (
        len({results[n][1] for n in (0, 3, 4, 5)}) <= 3
    )  # two workers, and one in place of the dead


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
        list(work_through(start_method(), deaf, [0], 1, hear))
    assert not Path(f"/proc/{heard[0]}").exists()
    assert len(heard) == 1


# --- ends before the end --------------------------------------------------------------------------------------------


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
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a shell's background jobs ignore
    )  # fmt: skip
    for number in range(4):
        wait_for(tmp_path, f"sweeps/*/{number}/history.csv")
    end = time.monotonic() + 60
    while time.monotonic() < end and len(workers_of(process)) < 4:
        time.sleep(0.1)
    return process


def statuses(tmp_path: Path) -> dict[str, str]:
    return {
        str(found.info.run_name): found.info.status for found in runs(Ended(tmp_path, 0, "", ""))
    }


def test_a_worker_that_is_killed_fails_its_own_runs_and_no_others(tmp_path: Path) -> None:
    process = begun(tmp_path, "lr=0.05,0.1", "batching.size=32,64", "epochs=400")
    at_work = workers_of(process)
    assert len(set(at_work.values())) == 2
    folder, pid = sorted(at_work.items())[0]
    gone = {place.name for place, worker in at_work.items() if worker == pid}
    os.kill(pid, signal.SIGKILL)
    try:
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 1
    assert "2 of 4 finished" in out, out + err
    assert out.count("its worker process") == 2
    ended = Ended(tmp_path, 1, out, err)
    for place in ended.folders:
        assert (place / "result.json").exists() == (place.name not in gone)
    assert sorted(statuses(tmp_path).values()) == ["FAILED", "FAILED", "FINISHED", "FINISHED"]
    assert folder.exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_sweep_that_is_ended_closes_its_runs_and_leaves_no_process(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    process = begun(tmp_path, "lr=0.05,0.1", "batching.size=32,64", "epochs=100000")
    pids = set(workers_of(process).values())
    process.send_signal(number)
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code, out + err
    assert set(statuses(tmp_path).values()) == {"KILLED"}
    for folder in Ended(tmp_path, 0, "", "").folders:
        assert Result.load(folder).failure == (
            "interrupted" if number == signal.SIGINT else "terminated"
        )
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_workers_whose_parent_is_gone_close_their_runs_and_end(tmp_path: Path) -> None:
    process = begun(tmp_path, "lr=0.05,0.1", "batching.size=32,64", "epochs=100000")
    pids = set(workers_of(process).values())
    process.kill()
    process.communicate(timeout=60)
    end = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert set(statuses(tmp_path).values()) == {"KILLED"}


@pytest.mark.parametrize("setting", ["workers=0", "together=0", "workers=many", "together=true"])
def test_wrong_settings_of_the_launcher_are_refused(
    setting: str, invoke: Callable[..., Ended], tmp_path: Path
) -> None:
    ended = invoke("-m", "seed=0,1", f"hydra.launcher.{setting}")
    assert ended.code == 2, ended.out + ended.err
    assert f"hydra.launcher.{setting.replace('true', 'True')}: must be 1 or more" in ended.err
    assert list(tmp_path.iterdir()) == []


def test_weights_of_float32_agree_to_rounding(invoke: Callable[..., Ended]) -> None:
    settings = ("model=sigmoid3", "epochs=3", "lr=0.1")
    alone = invoke(*settings, "seed=1")
    together = invoke("-m", "hydra.launcher.workers=1", *settings, "seed=0,1,2,3")
    assert "1 stack of 4" in together.out
    assert together.code == alone.code == 0
    by_itself, _, same, *_ = (np.load(folder / "weights.npz") for folder in together.folders)
    for name in by_itself.files:
        np.testing.assert_allclose(same[name], by_itself[name], rtol=1e-3, atol=1e-4)


def test_a_sweep_has_a_folder_of_its_own_and_so_has_each_run(
    invoke: Callable[..., Ended], tmp_path: Path
) -> None:
    ended = invoke("-m", "seed=0,1", "hydra.sweep.subdir=x")
    assert (ended.code, ended.err) == (
        2,
        "error hydra.sweep.subdir: gives several jobs one folder\n",
    )
    ended = invoke("-m", "seed=0,1", "hydra.sweeper.max_batch_size=0")
    assert (ended.code, ended.err) == (
        2,
        "error hydra.sweeper.max_batch_size=0: must be 1 or more, or null\n",
    )
    assert list(tmp_path.iterdir()) == []
    again = ("-m", "seed=0,1", "epochs=1", f"hydra.sweep.dir={tmp_path}/mine")
    assert invoke(*again).code == 0
    ended = invoke(*again)
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

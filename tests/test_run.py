"""The command from end to end: real data, a real store, real signals."""

import contextlib
import csv
import json
import math
import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from src.data import Splitting
from src.data.digits import Digits
from src.nn.layers import ReLU, Sigmoid
from src.nn.network import MLP, forward
from src.nn.weights import load_weights
from src.runs.predictions import Predictions
from src.tracking.told import Told
from tests.conftest import ROOT, Ended, command, run


def runs(ended: Ended) -> list[Run]:
    """Return what the store holds of a command's runs, the earliest first."""
    begun = [folder for folder in ended.folders if (folder / "run.json").exists()]
    deadline = time.monotonic() + 30
    while not all(Told.load(folder).is_complete for folder in begun):
        if time.monotonic() > deadline:  # the store has not all of them
            break
        time.sleep(0.1)  # after a signal the mirror lives on until all is told
    client = MlflowClient(ended.store)
    experiment = client.get_experiment_by_name("scratchgrid")
    assert experiment is not None
    order = ["attributes.start_time ASC"]
    found = client.search_runs([experiment.experiment_id], order_by=order)
    return [run for run in found if "kind" not in run.data.tags]  # the summary of a sweep


def only_run(ended: Ended) -> Run:
    (found,) = runs(ended)
    return found


# --- one run ----------------------------------------------------------------------------------


def test_a_run_ends_well_and_says_where_to_look(finished: Ended) -> None:
    assert finished.code == 0
    assert finished.err == ""
    lines = finished.out.splitlines()
    assert lines[0] == "model       784 ─ 128 relu ─ 10  (101,770 parameters)"
    assert any(
        line.startswith("data        digits: 1,077 train, 360 val, 360 test") for line in lines
    )
    assert "shapes      X (1077, 784) uint8, y (1077,) int64, 10 classes" in lines
    assert any(line.startswith("epoch 40/40  train ") for line in lines)
    (folder,) = finished.folders
    assert f"folder      {folder}" in lines
    assert lines[-1].startswith(
        f"MLflow      python -m src.ui --outputs {finished.outputs}, then http://127.0.0.1:5000/#/"
    )
    assert only_run(finished).info.run_id in lines[-1]


def test_the_folder_holds_what_the_run_came_to(finished: Ended) -> None:
    (folder,) = finished.folders
    assert {path.name for path in folder.iterdir()} == {
        ".hydra", "run.log", "history.csv", "weights.npz", "predictions.npz", "result.json",
        "run.json", "run.lock", "checkpoint.npz", "mlflow.json",
        "samples.png", "curves.png", "confusion.png", "predictions.png", "first_layer.png",
    }  # fmt: skip
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "FINISHED"
    assert result["value"] == result["metrics"]["val/accuracy"] > 0.9


def history(folder: Path) -> list[dict[str, float]]:
    with (folder / "history.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def test_the_store_holds_every_epoch_of_every_curve(finished: Ended) -> None:
    found, client = only_run(finished), MlflowClient(finished.store)
    rows = history(finished.folders[0])
    assert [row["epoch"] for row in rows] == list(range(1, 41))
    keys = [
        f"{part}/{measure}" for part in ("train", "val", "test") for measure in ("loss", "accuracy")
    ]
    for key in [*keys, "updates", "samples", "seconds"]:
        metrics = sorted(
            client.get_metric_history(found.info.run_id, key), key=lambda metric: metric.step
        )
        assert [metric.step for metric in metrics] == list(range(1, 41))
        assert [metric.value for metric in metrics] == [row[key] for row in rows], key
    last = rows[-1]
    assert (last["updates"], last["samples"]) == (40 * 34, 40 * 1077)
    for key in keys:
        assert found.data.metrics[key.replace("/", "/final/")] == last[key]
        best = max if key.endswith("accuracy") else min
        if key.startswith("test/"):  # nobody should choose an epoch by the test set
            assert key.replace("/", "/best/") not in found.data.metrics
        else:
            assert found.data.metrics[key.replace("/", "/best/")] == best(row[key] for row in rows)
    at = int(found.data.metrics["val/best/epoch"])
    assert rows[at - 1]["val/accuracy"] == found.data.metrics["val/best/accuracy"]


def test_the_store_holds_every_setting_and_choice(finished: Ended) -> None:
    params = only_run(finished).data.params
    expected = {
        "model": "relu2",
        "initializer": "xavier",
        "batching": "mini",
        "optimizer": "sgd",
        "data": "digits",
        "model.hidden": "[128]",
        "model.activation": "relu",
        "batching.size": "32",
        "batching.shuffle": "True",
        "lr": "0.05",
        "epochs": "40",
        "seed": "0",
        "dtype": "float32",
        "data.split.test": "360",
        "data.scale": "1/255",
        "initializer.weights": "xavier_normal",
        "metric": "val/accuracy",
    }
    assert {key: params.get(key) for key in expected} == expected
    assert not [key for key in params if "_target_" in key]


def test_the_store_tells_where_a_run_comes_from(finished: Ended) -> None:
    tags = only_run(finished).data.tags
    assert tags["overrides"] == f"outputs={finished.outputs} epochs=40 model=relu2"
    assert tags["output_dir"] == str(finished.folders[0])
    for key in ("config_digest", "data_digest", "code_digest"):
        assert len(tags[key]) == 32
    assert tags["mlflow.user"]
    assert tags["mlflow.source.name"]
    if (ROOT / ".git").exists():
        assert len(tags["git.commit"]) == 40
        assert tags["git.dirty"] in ("true", "false")


def test_the_data_is_an_input_with_our_digest(finished: Ended) -> None:
    found = only_run(finished)
    assert found.inputs is not None
    (given,) = found.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("digits", found.data.tags["data_digest"])
    assert "1077" in str(given.dataset.profile)


def test_pictures_configuration_and_curve_are_artifacts(finished: Ended) -> None:
    client, run_id = MlflowClient(finished.store), only_run(finished).info.run_id

    def listed(folder: str) -> set[str]:
        return {Path(item.path).name for item in client.list_artifacts(run_id, folder)}

    assert listed("pictures") == {
        "samples.png",
        "curves.png",
        "confusion.png",
        "predictions.png",
        "first_layer.png",
    }
    assert listed("config") == {"config.yaml"}
    assert "history.csv" in listed("")
    for picture in (finished.outputs / "artifacts").rglob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.stat().st_size > 5000


def digits() -> Any:
    return Digits(split=Splitting(None, 360, 360, shuffle=True, stratify=True)).load()


@pytest.mark.slow
def test_saved_weights_score_what_the_run_reported_and_start_another_run(
    finished: Ended, invoke: Callable[..., Ended]
) -> None:
    (folder,) = finished.folders
    network = MLP(784, (128,), 10, ReLU()).layers
    parameters = load_weights(folder / "weights.npz", network, np.float32)
    test = digits().test
    logits = forward(network, parameters, test.images.astype(np.float32) * np.float32(1 / 255))[-1]
    accuracy = (logits.argmax(axis=-1) == test.labels).mean()
    assert accuracy == history(folder)[-1]["test/accuracy"]

    start = ("initializer=file", f"initializer.path={folder}/weights.npz")
    again = invoke("model=relu2", "epochs=1", "lr=1e-12", *start)
    assert history(again.folders[0])[0]["test/accuracy"] == accuracy


@pytest.mark.slow
def test_equal_runs_give_equal_bytes(finished: Ended, tmp_path: Path) -> None:
    again = run(tmp_path, "epochs=40", "model=relu2", OPENBLAS_NUM_THREADS="1")
    for name in (
        "weights.npz",
        "predictions.npz",
        "samples.png",
        "curves.png",
        "confusion.png",
        "predictions.png",
        "first_layer.png",
    ):
        assert (again.folders[0] / name).read_bytes() == (
            finished.folders[0] / name
        ).read_bytes(), name
    assert (
        only_run(again).data.tags["config_digest"] == only_run(finished).data.tags["config_digest"]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        pytest.param("relu2", marks=pytest.mark.slow),
        pytest.param("relu2_dropout", marks=pytest.mark.slow),
        "sigmoid3",
        pytest.param("relu3", marks=pytest.mark.slow),
        "relu2_small",
    ],
)
def test_every_model_learns_the_digits_with_all_else_at_its_default(
    model: str, invoke: Callable[..., Ended]
) -> None:
    ended = invoke(f"model={model}")
    assert ended.code == 0
    metrics = json.loads((ended.folders[0] / "result.json").read_text())["metrics"]
    assert metrics["val/accuracy"] >= 0.95
    assert metrics["test/accuracy"] >= 0.95


# --- training features ------------------------------------------------------------------------


def test_early_stopping_keeps_the_best_weights_and_their_scores(
    invoke: Callable[..., Ended],
) -> None:
    ended = invoke(
        "model=relu2",
        "stopping=early",
        "stopping.patience=3",
        "lr=0.5",
        "epochs=300",
        "optimizer=momentum",
        tracked=True,
    )
    assert ended.code == 0, ended.err
    (folder,) = ended.folders
    losses = [row["val/loss"] for row in history(folder)]
    best = int(np.argmin(losses)) + 1
    assert len(losses) == best + 3
    assert (
        f"stopped     after epoch {best + 3}: val/loss has not improved on epoch {best}'s"
        in ended.out
    )
    assert f"kept        the weights of epoch {best}, and its scores" in ended.out
    metrics = only_run(ended).data.metrics
    assert metrics["val/final/loss"] == losses[best - 1] == min(losses)
    parameters = load_weights(
        folder / "weights.npz", MLP(784, (128,), 10, ReLU()).layers, np.float32
    )
    test = digits().test
    logits = forward(
        MLP(784, (128,), 10, ReLU()).layers,
        parameters,
        test.images.astype(np.float32) * np.float32(1 / 255),
    )[-1]
    assert (logits.argmax(axis=-1) == test.labels).mean() == metrics["test/final/accuracy"]


def test_the_rate_of_a_schedule_is_kept_by_epoch(invoke: Callable[..., Ended]) -> None:
    ended = invoke(
        "schedule=step",
        "schedule.every=2",
        "schedule.factor=0.5",
        "lr=0.4",
        "epochs=5",
        tracked=True,
    )
    assert [row["lr"] for row in history(ended.folders[0])] == [0.4, 0.4, 0.2, 0.2, 0.1]
    assert "schedule    step: warmup 0.0, every 2, factor 0.5" in ended.out
    assert only_run(ended).data.params["schedule"] == "step"


@pytest.mark.slow
def test_what_ails_the_layers_is_logged_drawn_and_said(invoke: Callable[..., Ended]) -> None:
    ended = invoke("model=sigmoid3", "lr=20", "epochs=6", "diagnose=2", tracked=True)
    assert (
        "look at     layer 2: 16 of 16 units saturated from epoch 1; a smaller lr may help"
        in ended.out
    )
    client, run_id = MlflowClient(ended.store), only_run(ended).info.run_id
    keys = {
        "layer1/saturated": [0, 1, 2, 4, 6],
        "layer3/gradient_norm": [0, 1, 2, 4, 6],
        "layer2/update_ratio": [0, 1, 2, 4, 6],
    }
    for key, steps in keys.items():
        assert sorted(metric.step for metric in client.get_metric_history(run_id, key)) == steps
    assert client.get_metric_history(run_id, "layer2/saturated")[-1].value == 1
    assert (ended.folders[0] / "layers.png").exists()
    assert "WARNING] layer 2: 16 of 16" in (ended.folders[0] / "run.log").read_text()


@pytest.mark.slow
def test_a_run_that_fails_says_what_was_wrong_in_its_layers(invoke: Callable[..., Ended]) -> None:
    ended = invoke("model=sigmoid3", "loss=squared_error", "lr=1e9", "diagnose=1", "epochs=10")
    assert ended.code == 1
    assert "look at     layer " in ended.out
    assert json.loads((ended.folders[0] / "result.json").read_text())["findings"]
    missed = invoke("debug=overfit", "initializer=zeros", "epochs=20", "diagnose=10")
    assert "look at     layer 1: its 16 units have had equal weights" in missed.out


def test_predictions_are_kept_with_the_run_and_compared(
    finished: Ended, invoke: Callable[..., Ended]
) -> None:
    kept = Predictions.load(finished.folders[0] / "predictions.npz")
    assert kept.part == "test"
    assert kept.right.mean() == history(finished.folders[0])[-1]["test/accuracy"]
    worse = Predictions.load(invoke("model=sigmoid3", "epochs=2").folders[0] / "predictions.npz")
    counts = kept.against(worse)
    assert counts.only_first > counts.only_second
    assert counts.both + counts.only_first == kept.right.sum()
    listed = {
        item.path
        for item in MlflowClient(finished.store).list_artifacts(only_run(finished).info.run_id)
    }
    assert "predictions.npz" in listed


def test_debug_gradcheck_checks_and_leaves_nothing(
    invoke: Callable[..., Ended], tmp_path: Path
) -> None:
    settings = ("model=relu3", "model.dropout=0.2", "loss=sigmoid_cross_entropy")
    ended = invoke("debug=gradcheck", *settings)
    assert ended.code == 0, ended.err
    line = next(line for line in ended.out.splitlines() if line.startswith("gradient"))
    assert "by backpropagation" in line
    assert "by centred differences" in line
    assert "epoch" not in ended.out.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_debug_gradcheck_fails_on_a_wrong_gradient(
    invoke: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Sigmoid, "derivative", lambda self, x, y: y * (1 + y))
    ended = invoke("debug=gradcheck")
    assert ended.code == 1
    assert "the gradient is wrong: worst of" in ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        pytest.param("relu2", marks=pytest.mark.slow),
        pytest.param("sigmoid3", marks=pytest.mark.slow),
        pytest.param("relu3", marks=pytest.mark.slow),
        "relu2_small",
    ],
)
def test_debug_overfit_learns_twenty_samples_by_heart(
    model: str, invoke: Callable[..., Ended]
) -> None:
    ended = invoke("debug=overfit", f"model={model}")
    assert ended.code == 0, ended.err
    assert "20 train," in ended.out
    assert "train/loss has reached 0.01" in ended.out
    last = history(ended.folders[0])[-1]
    assert last["train/loss"] <= 0.01
    assert last["train/accuracy"] == 1


@pytest.mark.slow
def test_debug_overfit_fails_where_the_network_cant_learn(invoke: Callable[..., Ended]) -> None:
    ended = invoke("debug=overfit", "initializer=zeros", "epochs=50", tracked=True)
    assert ended.code == 1
    assert "after 50 epochs; the target is 0.01" in ended.err
    client = MlflowClient(ended.store)
    experiment = client.get_experiment_by_name("scratchgrid-debug")
    assert experiment is not None
    assert [found.info.status for found in client.search_runs([experiment.experiment_id])] == [
        "FAILED"
    ]


@pytest.mark.slow
def test_debug_fast_runs_one_tiny_epoch_through_everything(invoke: Callable[..., Ended]) -> None:
    ended = invoke("debug=fast", "model=relu3", "optimizer=adam")
    assert ended.code == 0, ended.err
    assert "128 train, 32 val, 32 test" in ended.out
    assert len(history(ended.folders[0])) == 1
    assert {path.suffix for path in ended.folders[0].iterdir()} >= {".png", ".npz", ".json", ".csv"}


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model=sigmiod3"], "did you mean sigmoid3?"),
        (["lrr=0.1"], "did you mean lr?"),
        (["epochs=many"], "epochs=many: must be a whole number"),
        (["lr=0"], "lr=0.0: must be a positive"),
        (["lr=-1"], "lr=-1.0: must be a positive"),
        (["lr=nan"], "lr=nan: must be a positive"),
        (["lr=inf"], "lr=inf: must be a positive"),
        (["batching.size=0"], "batching.size=0: must be 1 or more"),
        (["batching.size=5000"], "must be at most the 1077 training samples"),
        (["epochs=0"], "epochs=0: must be 1 or more"),
        (["data=csv", "data.path=none.csv"], "none.csv: no such file"),
        (["data=idx", "data.path=none"], "none: no such folder"),
        (["initializer=file", "initializer.path=none.npz"], "none.npz: no such file"),
        (["lr=0.1,0.2"], "add -m"),
        (
            ["stopping=early", "data.split.val=0", "metric=test/accuracy"],
            "stopping.metric=val/loss: digits is split without",
        ),
        (
            ["schedule=plateau", "schedule.metric=val/los"],
            "schedule.metric=val/los: no such metric; did you mean val/loss",
        ),
        (
            ["optimizer=adam", "optimizer.momentum=0.9"],
            "optimizer=adam has no setting momentum; momentum, nesterov and sgd have it",
        ),
        (["optimizer.weight_decay=-1"], "optimizer.weight_decay=-1.0: must be 0 or more"),
        (["diagnose=0"], "diagnose=0: must be 1 epoch or more"),
        (
            ["stopping=early", "stopping.metric=train/loss"],
            "stopping.metric=train/loss: is measured before each update",
        ),
        (
            ["stopping=target", "stopping.metric=val/accuracy"],
            "stopping.value has no value: set it with stopping.value=…",
        ),
        (
            ["debug=overfit", "loss.smoothing=0.1"],
            "stopping.value=0.01: this loss never falls below 0.5",
        ),
        (["optimizer=adam", "optimizer.epsilon=1e-50"], "optimizer.epsilon=1e-50: is 0 in float32"),
        (["debug=fsat"], "debug=fsat: no such option; did you mean fast?"),
        (["stopping=early", "stopping.metric=test/loss"], "the test set is for reporting"),
        (["--lr=0.1"], "--lr=0.1: settings have no dashes: write lr=0.1"),
        (["model=[relu2,sigmoid3]"], "a sweep over several is written -m model=relu2,sigmoid3"),
        (["-m", "debug=gradcheck"], "gradcheck=true: checks one configuration at a time"),
        (["hydra.job.chdir=true"], "hydra.job.chdir=true: not supported"),
        (["-m", "lr=0.1,0,0.2,-1"], "2 of 4 jobs are wrong, so none was run"),
        (["model.hidden=[1000000000]"], "795,000,000,010 parameters don't fit into memory"),
        (["tracking.uri='sqlite://'"], "a database in memory is lost"),
        (["tracking.uri=nonsense://x"], "error the MLflow store nonsense://x can't be opened"),
        (
            ["-m", "experiment=relu10_fullbatch,openml_relu128", "data.path=x"],
            "write ++data.path=x",
        ),
        (["-m", "outputs=a,b"], "outputs and tracking can't be swept"),
        (["-m", "model=relu2,none_such"], "model=none_such: no such option"),
    ],
)
def test_bad_input_is_told_in_a_line_and_leaves_nothing_behind(
    arguments: list[str], message: str, invoke: Callable[..., Ended], tmp_path: Path
) -> None:
    ended = invoke(*arguments)
    assert ended.code == 2
    assert message in ended.err
    assert ended.err.startswith("error ")
    assert len(ended.err.splitlines()) <= (1 if "-m" not in arguments else 3)
    assert ended.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_the_user_wrote_is_printed_as_it_is(
    invoke: Callable[..., Ended], tmp_path: Path
) -> None:
    """Rich would read :x: as a cross and [red] as a colour."""
    (tmp_path / "passwd").write_text("root:x:0,1\n[red]daemon:x:1[/red],2\n[/]:x:,3\n")
    ended = invoke("data=csv", "data.path=passwd")
    assert "[red]daemon:x:1[/red]" in ended.err
    swept = invoke("-m", "epochs=1", "name='[b]:x:'", "seed=0", "hydra/launcher=basic")
    assert "1/1  [b]:x:  val/accuracy" in swept.out
    assert any(line.startswith("   1  [b]:x:") for line in swept.out.splitlines())


@pytest.mark.slow
def test_activation_in_short_form_is_a_setting_of_the_model(
    invoke: Callable[..., Ended],
) -> None:
    ended = invoke("-m", "activation=relu,tanh", "epochs=1", "hydra/launcher=basic", tracked=True)
    assert ended.code == 0, ended.err
    found = [run.data.params for run in runs(ended)]
    assert {params["model.activation"] for params in found} == {"relu", "tanh"}
    assert not any("activation" in params for params in found)


def test_weights_of_another_shape_are_refused(
    invoke: Callable[..., Ended], finished: Ended, tmp_path: Path
) -> None:
    ended = invoke(
        "model=sigmoid3", "initializer=file", f"initializer.path={finished.folders[0]}/weights.npz"
    )
    assert ended.code == 2
    assert "weights.npz: lacks W3, b3" in ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "place", ["outputs={file}/here", "hydra.run.dir={file}/here", "outputs=/proc/here"]
)
def test_a_folder_that_cant_be_written_is_refused(
    place: str, invoke: Callable[..., Ended], tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    ended = invoke(place.format(file=file))
    assert ended.code == 2
    assert "can't write to the folder" in ended.err
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.slow
@pytest.mark.parametrize("sweep", [[], ["-m", "seed=0,1"]])
def test_a_store_that_cant_be_opened_is_told_without_its_password_and_leaves_nothing(
    sweep: list[str], tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "thesis.txt").touch()
    folder = "hydra.sweep.dir" if sweep else "hydra.run.dir"
    arguments = [*sweep, "epochs=1", f"{folder}={kept}"]
    ended = run(
        tmp_path / "outputs", *arguments, MLFLOW_TRACKING_URI="http://me:secret@127.0.0.1:9"
    )
    assert ended.code == 2
    assert ended.err.startswith("error the MLflow store http://me:***@127.0.0.1:9 can't be opened")
    assert "secret" not in ended.err + ended.out
    assert ended.out == ""
    assert [path.name for path in tmp_path.rglob("*")] == ["kept", "thesis.txt"]


@pytest.mark.slow
def test_a_store_with_tables_that_mlflow_cannot_use_is_refused_before_training(
    tmp_path: Path,
) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as store:
        store.execute("CREATE TABLE experiments (name TEXT, lifecycle_stage TEXT)")
    ended = run(tmp_path, "epochs=1")
    assert ended.code == 2
    assert ended.err.startswith("error the MLflow store sqlite:///")
    assert len(ended.err.splitlines()) == 1
    assert not ended.folders


def test_a_traceback_can_be_had(tmp_path: Path) -> None:
    assert "Traceback" in run(tmp_path, "lrr=1", HYDRA_FULL_ERROR="1").err


# --- ends before the end ----------------------------------------------------------------------


def test_a_run_that_diverges_fails_with_the_reason(invoke: Callable[..., Ended]) -> None:
    ended = invoke("model=relu2", "lr=1e20", "epochs=50", tracked=True)
    assert ended.code == 1
    assert "loss became" in ended.err
    assert "Traceback" not in ended.err
    found = only_run(ended)
    assert found.info.status == "FAILED"
    assert found.data.tags["failure"] in ended.err
    result = json.loads((ended.folders[0] / "result.json").read_text())
    assert (result["status"], result["failure"], result["value"]) == (
        "FAILED",
        found.data.tags["failure"],
        None,
    )


@pytest.fixture
def in_a_terminal(tmp_path: Path) -> Iterator[Callable[..., tuple[int, int]]]:
    """Start the command in a terminal of its own, where Ctrl-C is a key that no shell ignores."""
    started: list[int] = []

    def start(*arguments: str) -> tuple[int, int]:
        pid, terminal = pty.fork()
        if pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.chdir(ROOT)
            os.execvpe(
                sys.executable,
                command(tmp_path, *arguments),
                {**os.environ, "TERM": "xterm", "COLUMNS": "120"},
            )
        started.append(pid)
        return pid, terminal

    yield start
    for pid in started:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def read_until(terminal: int, text: str, seconds: float = 60) -> str:
    """Return what a terminal shows up to a text, or up to its end."""
    shown = ""
    end = time.monotonic() + seconds
    while text not in shown and time.monotonic() < end:
        try:
            shown += os.read(terminal, 65536).decode(errors="replace")
        except OSError:  # the other side is gone
            break
    return shown


def wait_for(folder: Path, pattern: str, seconds: float = 60) -> None:
    """Wait until a run has written a file."""
    end = time.monotonic() + seconds
    while not list(folder.glob(pattern)) and time.monotonic() < end:
        time.sleep(0.1)


def wait_for_a_run(folder: Path, count: int = 1, seconds: float = 60) -> None:
    """Wait until so many runs are open in the store, where MLflow is imported beside training."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as store,
        ):
            if store.execute("SELECT count(*) FROM runs").fetchone()[0] >= count:
                return
        time.sleep(0.1)


def test_ctrl_c_marks_the_run_killed_and_keeps_what_was_learned(
    in_a_terminal: Callable[..., tuple[int, int]], tmp_path: Path
) -> None:
    pid, terminal = in_a_terminal("epochs=100000", "model=relu2")
    shown = read_until(terminal, "loss 0.")  # on the bar, beside the time left
    assert "/100000" in shown
    os.write(terminal, b"\x03")
    rest = read_until(terminal, "\0")
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert "interrupted" in rest
    assert "folder      " in rest
    assert "Traceback" not in rest
    ended = Ended(tmp_path, 130, shown, "")
    found = only_run(ended)
    assert (found.info.status, found.data.tags["failure"]) == ("KILLED", "interrupted")
    kept = MlflowClient(ended.store).get_metric_history(found.info.run_id, "train/loss")
    assert len(kept) == len(history(ended.folders[0])) > 0
    assert json.loads((ended.folders[0] / "result.json").read_text())["status"] == "KILLED"


@pytest.mark.slow
def test_a_terminal_keeps_a_line_for_every_tenth_of_the_epochs(
    in_a_terminal: Callable[..., tuple[int, int]],
) -> None:
    pid, terminal = in_a_terminal("epochs=20", "model=relu2")
    shown = read_until(terminal, "\0")
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, shown
    kept = [int(number) for number in re.findall(r"epoch (\d+)/20  train \d", shown)]
    assert kept == list(range(2, 21, 2))
    assert "loss " in shown  # the bar was there


@pytest.mark.slow
def test_termination_marks_the_run_killed(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(tmp_path, "epochs=100000"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout as lines:
        next(line for line in lines if line.startswith("epoch "))
        process.terminate()
        assert process.wait(30) == 143
    assert only_run(Ended(tmp_path, 143, "", "")).info.status == "KILLED"


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        "stacked",
        pytest.param("basic", marks=pytest.mark.slow),
        pytest.param("joblib", marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_ends_a_sweep_with_every_run_closed_and_a_table(
    launcher: str, in_a_terminal: Callable[..., tuple[int, int]], tmp_path: Path
) -> None:
    arguments = ("-m", "seed=0,1,2", "epochs=100000", f"hydra/launcher={launcher}")
    pid, terminal = in_a_terminal(
        *arguments, *(["hydra.launcher.n_jobs=2"] if launcher == "joblib" else [])
    )
    wait_for(tmp_path, "sweeps/*/0/history.csv")
    wait_for_a_run(tmp_path)
    os.write(terminal, b"\x03")
    shown = read_until(terminal, "\0")
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 130, shown
    found = runs(Ended(tmp_path, 130, shown, ""))
    assert found
    assert {(run.info.status, run.data.tags["failure"]) for run in found} == {
        ("KILLED", "interrupted")
    }
    assert "0 of 3 finished" in shown
    assert shown.count("KILLED") >= len(found)


def open_files(pid: str) -> list[str]:
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(link.readlink()))
    return found


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_its_sweep_no_result_and_leaves_no_run_open(
    tmp_path: Path,
) -> None:
    arguments = ("-m", "epochs=1,100000", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    process = subprocess.Popen(
        command(tmp_path, *arguments),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("1/2")
    wait_for(tmp_path, "sweeps/*/1/history.csv")
    wait_for_a_run(tmp_path, 2)
    children = [
        pid
        for task in Path(f"/proc/{process.pid}/task").glob("*/children")
        for pid in task.read_text().split()
    ]
    # The one whose run goes on.
    (worker,) = (
        pid for pid in children if any("1/history.csv" in held for held in open_files(pid))
    )
    os.kill(int(worker), signal.SIGKILL)
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1
    assert "1 of 2 finished" in out
    assert "error the launcher gave up: " in err
    assert {
        str(found.info.run_name): found.info.status for found in runs(Ended(tmp_path, 1, out, err))
    } == {
        "epochs=1": "FINISHED",
        "epochs=100000": "FAILED",
    }


@pytest.mark.slow
def test_two_first_starts_at_once_both_succeed(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(command(tmp_path, "epochs=1"), cwd=ROOT, stdout=subprocess.DEVNULL)
        for _ in range(2)
    ]
    assert [process.wait(120) for process in processes] == [0, 0]
    ended = Ended(tmp_path, 0, "", "")
    assert [found.info.status for found in runs(ended)] == ["FINISHED", "FINISHED"]
    assert len(ended.folders) == 2  # begun in one second, and yet apart


# --- sweeps -----------------------------------------------------------------------------------


def test_a_job_that_diverges_fails_alone_and_is_named_at_the_end(swept: Ended) -> None:
    assert swept.code == 1
    assert "Traceback" not in swept.err
    lines = swept.out.splitlines()
    failed = next(line for line in lines if line.startswith("FAILED"))
    assert "model=relu2" in failed
    assert "lr=1e+20" in failed
    assert "loss became" in failed
    statuses = [found.info.status for found in runs(swept)]
    assert statuses.count("FAILED") == len([line for line in lines if line.startswith("FAILED")])
    assert len(statuses) == 4


def test_the_table_of_a_sweep_is_sorted_by_its_metric(swept: Ended) -> None:
    lines = swept.out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("rank"))
    values = []
    for line in lines[start + 1 :]:
        if not line.strip()[:1].isdigit():
            break
        values.append(float(line.split()[3]))
    assert len(values) >= 2
    assert values == sorted(values, reverse=True)
    assert not any(math.isnan(value) for value in values)


def test_the_runs_of_a_sweep_are_flat_share_a_tag_and_are_named_by_what_differs(
    swept: Ended,
) -> None:
    found = runs(swept)
    (sweep_id,) = {run.data.tags["sweep_id"] for run in found}
    assert sweep_id in swept.out
    assert not any("mlflow.parentRunId" in run.data.tags for run in found)
    assert {run.info.run_name for run in found} == {
        f"model={m}, lr={lr}" for m in ("relu2", "sigmoid3") for lr in ("0.1", "1e+20")
    }
    assert [folder.name for folder in swept.folders] == ["0", "1", "2", "3"]
    assert {run.data.tags["output_dir"] for run in found} == {
        str(folder) for folder in swept.folders
    }


@pytest.mark.long
def test_a_job_that_trains_by_itself_gives_the_bytes_of_a_run_alone_under_any_launcher(
    invoke: Callable[..., Ended], tmp_path: Path
) -> None:
    settings = ("model=sigmoid3", "epochs=3", "lr=0.1")
    alone = invoke(*settings, "seed=1")
    basic = invoke("-m", *settings, "seed=0,1", "hydra/launcher=basic")
    single = run(tmp_path / "single", "-m", *settings, "seed=0,1", "hydra.launcher.together=1")
    joblib = run(
        tmp_path / "joblib",
        "-m",
        *settings,
        "seed=0,1",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
    )
    assert (alone.code, basic.code, joblib.code, single.code) == (0, 0, 0, 0)
    by_itself, first, second = (
        folder / "weights.npz" for folder in basic.folders
    )  # both kinds in one outputs folder
    for same in (second, joblib.folders[1] / "weights.npz", single.folders[1] / "weights.npz"):
        assert same.read_bytes() == by_itself.read_bytes()
    for other in (first, joblib.folders[0] / "weights.npz"):
        assert other.read_bytes() != by_itself.read_bytes()
    for sweep in (basic, joblib, single):
        assert "2 of 2 finished" in sweep.out


# --- the surroundings -------------------------------------------------------------------------


def test_help_explains_and_shows_the_choices(invoke: Callable[..., Ended]) -> None:
    ended = invoke("--help")
    assert ended.code == 0
    for text in (
        "scratchgrid: which of many",
        "model: relu2, relu2_dropout, relu2_small, relu3, sigmoid3",
        "-m model=relu2,sigmoid3",
    ):
        assert text in ended.out


def test_help_may_be_cut_short() -> None:
    script = f"set -o pipefail; {sys.executable} -m src.run --help | head -1"
    ended = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.stdout.startswith("scratchgrid: which of many")
    assert ended.stderr == ""


def test_the_console_script_completes_choices_and_keys() -> None:
    script = Path(sys.executable).with_name("scratchgrid")

    def completed(line: str) -> set[str]:
        environment = {**os.environ, "COMP_LINE": line, "COMP_POINT": str(len(line))}
        ended = subprocess.run(
            [script, "-sc", "query=bash"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return set(ended.stdout.split())

    assert completed("scratchgrid model=re") == {
        "model=relu2",
        "model=relu2_dropout",
        "model=relu2_small",
        "model=relu3",
    }
    assert "batching.size=" in completed("scratchgrid batching.s")

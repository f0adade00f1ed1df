"""The stored network does what was trained: loaded, and served over HTTP, without a network and without this project."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import numpy.typing as npt
import pytest

from src.data import Splitting
from src.data.digits import Digits
from tests.conftest import ROOT, Ended
from tests.test_run import history, only_run

BIN = Path(sys.executable).parent


@pytest.fixture(scope="session")
def held_out() -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    test = Digits(split=Splitting(None, 360, 360, shuffle=True, stratify=True)).load().test
    return test.images.astype(np.float32), test.labels


@pytest.fixture(scope="session")
def model_folder(finished: Ended) -> Path:
    (folder,) = {path.parent for path in finished.outputs.rglob("MLmodel")}
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def server(
    command: list[str], port: int, *, ready: str, cwd: Path, **environment: str
) -> Iterator[str]:
    """Start a server and give its address once it answers; it ends with the block."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"  # MLflow starts its workers by name
    log = (cwd / "server.log").open("w")
    process = subprocess.Popen(
        command,
        cwd=cwd,
        stdout=log,
        stderr=log,
        env={**os.environ, "PATH": path, **environment},
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None, (cwd / "server.log").read_text()
            try:
                urllib.request.urlopen(address + ready, timeout=5).close()
                break
            except (urllib.error.URLError, TimeoutError, ConnectionError):
                time.sleep(0.1)
        else:
            pytest.fail(f"the server did not answer:\n{(cwd / 'server.log').read_text()}")
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)
        log.close()


def test_the_model_loads_and_scores_what_the_run_reported(
    finished: Ended, held_out: tuple[npt.NDArray[Any], npt.NDArray[Any]]
) -> None:
    images, labels = held_out
    (output,) = (only_run(finished).outputs or _no_outputs()).model_outputs
    mlflow.set_tracking_uri(finished.store)
    try:
        model = mlflow.pyfunc.load_model(f"models:/{output.model_id}")
    finally:
        mlflow.set_tracking_uri("")
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    answer = model.predict(images)
    assert (answer["label"] == labels).mean() == history(finished.folders[0])[-1]["test/accuracy"]
    np.testing.assert_allclose(answer["probabilities"].sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(answer["probabilities"].argmax(axis=1), answer["label"])
    with pytest.raises(mlflow.MlflowException, match="shape"):
        model.predict(images[:, :100])


def _no_outputs() -> Any:
    raise AssertionError("the run has no model")


def test_the_stored_model_holds_no_pickle_and_all_the_code_it_needs(
    model_folder: Path, tmp_path: Path
) -> None:
    names = {path.name for path in model_folder.rglob("*") if path.is_file()}
    assert {
        "weights.npz",
        "network.json",
        "served_model.py",
        "MLmodel",
        "requirements.txt",
    } <= names
    assert not {name for name in names if name.endswith((".pkl", ".pickle", ".joblib"))}
    # In an empty folder and with the project off the path, only what was stored can be imported.
    script = f"""
import sys
sys.path = [path for path in sys.path if path != {str(ROOT)!r}]
import mlflow, numpy
print(mlflow.pyfunc.load_model(sys.argv[1]).predict(numpy.zeros((2, 784), "f4"))["probabilities"].shape)
print(sys.modules["src"].__path__)
"""
    ended = subprocess.run(
        [sys.executable, "-P", "-c", script, str(model_folder)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    shape, run_context = ended.stdout.splitlines() or ["", ended.stderr]
    assert shape == "(2, 10)"
    assert str(model_folder) in run_context


def test_the_model_answers_over_http(
    model_folder: Path, held_out: tuple[npt.NDArray[Any], npt.NDArray[Any]], tmp_path: Path
) -> None:
    images, labels = held_out
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "--env-manager",
        "local",
        "--model-uri",
        str(model_folder),
        "--host",
        "127.0.0.1",
    ]
    with server(
        [*command, "--port", str(port), "--workers", "1"], port, ready="/ping", cwd=tmp_path
    ) as address:
        body = json.dumps({"inputs": images[:20].tolist()}).encode()
        request = urllib.request.Request(
            f"{address}/invocations", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            predictions = json.load(response)["predictions"]
    assert np.mean(np.array(predictions["label"]) == labels[:20]) > 0.8
    assert np.array(predictions["probabilities"]).shape == (20, 10)

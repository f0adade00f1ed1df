"""The stored model predicts as the trained network does: loaded, and served over HTTP."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import numpy.typing as npt
import pytest
import yaml
from mlflow import MlflowClient

from src.data import Splitting
from src.data.digits import Digits
from src.tracking.model import _code, write_code
from tests.conftest import ROOT, Ended
from tests.test_resume import run_id_of
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


@pytest.mark.slow
def test_the_model_loads_and_scores_what_the_run_reported(
    finished: Ended, held_out: tuple[npt.NDArray[Any], npt.NDArray[Any]], model_folder: Path
) -> None:
    images, labels = held_out
    run = only_run(finished)
    (output,) = (run.outputs or _no_outputs()).model_outputs
    logged = MlflowClient(finished.store).get_logged_model(output.model_id)
    assert logged.name == run.info.run_name
    assert logged.status == "READY"
    assert logged.artifact_location.endswith(str(model_folder))
    model = mlflow.pyfunc.load_model(logged.artifact_location)
    answer = model.predict(images)
    assert (answer["label"] == labels).mean() == history(finished.folders[0])[-1]["test/accuracy"]
    np.testing.assert_allclose(answer["probabilities"].sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(answer["probabilities"].argmax(axis=1), answer["label"])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "float64"])
def test_raw_pixels_of_any_dtype_give_the_same_answer(
    dtype: str, held_out: tuple[npt.NDArray[Any], npt.NDArray[Any]], model_folder: Path
) -> None:
    model, images = mlflow.pyfunc.load_model(str(model_folder)), held_out[0][:50]
    expected = model.predict(images)
    for given in (images.astype(dtype), images.astype(dtype).tolist()):
        answer = model.predict(given)
        for part in ("label", "probabilities"):
            np.testing.assert_array_equal(answer[part], expected[part])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 100)), r"shape \(2, 100\): the shape must be \(n, 784\)"),
        (np.zeros(784), r"shape \(784,\): the shape must be"),
        (np.full((1, 784), "a"), "pixels must be numbers"),
    ],
)
def test_what_is_not_images_is_refused(
    images: npt.NDArray[Any], message: str, model_folder: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        mlflow.pyfunc.load_model(str(model_folder)).predict(images)


def _no_outputs() -> Any:
    raise AssertionError("the run has no model")


@pytest.mark.slow
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
    # In a folder with another package src, and with the project off the path.
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "__init__.py").write_text("nn = 'not ours'")
    script = f"""
import sys
sys.path = [".", *(path for path in sys.path if path != {str(ROOT)!r})]
import src, mlflow, numpy
model = mlflow.pyfunc.load_model(sys.argv[1])
print(model.predict(numpy.zeros((2, 784), "u1"))["probabilities"].shape)
print(src.nn, *(name for name in sys.modules if name.startswith("src.")))
"""
    ended = subprocess.run(
        [sys.executable, "-P", "-c", script, str(model_folder)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout.splitlines() == ["(2, 10)", "not ours"], ended.stderr


@pytest.mark.slow
def test_models_of_different_code_are_loaded_into_one_process(
    model_folder: Path, tmp_path: Path
) -> None:
    later = tmp_path / "later"
    shutil.copytree(model_folder, later, ignore=shutil.ignore_patterns("__pycache__"))
    (package,) = (later / "code").iterdir()
    name = f"scratchgrid_{'0' * 12}"
    files = [later / "MLmodel", *(package.rglob("*.py"))]
    for file in files:
        file.write_text(file.read_text().replace(package.name, name))
    loader = package / "tracking" / "served_model.py"
    loader.write_text(loader.read_text().replace('{"label": ', '{"later": True, "label": '))
    package.rename(package.with_name(name))
    images = np.zeros((1, 784), np.uint8)
    models = [mlflow.pyfunc.load_model(str(folder)) for folder in (model_folder, later)]
    assert ["later" in model.predict(images) for model in models] == [False, True]


@pytest.mark.slow
def test_the_package_is_named_by_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = write_code(tmp_path / "before")
    assert write_code(tmp_path / "again").name == before.name
    source = tmp_path / "src"
    shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
    with (source / "nn" / "layers.py").open("a") as layers:
        layers.write("# changed\n")
    monkeypatch.setattr("src.tracking.model.SOURCE", source)
    _code.cache_clear()
    try:
        after = write_code(tmp_path / "after")
    finally:
        _code.cache_clear()
    assert after.name != before.name
    assert not [path for path in after.rglob("*.py") if "from src" in path.read_text()]


@pytest.mark.slow
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
        body = json.dumps({"inputs": images[:20].astype(int).tolist()}).encode()
        request = urllib.request.Request(
            f"{address}/invocations", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            predictions = json.load(response)["predictions"]
    assert np.mean(np.array(predictions["label"]) == labels[:20]) > 0.8
    assert np.array(predictions["probabilities"]).shape == (20, 10)


def served(outputs: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the weights of each logged model by the id of its run."""
    found = {}
    for path in outputs.glob("artifacts/models/*/artifacts/MLmodel"):
        assert (path.parent / "data/data/weights.npz").exists()
        described = yaml.safe_load(path.read_text())
        with np.load(path.parent / "data/data/weights.npz") as weights:
            found[described["run_id"]] = weights[weights.files[0]]
    return found


@pytest.mark.slow
def test_a_sweep_logs_its_best_network_and_any_other_on_demand(
    invoke: Callable[..., Ended], tmp_path: Path
) -> None:
    sweep = ("-m", "model=relu2_small", "lr=0.05,0.000001", "epochs=5")
    ended = invoke(*sweep, tracked=True)
    good, bad = map(run_id_of, ended.folders)
    assert set(served(ended.outputs)) == {good}

    def start(folder: Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "src.sync", "--model", str(folder)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )

    for said in ("logged", "was logged before"):
        done = start(ended.folders[1])
        assert f"{ended.folders[1]}: {said}" in done.stdout.replace("\n", ""), done.stderr
    models = served(ended.outputs)
    assert set(models) == {good, bad}
    with np.load(ended.folders[1] / "weights.npz") as weights:
        np.testing.assert_array_equal(models[bad], weights[weights.files[0]])
    invoke(*sweep, "seed=1", "tracking.models=all", tracked=True)
    assert len(served(ended.outputs)) == 4
    (ended.folders[0] / "result.json").unlink()
    done = start(ended.folders[0])
    assert done.returncode == 1
    assert "only the network of a finished run can be logged" in done.stderr

"""A real MLflow server: runs sent to it over HTTP, and its pages in a real browser."""

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from src.tracking.store import server_command
from tests.conftest import ROOT, Ended, run
from tests.test_outage import wait_until
from tests.test_run import runs
from tests.test_serving import free_port, server
from tests.test_tracking import PATIENCE

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)


@pytest.fixture(scope="module")
def ui(swept: Ended, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The UI of the sweep's store, started as ``make ui`` starts it."""
    port = free_port()
    arguments, environment = server_command(swept.store, port)
    folder = tmp_path_factory.mktemp("server")
    with server(
        arguments,
        port,
        ready="/health",
        cwd=folder,
        **{k: environment[k] for k in environment if k.startswith("MLFLOW")},
    ) as address:
        yield address


@pytest.mark.slow
def test_a_run_can_be_kept_by_a_server(ui: str, tmp_path: Path) -> None:
    ended = run(tmp_path, "epochs=2", MLFLOW_TRACKING_URI=ui, MLFLOW_EXPERIMENT_NAME="")
    assert ended.code == 0, ended.err
    link = ended.out.splitlines()[-1]
    found = re.search(rf"{re.escape(ui)}/#/experiments/\d+/runs/(\w+)\?", link)
    assert found, link
    assert "make ui" not in link
    client = MlflowClient(ui)
    kept = client.get_run(found[1])
    assert kept.info.status == "FINISHED"
    assert len(client.get_metric_history(found[1], "val/loss")) == 2
    assert not (tmp_path / "mlflow.db").exists()


def shown(address: str, profile: Path, *, milliseconds: int) -> str:
    """Return the document that a browser makes of a page within so much of the page's own time."""
    assert CHROMIUM
    quiet = [
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-quic",
    ]
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        *quiet,
        "--window-size=1600,1000",
    ]
    more = [
        f"--user-data-dir={profile}",
        f"--virtual-time-budget={milliseconds}",
        "--dump-dom",
        address,
    ]
    return subprocess.run(
        [*command, *more], capture_output=True, text=True, timeout=120, check=True
    ).stdout


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_link_of_a_sweep_opens_its_runs_and_their_curves(
    ui: str, swept: Ended, tmp_path: Path
) -> None:
    link = swept.out.splitlines()[-1].partition("http://127.0.0.1:5000")[2]
    charts = ("val/accuracy", "val/loss", "Parallel Coordinates")
    for milliseconds in (20_000, 60_000, 180_000):  # a busy machine draws the charts later
        document = shown(ui + link, tmp_path, milliseconds=milliseconds)
        if all(chart in document for chart in charts):
            break
    assert [chart for chart in charts if chart not in document] == []
    assert "Error loading shared view" not in document
    for found in runs(swept):  # among them the run of the test above, which the link must leave out
        if found.info.status == "FINISHED":
            assert (str(found.info.run_name) in document) == ("sweep_id" in found.data.tags)


def test_make_ui_says_where_it_is_and_refuses_a_port_in_use(ui: str) -> None:
    port = ui.rpartition(":")[2]
    ended = subprocess.run(
        [sys.executable, "-m", "src.ui", "--port", port],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert (
        f"port {port}: Address already in use; choose another one with make ui PORT=5001"
        in ended.stderr
    )


@pytest.mark.slow
def test_a_closed_terminal_ends_the_server_too(tmp_path: Path) -> None:
    port = free_port()
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    process = subprocess.Popen(
        [sys.executable, "-m", "src.ui", "--port", str(port), "--outputs", str(tmp_path)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # Under nohup this signal is ignored, and stays so.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    wait_until(lambda: answers(port))
    process.send_signal(signal.SIGHUP)
    assert process.wait(PATIENCE) == 129
    wait_until(lambda: not answers(port))


def answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///:memory:", "nonsense://host"])
def test_make_ui_refuses_a_store_that_it_cannot_show(uri: str, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "src.ui", "--outputs", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "MLFLOW_TRACKING_URI": uri},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("error")
    assert uri in ended.stderr
    assert len(ended.stderr.splitlines()) == 1

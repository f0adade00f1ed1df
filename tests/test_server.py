"""The server of a team: a real PostgreSQL, and a run that is kept in it."""

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric

from src.tracking.team_server import TeamServer
from tests.conftest import ROOT, run

_HAS_POSTGRESQL = any(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder that PostgreSQL's own user can reach, with a name short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="t"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def answer(address: str) -> int:
    try:
        with urllib.request.urlopen(address) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


needs_postgresql = pytest.mark.skipif(not _HAS_POSTGRESQL, reason="apt-get install postgresql")


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """Run a server of one process; yield its address and it."""
    pytest.importorskip("psycopg", reason="pip install '.[server]' adds it")
    port = free_port()
    command = [sys.executable, "-m", "src.server", "--folder", str(folder), "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--workers", "1"], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                assert answer(f"{address}/health") == 200
                break
            except OSError:
                assert process.poll() is None
                time.sleep(0.2)
        yield address, process
    finally:
        process.terminate()
        process.wait()


@pytest.mark.slow
@needs_postgresql
def test_requests_of_many_writers_do_not_wait_for_each_other_s_connections(short: Path) -> None:
    with serving(short) as (address, _):
        client = MlflowClient(address)
        runs = [client.create_run("0").info.run_id for _ in range(64)]
        at_once = threading.Barrier(len(runs))

        def write(run_id: str) -> None:
            at_once.wait()
            for step in range(5):
                # One that waits for a connection fails.
                client.log_batch(run_id, [Metric("loss", 0.5, step, step)])

        with ThreadPoolExecutor(len(runs)) as writers:
            list(writers.map(write, runs))
        for run_id in runs:
            assert len(client.get_metric_history(run_id, "loss")) == 5


@pytest.mark.slow
@needs_postgresql
def test_a_server_keeps_runs_in_postgresql_and_leaves_no_process(
    short: Path, tmp_path: Path
) -> None:
    with serving(short) as (address, process):
        ended = run(tmp_path, "debug=fast", MLFLOW_TRACKING_URI=address)
        assert ended.code == 0, ended.out + ended.err
        assert "not told" not in ended.out
        database = int((short / "postgresql" / "data" / "postmaster.pid").read_text().split()[0])
        process.terminate()
        process.wait()
    assert not Path(f"/proc/{database}").exists()
    assert list(short.glob("artifacts/*/*/artifacts/history.csv"))


@pytest.mark.slow
def test_a_server_beyond_this_machine_asks_for_a_password_that_nobody_else_can_read(
    tmp_path: Path,
) -> None:
    here, beyond = (
        TeamServer(tmp_path, host, 5000, 1, "postgresql://x") for host in ("127.0.0.1", "0.0.0.0")
    )
    assert "--app-name" not in here.command("uri")[0]
    command, environment = beyond.command("uri")
    assert command[-2:] == ["--app-name", "basic-auth"]
    account = Path(environment["MLFLOW_AUTH_CONFIG_PATH"])
    for secret in (account, tmp_path / "secret"):
        assert secret.stat().st_mode & 0o777 == 0o600
    before = account.read_text()
    beyond.command("uri")
    assert account.read_text() == before  # the password stays
    password = before.partition("admin_password = ")[2].splitlines()[0]
    assert len(password) > 20
    assert not any(password in argument or "uri" in argument for argument in command)

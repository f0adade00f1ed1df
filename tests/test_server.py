"""The server of a team: a real PostgreSQL, and a run that is kept in it."""

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

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


@pytest.mark.skipif(not _HAS_POSTGRESQL, reason="apt-get install postgresql")
def test_a_server_keeps_runs_in_postgresql_and_leaves_no_process(
    short: Path, tmp_path: Path
) -> None:
    pytest.importorskip("psycopg", reason="pip install '.[server]' adds it")
    port = free_port()
    command = [sys.executable, "-m", "src.server", "--folder", str(short), "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--workers", "1"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    while True:
        try:
            assert answer(f"{address}/health") == 200
            break
        except OSError:
            assert process.poll() is None
            time.sleep(0.2)
    ended = run(tmp_path, "debug=fast", MLFLOW_TRACKING_URI=address)
    assert ended.code == 0, ended.out + ended.err
    assert "not told" not in ended.out
    database = int((short / "postgresql" / "data" / "postmaster.pid").read_text().split()[0])
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert not Path(f"/proc/{database}").exists()
    assert list(short.glob("artifacts/*/*/artifacts/history.csv"))


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

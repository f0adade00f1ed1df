"""A store that fails ends no training: servers that die, hang or refuse, and locked databases."""

import contextlib
import http.client
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowException

from src.runs.history import read_history
from src.runs.tracking import Tracking
from src.support.errors import InvalidValue, UserError
from src.support.masking import mask
from src.tracking import mirror as mirror_module
from src.tracking.store import check_store, open_tracking, server_command
from src.tracking.told import Told
from tests.conftest import ROOT, run
from tests.test_serving import free_port
from tests.test_tracking import PATIENCE, Said, recorded


def wait_until(true: Callable[[], bool]) -> None:
    """Wait for an event, however long a busy machine takes."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


class Server:
    """A real MLflow server with a database of its own; it can be killed and started again.

    With ``files`` it keeps those of runs, too, in its folder ``artifacts``.
    """

    def __init__(self, folder: Path, *, files: bool = False) -> None:
        self.folder, self.port, self._files = folder, free_port(), files
        self.address = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command, environment = server_command(f"sqlite:///{self.folder / 'mlflow.db'}", self.port)
        if self._files:
            command = [one for one in command if one != "--no-serve-artifacts"]
            at = command.index("--default-artifact-root")
            command[at : at + 2] = ["--artifacts-destination", str(self.folder / "artifacts")]
        with (self.folder / "server.log").open("a") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                env={**environment, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
                start_new_session=True,
            )
        wait_until(self.answers)

    def answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.address}/health", timeout=5).close()
        except OSError:
            return False
        return True

    def signal(self, number: int) -> None:
        assert self._process
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self._process
        self._process.wait(PATIENCE)


def rows(folder: Path, query: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db", timeout=PATIENCE)) as store:
        return list(store.execute(query))


@pytest.fixture(scope="module")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"))
    made.start()
    yield made
    made.signal(signal.SIGCONT)
    made.kill()


@pytest.fixture
def server(real_server: Server) -> Server:
    if not real_server.answers():
        real_server.start()
    return real_server


def same(folder: Path, store: Path) -> None:
    """Check that the store has the points of the history, each once, and one such run, finished."""
    told = Told.load(folder)
    query = (
        f"SELECT step, value, timestamp FROM metrics WHERE run_uuid = '{told.run_id}' AND key = "
    )
    found = sorted(rows(store, f"{query} 'val/loss'"))
    assert found == [(row["epoch"], row["val/loss"], row["time"]) for row in read_history(folder)]
    where = f"key = 'output_dir' AND value = '{folder}'"
    joined = f"SELECT run_uuid, status FROM runs JOIN tags USING (run_uuid) WHERE {where}"
    assert rows(store, joined) == [(told.run_id, "FINISHED")]
    assert told.is_complete


def train(mirror: Said, outputs: Path, between: Callable[[int], None]) -> None:
    """Train 6 epochs and tell MLflow of each.

    ``between`` is called before each with its number, and with 7 when the run has ended.
    """
    prepared, opened = recorded(outputs, "epochs=6")
    mirror.follow([outputs / "run"])
    with opened as recorder:
        for epoch in prepared.train():
            between(epoch.number)
            recorder.add(epoch)
            mirror.turn()
        recorder.finish()
    between(7)
    mirror.turn()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a mirror try again at once, and wait a second for an answer instead of ten."""
    monkeypatch.setattr(mirror_module, "PAUSE", 0.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")


class Proxy(ThreadingHTTPServer):
    """Hands requests on to a server, or answers them as ``mode`` says; it counts these."""

    daemon_threads = True

    def __init__(self, server: Server) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target, self.mode, self.spoiled = server, "pass", 0
        self.address = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    server: Proxy

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        mode = self.server.mode
        self.close_connection = True
        lost = mode == "lost" and "runs/create" in self.path
        if mode not in ("pass", "lost"):
            self.server.spoiled += 1
            if mode == "reset":
                self.connection.close()
                return
            self.send_response(int(mode))
            self.end_headers()
            return
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", self.server.target.port)
        ) as onward:
            onward.request(self.command, self.path, body, dict(self.headers))
            answer = onward.getresponse()
            content = answer.read()
        if lost:  # it was created, and nobody hears of it
            self.server.spoiled += 1
            self.connection.close()
            return
        with contextlib.suppress(OSError):  # the client may be gone
            self._hand_back(answer, content)

    def _hand_back(self, answer: http.client.HTTPResponse, content: bytes) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.getheader("Content-Type", "text/plain"))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _answer  # noqa: N815 # http.server finds them by these names

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    made = Proxy(server)
    yield made
    made.shutdown()
    made.server_close()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["500", "503", "429", "reset", "killed", "stopped"])
def test_a_server_that_fails_is_waited_out_and_has_everything_under_one_run(
    mode: str, server: Server, proxy: Proxy, tmp_path: Path
) -> None:
    def between(epoch: int) -> None:
        if mode == "killed":
            {3: server.kill, 6: server.start}.get(epoch, lambda: None)()
        elif mode == "stopped":
            numbers = {3: signal.SIGSTOP, 6: signal.SIGCONT}
            if epoch in numbers:
                server.signal(numbers[epoch])
        else:
            proxy.mode = mode if 3 <= epoch < 6 else "pass"

    mirror = Said(tmp_path, proxy.address if mode.isdigit() or mode == "reset" else server.address)
    train(mirror, tmp_path, between)
    assert mirror.said == ["lost", "found"]
    assert bool(proxy.spoiled) == (mode not in ("killed", "stopped"))
    same(tmp_path / "run", server.folder)


@pytest.mark.slow
def test_a_run_whose_creation_was_not_confirmed_is_found_and_not_created_again(
    server: Server, proxy: Proxy, tmp_path: Path
) -> None:
    def between(epoch: int) -> None:
        proxy.mode = "lost" if epoch == 1 else "pass"

    train(Said(tmp_path, proxy.address), tmp_path, between)
    assert proxy.spoiled == 1
    same(tmp_path / "run", server.folder)


@pytest.mark.slow
def test_a_locked_database_is_waited_out(tmp_path: Path) -> None:
    mirror = Said(tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as other:

        def between(epoch: int) -> None:
            if epoch == 3:
                other.execute("BEGIN EXCLUSIVE")
            if epoch == 4:
                other.rollback()

        train(mirror, tmp_path, between)
    assert mirror.said == ["lost", "found"]
    same(tmp_path / "run", tmp_path)


def test_an_error_of_the_database_is_raised_and_not_shown_with_a_traceback(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    client, experiment_id = open_tracking(Tracking(None, "scratchgrid"), tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as other:
        other.execute("DROP TABLE logged_models")
    with pytest.raises(MlflowException, match="no such table"):
        client.create_logged_model(experiment_id, "a")
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_offline_no_store_is_made_and_sync_uploads_the_run(tmp_path: Path) -> None:
    ended = run(tmp_path, "tracking.offline=true", "epochs=3")
    assert ended.code == 0, ended.err
    assert not (tmp_path / "mlflow.db").exists()
    (folder,) = ended.folders
    assert f"python -m src.sync --outputs {tmp_path} {folder}" in ended.out
    command = [sys.executable, "-m", "src.sync", "--outputs", str(tmp_path)]
    for said in ("/runs/", "MLflow has everything"):
        synced = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert synced.returncode == 0, synced.stderr
        assert said in synced.stdout
    same(folder, tmp_path)
    assert list(tmp_path.rglob("artifacts/**/curves.png"))
    assert list(tmp_path.rglob("artifacts/**/MLmodel"))


@pytest.mark.slow
def test_files_that_mlflow_has_no_place_for_are_named_with_the_command_that_tries_again(
    tmp_path: Path,
) -> None:
    (tmp_path / "artifacts").touch()  # where a folder should be
    ended = run(tmp_path, "epochs=3")
    assert ended.code == 0, ended.err
    (folder,) = ended.folders
    said, command = " ".join(ended.err.split()), f"python -m src.sync --outputs {tmp_path} {folder}"
    assert "MLflow refuses a part of the run: " in said
    assert "history.csv: FileExistsError" in said or "history.csv: NotADirectoryError" in said
    assert f"{command} tries again" in said
    (tmp_path / "artifacts").unlink()
    synced = subprocess.run(
        [sys.executable, *command.split()[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert synced.returncode == 0, synced.stderr
    same(folder, tmp_path)
    assert len(list(tmp_path.rglob("artifacts/**/history.csv"))) == 1


@pytest.mark.slow
def test_commands_that_begin_at_the_same_time_in_new_outputs_are_all_told_whole(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "src.run", f"outputs={tmp_path}", "epochs=3"]
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [one.wait(PATIENCE) for one in both] == [0, 0]
    folders = list(tmp_path.glob("runs/*"))
    assert len(folders) == 2
    for folder in folders:
        same(folder, tmp_path)


# --- before anything starts -----------------------------------------------------------------------


@pytest.mark.slow
def test_a_server_that_never_answers_is_refused_at_the_start(tmp_path: Path) -> None:
    with contextlib.closing(socket.socket()) as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        uri = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        ended = run(tmp_path / "o", "epochs=1", MLFLOW_TRACKING_URI=uri)
    assert ended.code == 2
    assert "tracking.offline=true" in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("version", ["ffffffffffff", "0584bdc529eb"])
def test_a_database_of_another_mlflow_is_refused_before_training(
    version: str, tmp_path: Path
) -> None:
    tracking = Tracking(None, "mine")
    open_tracking(tracking, tmp_path)
    check_store(tracking, tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as store:
        store.execute("UPDATE alembic_version SET version_num = ?", [version])
        store.commit()
    word = "newer" if version == "ffffffffffff" else "mlflow db upgrade"
    with pytest.raises(UserError, match=word):
        check_store(tracking, tmp_path)


# --- passwords ------------------------------------------------------------------------------------

SECRETS = ("Sup3rS", "ecr3tW", "T0ken")


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://me:Sup3rS@host/a", "http://me:***@host/a"),
        ("http://me:Sup3rS@ecr3tW:x@host", "http://me:***@host"),
        ("http://host/a?token=T0ken", "http://host/a?***"),
        ("postgresql://me:Sup3rS@host:1/db", "postgresql://me:***@host:1/db"),
        ("http://host:5000/a", "http://host:5000/a"),
        ("sqlite:////a b/mlflow.db", "sqlite:////a b/mlflow.db"),
    ],
)
def test_secrets_of_a_uri_are_masked_and_refused_as_a_setting(uri: str, shown: str) -> None:
    assert mask(f"at {uri} there") == f"at {shown} there"
    if shown == uri:
        Tracking(uri, "mine")
    else:
        with pytest.raises(InvalidValue, match="MLFLOW_TRACKING_URI") as refused:
            Tracking(uri, "mine")
        assert not [secret for secret in SECRETS if secret in str(refused.value)]


@pytest.mark.slow
def test_no_secret_is_in_anything_that_a_run_leaves(server: Server, tmp_path: Path) -> None:
    uri = server.address.replace("://", "://me:Sup3rS@ecr3tW:x@")
    ended = run(tmp_path, "epochs=2", MLFLOW_TRACKING_URI=uri)
    assert ended.code == 0, ended.err
    dead = f"http://me:Sup3rS@ecr3tW:x@127.0.0.1:{free_port()}?token=T0ken"
    refused = run(tmp_path / "2", "epochs=2", MLFLOW_TRACKING_URI=dead)
    typed = run(tmp_path / "3", "-m", f"tracking.uri='{dead}'", "lr=0.1,0.2")
    assert (refused.code, typed.code) == (2, 2)
    said = "".join(e.out + e.err for e in (ended, refused, typed))
    assert "View run" not in said
    left = [path for place in (tmp_path, server.folder) for path in place.rglob("*")]
    content = [path.read_bytes() for path in left if path.is_file()]
    for secret in SECRETS:
        assert secret not in said
        assert not [path for path in left if secret in path.name]
        assert not [part for part in content if secret.encode() in part]

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

from src.experiment.results import Result
from src.support.errors import InvalidValue, UserError
from src.tracking import tracker
from src.tracking.journal import JOURNAL, Journal
from src.tracking.masking import mask
from src.tracking.settings import Tracking
from src.tracking.store import server_command
from src.tracking.sync import DIED, sync
from src.tracking.writer import writer
from tests.conftest import ROOT, run
from tests.test_run import history
from tests.test_serving import free_port
from tests.test_tracking import PATIENCE, recorded


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

    def runs(self) -> list[tuple[str, str]]:
        return rows(self.folder, "SELECT run_uuid, status FROM runs")


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


def same(folder: Path, store: Path, run_id: str | None) -> None:
    """Check that the store has the points of the history, each once, and one such run."""
    query = f"SELECT step, value, timestamp FROM metrics WHERE run_uuid = '{run_id}' AND key = "
    found = sorted(rows(store, f"{query} 'val/loss'"))
    assert found == [(row["epoch"], row["val/loss"], row["time"]) for row in history(folder)]
    where = f"key = 'output_dir' AND value = '{folder}'"
    assert rows(store, f"SELECT run_uuid FROM tags WHERE {where}") == [(run_id,)]
    assert not (folder / JOURNAL).exists()


def notices(caplog: pytest.LogCaptureFixture) -> list[str]:
    told = [text for name, _, text in caplog.record_tuples if name == "src.tracking.outage"]
    return ["fails" if " fails: " in text else "back" if "back" in text else text for text in told]


def train(folder: Path, uri: str, *, between: Callable[[int], None]) -> Result:
    """Train 6 epochs; ``between`` is called before each with its number, and with 7 at the end."""
    environment = pytest.MonkeyPatch()
    environment.setenv("MLFLOW_TRACKING_URI", uri)
    try:
        prepared, recording = recorded(folder, "epochs=6")
    finally:
        environment.undo()
    with recording as recorder:
        for epoch in prepared.train():
            between(epoch.number)
            recorder.epoch(epoch)
        between(7)
        recorder.finish()
    result: Result = recorder.finished.result
    assert result.status == "FINISHED"
    return result


def known(server: Server, folder: Path) -> bool:
    """Return whether the server has an epoch of the run."""
    query = (
        "SELECT 1 FROM metrics JOIN tags USING (run_uuid) WHERE tags.key = 'output_dir' "
        f"AND tags.value = '{folder}' AND metrics.key = 'val/loss'"
    )
    return bool(rows(server.folder, query))


@pytest.mark.slow
def test_a_server_that_is_killed_and_comes_back_has_everything_under_one_run(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def between(epoch: int) -> None:
        if epoch == 3:
            wait_until(lambda: known(server, tmp_path / "run"))
            server.kill()
        if epoch == 7:
            wait_until(lambda: "fails" in notices(caplog))
            server.start()

    result = train(tmp_path, server.address, between=between)
    same(tmp_path / "run", server.folder, result.run_id)
    assert (result.run_id, "FINISHED") in server.runs()
    assert notices(caplog) == ["fails", "back"]


# A run that waits after its third and sixth epoch until a file of that number is there.
WAITING = """
import sys, time
from pathlib import Path
from src.experiment.recorder import Recorder
from src.run import main

go, epoch = Path(sys.argv.pop(1)), Recorder.epoch

def wait(self, given):
    epoch(self, given)
    while given.number in (3, 6) and not (go / str(given.number)).exists():
        time.sleep(0.02)

Recorder.epoch = wait
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [10, pytest.param(60, marks=pytest.mark.long)])
def test_a_server_that_is_away_in_the_middle_of_a_run_costs_nothing(
    server: Server, tmp_path: Path, seconds: int
) -> None:
    go, outputs = tmp_path / "go", tmp_path / "outputs"
    go.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, str(go), f"outputs={outputs}", "epochs=9"],
        cwd=ROOT,
        env={**os.environ, "MLFLOW_TRACKING_URI": server.address},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_until(lambda: bool(list(outputs.glob("runs/*/history.csv"))))
    (folder,) = outputs.glob("runs/*")
    wait_until(lambda: known(server, folder))
    server.kill()
    back = time.monotonic() + seconds
    (go / "3").touch()
    wait_until(lambda: len(history(folder)) == 6)  # training goes on
    while time.monotonic() < back:
        assert process.poll() is None
        time.sleep(0.05)
    server.start()
    (go / "6").touch()
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    words = " ".join(said.split())
    assert words.count("fails: ") == words.count("is back") == 1, said
    assert len(history(folder)) == 9
    run_id = Result.load(folder).run_id
    same(folder, server.folder, run_id)
    assert (run_id, "FINISHED") in server.runs()


@pytest.mark.slow
def test_what_a_server_that_stays_away_was_not_told_is_synced_later_exactly_once(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker, "PATIENCE", 0.5)

    def between(epoch: int) -> None:
        if epoch == 3:
            wait_until(lambda: known(server, tmp_path / "run"))
            server.kill()

    result = train(tmp_path, server.address, between=between)
    with pytest.raises(UserError, match=r"can't be opened: .*refused"):
        sync(tmp_path / "run")
    server.start()
    synced = sync(tmp_path / "run")
    assert synced
    assert synced.run_id == result.run_id
    same(tmp_path / "run", server.folder, result.run_id)
    assert (result.run_id, "FINISHED") in server.runs()
    assert sync(tmp_path / "run") is None


@pytest.mark.slow
def test_a_server_that_hangs_holds_up_no_epoch(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def between(epoch: int) -> None:
        if epoch == 3:
            wait_until(lambda: known(server, tmp_path / "run"))
            server.signal(signal.SIGSTOP)
        if epoch == 7:  # all epochs are trained
            wait_until(lambda: "fails" in notices(caplog))
            server.signal(signal.SIGCONT)

    result = train(tmp_path, server.address, between=between)
    same(tmp_path / "run", server.folder, result.run_id)


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
        if mode == "late":  # it has much to do, and does it all
            self.server.spoiled += 1
            time.sleep(1.5)
        elif mode not in ("pass", "lost"):
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


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["500", "503", "429", "reset"])
def test_answers_that_are_errors_are_waited_out(
    mode: str, server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    proxy = Proxy(server)

    def between(epoch: int) -> None:
        if epoch == 3:
            wait_until(lambda: known(server, tmp_path / "run"))
            proxy.mode = mode
        if epoch == 7:
            wait_until(lambda: "fails" in notices(caplog))
            proxy.mode = "pass"

    result = train(tmp_path, proxy.address, between=between)
    assert proxy.spoiled
    same(tmp_path / "run", server.folder, result.run_id)
    assert notices(caplog) == ["fails", "back"]
    proxy.shutdown()
    proxy.server_close()


@pytest.mark.slow
def test_a_server_that_answers_late_is_given_longer(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    proxy = Proxy(server)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")

    def between(epoch: int) -> None:
        if epoch == 1:  # before the run is created
            proxy.mode = "late"
        if epoch == 7:
            wait_until(lambda: known(server, tmp_path / "run"))
            proxy.mode = "pass"

    result = train(tmp_path, proxy.address, between=between)
    same(tmp_path / "run", server.folder, result.run_id)
    assert notices(caplog) == ["fails", "back"]
    assert (result.run_id, "FINISHED") in server.runs()
    proxy.shutdown()
    proxy.server_close()


@pytest.mark.slow
def test_a_run_whose_creation_was_not_confirmed_is_found_and_not_created_again(
    server: Server, tmp_path: Path
) -> None:
    proxy = Proxy(server)
    proxy.mode = "lost"

    def between(epoch: int) -> None:
        if epoch == 3:
            wait_until(lambda: proxy.spoiled > 0)
            proxy.mode = "pass"

    result = train(tmp_path, proxy.address, between=between)
    same(tmp_path / "run", server.folder, result.run_id)
    proxy.shutdown()
    proxy.server_close()


def test_an_error_of_the_database_is_raised_and_not_shown_with_a_traceback(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    client, experiment_id = Tracking(None, "scratchgrid").open(tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as other:
        other.execute("DROP TABLE logged_models")
    with pytest.raises(MlflowException, match="no such table"):
        client.create_logged_model(experiment_id, "a")
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_a_locked_database_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Tracking(None, "scratchgrid").open(tmp_path)
    monkeypatch.setattr(tracker, "PATIENCE", 0.5)
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        prepared, recording = recorded(tmp_path, "epochs=6")
        with recording as recorder:
            for epoch in prepared.train():
                recorder.epoch(epoch)
            recorder.finish()
        assert recorder.finished.result.status == "FINISHED"
        other.rollback()
    writer().submit(lambda: None).result(PATIENCE)  # the call that waited for the lock has ended
    synced = sync(tmp_path / "run")
    assert synced
    same(tmp_path / "run", tmp_path, synced.run_id)


@pytest.mark.slow
def test_offline_no_store_is_made_and_sync_uploads_the_run(tmp_path: Path) -> None:
    ended = run(tmp_path, "tracking.offline=true", "epochs=3")
    assert ended.code == 0, ended.err
    assert not (tmp_path / "mlflow.db").exists()
    (folder,) = ended.folders
    assert f"python -m src.sync {folder}" in ended.out
    command = [sys.executable, "-m", "src.sync", str(tmp_path)]
    for said in ("/runs/", "MLflow has everything"):
        synced = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert synced.returncode == 0, synced.stderr
        assert said in synced.stdout
    ((run_id, status),) = rows(tmp_path, "SELECT run_uuid, status FROM runs")
    assert status == "FINISHED"
    same(folder, tmp_path, run_id)
    assert {name for (name,) in rows(tmp_path, "SELECT name FROM datasets")}
    assert list(tmp_path.rglob("artifacts/**/curves.png"))
    assert list(tmp_path.rglob("artifacts/**/MLmodel"))


@pytest.mark.slow
def test_a_run_whose_process_was_killed_is_closed_by_sync_and_not_while_it_trains(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "src.run", f"outputs={tmp_path}", "epochs=100000"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    wait_until(lambda: bool(list(tmp_path.glob("runs/*/history.csv"))))
    (folder,) = tmp_path.glob("runs/*")
    wait_until(lambda: len((folder / "history.csv").read_text().splitlines()) > 3)
    with pytest.raises(UserError, match="still goes on"):
        sync(folder)
    process.kill()
    process.wait()
    synced = sync(folder)
    assert synced
    assert rows(tmp_path, "SELECT run_uuid, status FROM runs") == [(synced.run_id, "KILLED")]
    assert rows(tmp_path, "SELECT value FROM tags WHERE key = 'failure'") == [(DIED,)]


@pytest.mark.slow
def test_a_run_whose_process_was_killed_is_closed_by_the_next_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "src.run", f"outputs={tmp_path}", "epochs=100000"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    # MLflow may not know it.
    wait_until(lambda: any(path.stat().st_size for path in tmp_path.glob("runs/*/history.csv")))
    (folder,) = tmp_path.glob("runs/*")
    process.kill()
    process.wait()
    assert run(tmp_path, "epochs=1").code == 0
    found = rows(tmp_path, "SELECT status FROM runs ORDER BY status")
    assert found == [("FINISHED",), ("KILLED",)]
    assert rows(tmp_path, "SELECT value FROM tags WHERE key = 'failure'") == [(DIED,)]
    assert not (folder / JOURNAL).exists()


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
    tracking.open(tmp_path)
    tracking.check(tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as store:
        store.execute("UPDATE alembic_version SET version_num = ?", [version])
        store.commit()
    word = "newer" if version == "ffffffffffff" else "mlflow db upgrade"
    with pytest.raises(UserError, match=word):
        tracking.check(tmp_path)


def test_a_damaged_journal_is_told_in_a_line(tmp_path: Path) -> None:
    assert Journal.load(tmp_path) is None
    (tmp_path / JOURNAL).write_text('{"name": ')
    with pytest.raises(UserError, match=r"tracking\.json: can't be read"):
        sync(tmp_path)


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
    ended = run(tmp_path, "epochs=2", MLFLOW_TRACKING_URI=uri, MLFLOW_EXPERIMENT_NAME="")
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

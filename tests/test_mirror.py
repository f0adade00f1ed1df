"""Real trainings and their mirrors: what MLflow has when one of them dies, stops or is away."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from src.runs.folder import HISTORY
from src.runs.history import read_history
from src.tracking.links import sync_command
from src.tracking.told import Told
from tests.conftest import ROOT, run
from tests.test_outage import Server, rows, wait_until
from tests.test_tracking import PATIENCE

# The command, which waits after its third epoch until a file is there, and says at its end what it
# has imported of MLflow.
WAITING = """
import sys, time
from pathlib import Path
from src.tracking import process

go, patience = Path(sys.argv.pop(1)), float(sys.argv.pop(1))
process.start(sys.argv[1:])

from src import run
from src.runs.recorder import Recorder

add = Recorder.add

def wait(self, epoch):
    add(self, epoch)
    while epoch.number == 3 and not go.exists():
        time.sleep(0.02)

Recorder.add, run.PATIENCE = wait, patience
try:
    run.main()
finally:
    print("imported", sum(name.split(".")[0] == "mlflow" for name in sys.modules), flush=True)
"""
OWNER = "SCRATCHGRID_TEST"  # a variable of the environment that tells whose a process is


def mirrors(outputs: Path) -> list[int]:
    """Return the mirrors that live, or are stopped, of the commands with these outputs."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            number, command = int(entry.name), (entry / "cmdline").read_bytes()
            is_ours = f"{OWNER}={outputs}\0".encode() in (entry / "environ").read_bytes()
            if is_ours and b"src.tracking.mirror" in command:
                found.append(number)
    return found


class Training:
    """A run of six epochs with a mirror, held after its third epoch until ``go_on``."""

    def __init__(self, outputs: Path, *, patience: float = PATIENCE, **environment: str) -> None:
        self.outputs, self._go = outputs, outputs / "go"
        command = [sys.executable, "-c", WAITING, str(self._go), str(patience)]
        self.process = subprocess.Popen(
            [*command, f"outputs={outputs}", "epochs=6", "tracking.models=all"],
            cwd=ROOT,
            env={**os.environ, OWNER: str(outputs), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        wait_until(lambda: self.process.poll() is not None or self.epochs == 3)
        assert self.process.poll() is None, self.process.communicate()
        (self.folder,) = outputs.glob("runs/*")
        (self.mirror,) = mirrors(outputs)

    @property
    def epochs(self) -> int:
        return sum(
            len(read_history(path.parent)) for path in self.outputs.glob(f"runs/*/{HISTORY}")
        )

    def wait_until_told(self) -> None:
        """Wait until MLflow has the three epochs."""
        wait_until(lambda: Told.load(self.folder).epochs == 3)

    def go_on(self) -> None:
        self._go.touch()

    def end(self) -> str:
        """Return what the command printed, in one line, when it has ended."""
        said, _ = self.process.communicate(timeout=PATIENCE)
        return " ".join(said.split())

    def kill(self, *numbers: int) -> None:
        for number in numbers:
            os.kill(number, signal.SIGKILL)
        self.end()

    def check(self, status: str, store: Path, epochs: int = 6) -> None:
        """Check that no mirror is left and MLflow has everything of the run exactly once."""
        wait_until(lambda: not mirrors(self.outputs))
        told, history = Told.load(self.folder), read_history(self.folder)
        assert (len(history), told.is_complete) == (epochs, True)
        runs = (
            "SELECT run_uuid, status FROM runs JOIN tags USING (run_uuid) WHERE key = 'output_dir'"
        )
        assert rows(store, f"{runs} AND value = '{self.folder}'") == [(told.run_id, status)]
        of_run = f"FROM metrics WHERE run_uuid = '{told.run_id}' AND step > 0"
        assert sorted(rows(store, f"SELECT key, step, value, timestamp {of_run}")) == sorted(
            (key, row["epoch"], value, row["time"])
            for row in history
            for key, value in row.items()
            if key not in ("epoch", "time")
        )
        found = (store / "artifacts").rglob(f"{told.run_id}/**/*.*")
        files = [path.name for path in found if path.is_file()]
        once = [HISTORY, "config.yaml"]
        if status == "FINISHED":
            once += ["predictions.npz", "curves.png"]
            models = f"SELECT status FROM logged_models WHERE source_run_id = '{told.run_id}'"
            assert len(rows(store, models)) == 1
        assert [files.count(name) for name in once] == [1] * len(once), sorted(files)


def sync(outputs: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "src.sync", "--outputs", str(outputs), *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def outputs(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for left in mirrors(tmp_path):  # of a test that has failed
        os.kill(left, signal.SIGKILL)


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"))
    made.start()
    yield made
    made.kill()


# --- the process that trains --------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_that_finishes_imports_nothing_of_mlflow_which_has_everything(outputs: Path) -> None:
    training = Training(outputs)
    training.go_on()
    said = training.end()
    assert training.process.returncode == 0, said
    assert said.endswith("imported 0")
    training.check("FINISHED", outputs)


PLUGIN = """
import os, sys
from dataclasses import dataclass
from pathlib import Path
from src.nn.layers import ReLU

@dataclass(frozen=True)
class Noting(ReLU):
    def apply(self, x):
        with open(os.environ["NOTED"], "a") as file:
            file.write(f"{os.getpid()} {'mlflow' in sys.modules}\\n")
        return super().apply(x)
"""


@pytest.mark.slow
def test_neither_the_workers_of_a_sweep_nor_python_that_trains_import_mlflow(
    outputs: Path,
) -> None:
    (outputs / "noting.py").write_text(PLUGIN)
    (outputs / "conf" / "activation").mkdir(parents=True)
    (outputs / "conf" / "activation" / "noting.yaml").write_text("_target_: noting.Noting\n")
    noted = outputs / "noted"
    environment = {"NOTED": str(noted), "PYTHONPATH": str(outputs), OWNER: str(outputs)}
    place = f"hydra.searchpath=[file://{outputs}/conf]"
    given = (place, "plugins=[noting]", "activation=noting", "epochs=1")
    ended = run(outputs, "-m", *given, "lr=0.1,0.2", "hydra.launcher.together=1", **environment)
    assert ended.code == 0, ended.err
    workers = set(noted.read_text().splitlines())
    assert len(workers) > 1
    noted.unlink()
    script = (
        "import sys; from src.api import train; train(*sys.argv[1:], show=False)\n"
        "assert 'mlflow' not in sys.modules"
    )
    command = [sys.executable, "-c", script, f"outputs={outputs}", *given]
    subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, check=True)
    assert {line.split()[1] for line in {*workers, *noted.read_text().splitlines()}} == {"False"}
    wait_until(lambda: not mirrors(outputs))
    assert rows(outputs, "SELECT status FROM runs") == [("FINISHED",)] * 4  # and the summary


# --- which process dies -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("is_told", [False, True])
def test_the_mirror_of_a_run_that_is_killed_closes_it(outputs: Path, is_told: bool) -> None:
    training = Training(outputs)
    if is_told:  # otherwise it may still be importing MLflow
        training.wait_until_told()
    training.kill(training.process.pid)
    training.check("KILLED", outputs, epochs=3)
    assert rows(outputs, "SELECT value FROM tags WHERE key = 'failure'") == [("its process died",)]


@pytest.mark.slow
def test_a_mirror_that_is_killed_is_replaced_at_the_end_of_the_run(outputs: Path) -> None:
    training = Training(outputs)
    training.wait_until_told()
    os.kill(training.mirror, signal.SIGKILL)
    training.go_on()
    said = training.end()
    assert training.process.returncode == 0, said
    assert "src.sync" not in said
    training.check("FINISHED", outputs)


@pytest.mark.slow
def test_when_both_are_killed_sync_tells_what_is_left_and_closes_the_run(outputs: Path) -> None:
    training = Training(outputs)
    training.wait_until_told()
    refused = sync(outputs, str(training.folder))
    assert refused.returncode == 1
    assert "another process is telling MLflow of this run" in refused.stderr
    training.kill(training.mirror, training.process.pid)
    assert rows(outputs, "SELECT status FROM runs") == [("RUNNING",)]
    assert sync(outputs).returncode == 0
    training.check("KILLED", outputs, epochs=3)
    assert "MLflow has everything" in sync(outputs).stdout


@pytest.mark.slow
def test_when_both_are_killed_the_next_command_closes_the_run(outputs: Path) -> None:
    training = Training(outputs)
    training.wait_until_told()
    training.kill(training.mirror, training.process.pid)
    ended = run(outputs, "epochs=1", **{OWNER: str(outputs)})
    assert ended.code == 0, ended.err
    wait_until(lambda: not mirrors(outputs))
    found = rows(outputs, "SELECT status FROM runs ORDER BY start_time")
    assert found == [("KILLED",), ("FINISHED",)]
    assert Told.load(training.folder).is_complete


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_closes_the_run(outputs: Path, number: int) -> None:
    """Ctrl-C does not reach the mirror; a batch system's termination does."""
    training = Training(outputs)
    assert os.getsid(training.mirror) == training.mirror
    if number == signal.SIGTERM:
        training.wait_until_told()
        os.kill(training.mirror, number)
    os.killpg(training.process.pid, number)
    said = training.end()
    assert training.process.returncode == 128 + number, said
    training.check("KILLED", outputs, epochs=3)
    reason = "interrupted" if number == signal.SIGINT else "terminated"
    assert rows(outputs, "SELECT value FROM tags WHERE key = 'failure'") == [(reason,)]


# --- what hangs or goes away --------------------------------------------------------------------


@pytest.mark.slow
def test_a_mirror_that_is_stopped_holds_up_no_epoch_and_tells_the_rest_later(
    outputs: Path,
) -> None:
    training = Training(outputs, patience=1.0)
    training.wait_until_told()
    os.kill(training.mirror, signal.SIGSTOP)
    training.go_on()
    said = training.end()
    assert training.process.returncode == 0, said
    assert f"not told yet: {sync_command(training.folder, outputs)}" in said
    assert training.epochs == 6
    os.kill(training.mirror, signal.SIGCONT)
    training.check("FINISHED", outputs)


@pytest.mark.slow
def test_a_database_that_is_deleted_during_a_run_is_made_anew_with_all_of_it(
    outputs: Path,
) -> None:
    training = Training(outputs)
    training.wait_until_told()
    for path in outputs.glob("mlflow.db*"):
        path.unlink()
    training.go_on()
    said = training.end()
    assert training.process.returncode == 0, said
    training.check("FINISHED", outputs)


@pytest.mark.slow
def test_a_server_that_goes_away_and_comes_back_is_told_of_in_a_line_each(
    server: Server, outputs: Path
) -> None:
    training = Training(outputs, MLFLOW_TRACKING_URI=server.address)
    training.wait_until_told()
    server.kill()
    training.go_on()
    assert training.process.stdout
    before = next(line for line in training.process.stdout if "fails:" in line)
    wait_until(lambda: training.epochs == 6)  # training goes on
    server.start()
    said = before + training.end()
    assert training.process.returncode == 0, said
    assert (said.count("fails:"), said.count("is back")) == (1, 1), said
    training.check("FINISHED", server.folder)


@pytest.mark.slow
def test_what_a_server_that_stays_away_lacks_is_synced_later(server: Server, outputs: Path) -> None:
    training = Training(outputs, patience=1.0, MLFLOW_TRACKING_URI=server.address)
    training.wait_until_told()
    server.kill()
    training.go_on()
    said = training.end()
    assert training.process.returncode == 0, said
    assert (said.count("fails:"), said.count("is back")) == (1, 0), said
    assert f"not told yet: {sync_command(training.folder, outputs)}" in said
    wait_until(lambda: not mirrors(outputs))
    refused = sync(outputs, MLFLOW_TRACKING_URI=server.address)
    assert (refused.returncode, "can't be opened" in refused.stderr) == (1, True)
    server.start()
    assert sync(outputs, MLFLOW_TRACKING_URI=server.address).returncode == 0
    training.check("FINISHED", server.folder)

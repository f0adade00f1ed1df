"""Real runs for the tests: the command line as a person types it, and the store that it leaves."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from src.tracking.search import FoundRun

# No example may fail for being slow: these machines are shared. The same examples are drawn each
# time, so that a run of the tests says something of a change; `make fuzz` draws others.
settings.register_profile("default", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("default")

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ.pop("MLFLOW_TRACKING_URI", None)

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Ended:
    """A command that has ended, and the folder of its outputs."""

    outputs: Path
    code: int
    out: str
    err: str

    @property
    def store(self) -> str:
        return f"sqlite:///{self.outputs / 'mlflow.db'}"

    @property
    def folders(self) -> list[Path]:
        """The folders of its runs, a sweep's in the order of its jobs."""
        found = [*self.outputs.glob("runs/*"), *self.outputs.glob("sweeps/*/[0-9]*")]
        return sorted(
            found, key=lambda path: (path.parent, int(path.name) if path.name.isdigit() else 0)
        )

    def runs_in_mlflow(self) -> list["FoundRun"]:
        """Return the runs that MLflow has, without the summaries of sweeps, the oldest first."""
        from mlflow import MlflowClient

        from src.tracking.search import Search

        client = MlflowClient(self.store)
        experiment = client.get_experiment_by_name("scratchgrid")
        assert experiment
        return Search(client, experiment.experiment_id).runs()


def command(outputs: Path, *arguments: str) -> list[str]:
    """Return the command that runs the project with its outputs in a folder."""
    return [sys.executable, "-m", "src.run", f"outputs={outputs}", *arguments]


def run(outputs: Path, *arguments: str, **environment: str) -> Ended:
    """Run the command to its end, as a process of its own."""
    ended = subprocess.run(
        command(outputs, *arguments),
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return Ended(outputs, ended.returncode, ended.stdout, ended.stderr)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """One run with everything at its default but the number of epochs."""
    return run(tmp_path_factory.mktemp("finished"), "epochs=40", "model=relu2")


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A sweep of four runs of which one diverges."""
    arguments = ("-m", "model=relu2,sigmoid3", "lr=0.1,1e20", "epochs=3", "batching=mini")
    return run(tmp_path_factory.mktemp("swept"), *arguments)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests marked long, too")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return 3 for two cores: the tests wait for processes about as long as they compute."""
    from src.support.threads import available_cores

    return max(1, available_cores() * 3 // 2)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: make test-all ARGS=--long"))


@pytest.fixture(autouse=True)
def _closed_logs() -> Iterator[None]:
    """Close the log that Hydra leaves open: a warning about it would fail a later test."""
    yield
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.close()


@pytest.fixture
def invoke(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Ended]:
    """Call the entry point in this process, which saves the second that a new process costs.

    MLflow is left out unless a test asks for it or sets something of it: telling it costs a second
    process and four seconds.
    """

    def call(*arguments: str, tracked: bool = False) -> Ended:
        from src.run import main

        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        if not tracked and not any(argument.startswith("tracking.") for argument in arguments):
            arguments = (*arguments, "tracking.offline=true")
        monkeypatch.setattr(sys, "argv", ["scratchgrid", *arguments])
        monkeypatch.chdir(tmp_path)
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capfd.readouterr()
        return Ended(tmp_path / "outputs", code, captured.out, captured.err)

    return call

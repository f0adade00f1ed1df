"""Keeps runs in MLflow. The one module that speaks to it, and only once a run begins: importing it takes seconds."""

import contextlib
import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, unquote, urlencode, urlsplit

from src.errors import UserError
from src.experiment import Prepared
from src.nn.network import Parameters
from src.nn.weights import save_weights

if TYPE_CHECKING:
    from mlflow import MlflowClient

Status = Literal["FINISHED", "FAILED", "KILLED"]

_METRICS_A_CALL, _PARAMETERS_A_CALL = 1000, 100  # MLflow's limits
_PARAMETER_LENGTH, _TAG_LENGTH = 6000, 8000
DEFAULT_PORT = 5000

_FLUSH_SECONDS = 2.0  # how far the UI may lag behind the terminal


class Tracker(ABC):
    """Where one run's results go."""

    @abstractmethod
    def parameters(self, values: Mapping[str, Any]) -> None:
        """Keep what the run was configured with."""

    @abstractmethod
    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Keep measurements made at a step; they may be written later, together with others."""

    @abstractmethod
    def tags(self, values: Mapping[str, str]) -> None:
        """Keep facts to find the run by."""

    @abstractmethod
    def dataset(self, prepared: Prepared) -> None:
        """Keep what the run learned from: its name, its sizes and our digest of it."""

    @abstractmethod
    def files(self, paths: Sequence[Path], folder: str | None = None) -> None:
        """Keep files, under a folder if one is named."""

    @abstractmethod
    def model(self, prepared: Prepared, parameters: Parameters) -> None:
        """Keep the trained network in a form that can be loaded and served."""

    @property
    @abstractmethod
    def run_id(self) -> str:
        """The name under which the results are found."""

    @property
    @abstractmethod
    def experiment_id(self) -> str:
        """The name of the group of runs that this one belongs to."""


@dataclass(frozen=True)
class Tracking:
    """Which MLflow store keeps the runs, and in which of its experiments. Without ``uri``, a database under the outputs."""

    uri: str | None
    experiment: str

    def store(self, outputs: Path) -> str:
        """Return the URI of the store."""
        return self.uri or f"sqlite:///{outputs.absolute() / 'mlflow.db'}"

    @contextlib.contextmanager
    def start(self, outputs: Path, name: str) -> Iterator["MlflowTracker"]:
        """Open a run, and close it with the status that its end deserves.

        An exception makes it FAILED and its message the tag ``failure``; Ctrl-C or a termination makes it KILLED.
        """
        store = self.store(outputs)
        client, experiment_id = open_store(store, self.experiment, outputs)
        import mlflow

        mlflow.set_tracking_uri(store)
        run = mlflow.start_run(experiment_id=experiment_id, run_name=name)
        tracker = MlflowTracker(client, run.info.run_id, experiment_id)
        status: Status = "FINISHED"
        try:
            yield tracker
        except BaseException as error:
            status, reason = ending(error)
            tracker.tags({"failure": reason})
            raise
        finally:
            tracker.flush()
            with _quiet():
                mlflow.end_run(status)


class MlflowTracker(Tracker):
    """Writes one run to MLflow, its metrics in batches: one by one they would cost more than the training."""

    def __init__(self, client: "MlflowClient", run_id: str, experiment_id: str):
        self._client, self._run_id, self._experiment_id = client, run_id, experiment_id
        self._waiting: list[tuple[str, float, int, int]] = []
        self._flushed = time.monotonic()

    @property
    def run_id(self) -> str:
        return self._run_id

    @property
    def experiment_id(self) -> str:
        return self._experiment_id

    def parameters(self, values: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(key, _cut(str(value), _PARAMETER_LENGTH)) for key, value in values.items()]
        for start in range(0, len(params), _PARAMETERS_A_CALL):
            self._client.log_batch(self._run_id, params=params[start : start + _PARAMETERS_A_CALL])

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        self._waiting += [(key, value, now, step) for key, value in values.items()]
        if len(self._waiting) >= _METRICS_A_CALL or time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the metrics that wait."""
        from mlflow.entities import Metric

        while self._waiting:
            batch = [Metric(*fields) for fields in self._waiting[:_METRICS_A_CALL]]
            self._client.log_batch(self._run_id, metrics=batch)
            del self._waiting[:_METRICS_A_CALL]
        self._flushed = time.monotonic()

    def tags(self, values: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        self._client.log_batch(
            self._run_id, tags=[RunTag(key, _cut(value, _TAG_LENGTH)) for key, value in values.items()]
        )

    def dataset(self, prepared: Prepared) -> None:
        import mlflow
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.numpy_dataset import from_numpy

        dataset = prepared.dataset
        source = CodeDatasetSource(tags={"description": str(dataset)})
        train = dataset.train
        mlflow.log_input(
            from_numpy(train.images, source, train.labels, dataset.name, dataset.digest), context="training"
        )

    def files(self, paths: Sequence[Path], folder: str | None = None) -> None:
        for path in paths:
            self._client.log_artifact(self._run_id, str(path), folder)

    def model(self, prepared: Prepared, parameters: Parameters) -> None:
        import mlflow
        import numpy as np
        from mlflow.models import ModelSignature
        from mlflow.types import Schema, TensorSpec

        dataset, experiment = prepared.dataset, prepared.experiment
        signature = ModelSignature(
            inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, dataset.features))]),
            outputs=Schema(
                [
                    TensorSpec(np.dtype(np.int64), (-1,), "label"),
                    TensorSpec(np.dtype(experiment.dtype), (-1, experiment.model.outputs), "probabilities"),
                ]
            ),
        )
        source = Path(__file__).parent
        with tempfile.TemporaryDirectory() as scratch:
            settings, weights, code = Path(scratch, "network.json"), Path(scratch, "weights.npz"), Path(scratch, "src")
            described = {"model": asdict(experiment.model), "scale": dataset.scale, "dtype": experiment.dtype}
            settings.write_text(json.dumps(described, indent=2), encoding="utf-8")
            save_weights(weights, prepared.network, parameters)
            shutil.copytree(source / "nn", code / "nn", ignore=shutil.ignore_patterns("__pycache__"))
            for module in ("__init__.py", "errors.py", "archives.py"):  # all that src.nn imports beside itself
                shutil.copy(source / module, code)
            with _quiet():
                mlflow.pyfunc.log_model(
                    name="model",
                    python_model=str(source / "serving.py"),
                    artifacts={"network": str(settings), "weights": str(weights)},
                    code_paths=[str(code)],
                    pip_requirements=[f"mlflow=={mlflow.__version__}", f"numpy=={np.__version__}"],
                    signature=signature,
                )


def ending(error: BaseException) -> tuple[Status, str]:
    """Return the status that a run deserves which an exception ended, and the reason in words."""
    if isinstance(error, KeyboardInterrupt):
        return "KILLED", "interrupted"
    if isinstance(error, SystemExit):
        return "KILLED", "terminated"
    return "FAILED", str(error) or type(error).__name__


def is_server(store: str) -> bool:
    """Tell whether a store is an MLflow server, which brings its own UI."""
    return urlsplit(store).scheme in ("http", "https")


def ui_address(store: str, port: int = DEFAULT_PORT) -> str:
    """Return where the UI of a store answers: the server itself, or the one that ``make ui`` starts. Never a password."""
    parts = urlsplit(store)
    if is_server(store):
        at = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{parts.hostname}{at}{parts.path.rstrip('/')}"
    return f"http://127.0.0.1:{port}"


# Without the workflow type the UI would open in its generative-AI view, which hides training runs.
_TRAINING = {"workflowType": "machine_learning"}


def experiment_link(store: str, experiment_id: str, port: int = DEFAULT_PORT) -> str:
    """Return where a browser lists an experiment's runs beside their curves."""
    return _runs_link(ui_address(store, port), experiment_id, {"compareRunsMode": "CHART"})


def run_link(store: str, experiment_id: str, run_id: str) -> str:
    """Return where a browser shows a run."""
    return f"{ui_address(store)}/#/experiments/{experiment_id}/runs/{run_id}?{urlencode(_TRAINING)}"


def sweep_link(store: str, experiment_id: str, sweep_id: str, metric: str) -> str:
    """Return where a browser compares the runs of a sweep: their curves side by side, the best run first."""
    query = {
        "compareRunsMode": "CHART",
        "searchFilter": f"tags.sweep_id = '{sweep_id}'",
        "orderByKey": f"metrics.`{metric}`",
        "orderByAsc": str(metric.endswith("loss")).lower(),
    }
    return _runs_link(ui_address(store), experiment_id, query)


def _runs_link(address: str, experiment_id: str, query: Mapping[str, str]) -> str:
    return f"{address}/#/experiments/{experiment_id}/runs?{urlencode({**_TRAINING, **query}, quote_via=quote)}"


def server_command(store: str, port: int) -> tuple[list[str], dict[str, str]]:
    """Return the command that serves a store's UI on this machine alone, and its environment.

    With MLflow's defaults the server would start ten processes and take 2.4 GB; so it starts two and takes 0.5.
    """
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return [*command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"], environment


def git_tags() -> dict[str, str]:
    """Return the commit that this code is at and whether it was changed since, or nothing where there is no git."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"git.commit": git("rev-parse", "HEAD"), "git.dirty": str(bool(git("status", "--porcelain"))).lower()}
    except (OSError, subprocess.CalledProcessError):
        return {}


def open_store(store: str, experiment: str, outputs: Path) -> tuple["MlflowClient", str]:
    """Return a client of the store and the id of the experiment in it, both made if they are new.

    Raises UserError where the store can't be had.
    """
    # Set before the import, which reads them: no telemetry; and by default a dead server costs four minutes a call.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        with _firstopen_store(store), _quiet():
            client = MlflowClient(store)
            found = client.get_experiment_by_name(experiment)
            if found is None:
                artifacts = (outputs.absolute() / "artifacts").as_uri() if store.startswith("sqlite:") else None
                return client, client.create_experiment(experiment, artifact_location=artifacts)
            if found.lifecycle_stage == "deleted":
                remedy = "restore it, or choose another with tracking.experiment=NAME"
                raise UserError(f"MLflow's experiment {experiment!r} is deleted: {remedy}")
            return client, found.experiment_id
    except (MlflowException, OSError) as error:
        reason = textwrap.shorten(_without_password(str(error)).splitlines()[0], 200, placeholder=" …")
        raise UserError(f"the MLflow store {_without_password(store)} can't be opened: {reason}") from None


@contextlib.contextmanager
def _firstopen_store(store: str) -> Iterator[None]:
    """Let one process at a time open a database file: two that create its tables at once would both fail."""
    if not store.startswith("sqlite:///"):
        yield
        return
    from filelock import FileLock

    database = Path(unquote(store.removeprefix("sqlite:///").split("?")[0]))
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(database.with_name(f"{database.name}.lock")):
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep MLflow's advice off the terminal; it sets warning filters of its own, so warnings are caught, not ignored."""
    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(record=True), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _without_password(text: str) -> str:
    """Blank the password of every URL in a text."""
    return re.sub(r"(://[^/@:\s]*):[^/@\s]*@", r"\1:***@", text)


def _cut(text: str, length: int) -> str:
    """Cut where MLflow would, but visibly."""
    return text if len(text) <= length else text[: length - 1] + "…"

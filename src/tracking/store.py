"""Opens MLflow's store, and serves it: what MLflow does badly by default when it starts is put right here."""

import contextlib
import functools
import io
import logging
import os
import re
import sys
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from src.errors import UserError
from src.tracking.view import sweep_filter

if TYPE_CHECKING:
    from mlflow import MlflowClient


@functools.lru_cache
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

    try:
        with _first_open(store), quiet():
            client = MlflowClient(store)
            found = client.get_experiment_by_name(experiment)
            if found is None:
                artifacts = (outputs.absolute() / "artifacts").as_uri() if store.startswith("sqlite:") else None
                return client, client.create_experiment(experiment, artifact_location=artifacts)
            if found.lifecycle_stage == "deleted":
                remedy = "restore it, or choose another with tracking.experiment=NAME"
                raise UserError(f"MLflow's experiment {experiment!r} is deleted: {remedy}")
            return client, found.experiment_id
    except UserError:
        raise
    except Exception as error:  # of MLflow, of SQLAlchemy, of a database's driver that is not installed
        reason = textwrap.shorten(
            _without_password(str(error) or type(error).__name__).splitlines()[0], 200, placeholder=" …"
        )
        raise UserError(f"the MLflow store {_without_password(store)} can't be opened: {reason}") from None


@contextlib.contextmanager
def _first_open(store: str) -> Iterator[None]:
    """Let one process at a time open a database file: two that create its tables at once would both fail."""
    if not store.startswith("sqlite:///"):
        yield
        return
    from filelock import FileLock

    database = Path(unquote(store.removeprefix("sqlite:///").split("?")[0]))
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(database.with_name(f"{database.name}.lock")):
        yield


def close_abandoned(client: "MlflowClient", experiment_id: str, sweep_id: str, status: str, reason: str) -> set[Path]:
    """Give its status to each run of a sweep that is still said to run, its process being gone; return their folders."""
    found = client.search_runs([experiment_id], f"{sweep_filter(sweep_id)} and attributes.status = 'RUNNING'")
    for run in found:
        client.set_tag(run.info.run_id, "failure", reason)
        client.set_terminated(run.info.run_id, status)
    return {Path(run.data.tags["output_dir"]) for run in found}


@contextlib.contextmanager
def tracking_uri(store: str) -> Iterator[None]:
    """Point MLflow at a store; it tells child processes by a variable in the environment, which is put back."""
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(store)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("MLFLOW_TRACKING_URI", None)
        else:
            os.environ["MLFLOW_TRACKING_URI"] = before


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep MLflow's advice off the terminal; it sets warning filters of its own, so warnings are caught, not ignored."""
    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(record=True), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("always")  # recorded, and so neither shown nor raised
            yield
    finally:
        logger.setLevel(level)


def server_command(store: str, port: int) -> tuple[list[str], dict[str, str]]:
    """Return the command that serves a store's UI on this machine alone, and its environment.

    With MLflow's defaults the server would start ten processes and take 2.4 GB; so it starts two and takes 0.5.
    """
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return [*command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"], environment


def _without_password(text: str) -> str:
    """Blank the password of every URL in a text."""
    return re.sub(r"(://[^/@:\s]*):[^/@\s]*@", r"\1:***@", text)

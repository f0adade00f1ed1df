"""Opens MLflow's store, and serves it: what MLflow does badly by default when it starts is put right here."""

import contextlib
import functools
import logging
import os
import re
import sqlite3
import sys
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from src.support.errors import UserError
from src.tracking.view import sweep_filter

if TYPE_CHECKING:
    from mlflow import MlflowClient


def warm() -> None:
    """Import what the first open and the first run of a process would wait for."""
    _settle()
    with quiet():
        import mlflow.data.code_dataset_source
        import mlflow.data.numpy_dataset
        import mlflow.pyfunc
        import mlflow.store.artifact.local_artifact_repo
        import mlflow.store.tracking.sqlalchemy_store
        import mlflow.tracking.context.registry  # noqa: F401


def _settle() -> None:
    """Set what MLflow reads when it is imported: no telemetry; and by default a dead server costs four minutes a call."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")


@functools.lru_cache
def open_store(store: str, experiment: str, outputs: Path) -> tuple["MlflowClient", str]:
    """Return a client of the store and the id of the experiment in it, both made if they are new.

    Raises UserError where the store can't be had.
    """
    _settle()
    from mlflow import MlflowClient

    try:
        with _first_open(store), quiet():
            _create(store)
            client = MlflowClient(store)
            found = client.get_experiment_by_name(experiment)
            if found is None:
                artifacts = (
                    (outputs.absolute() / "artifacts").as_uri()
                    if store.startswith("sqlite:")
                    else None
                )
                return client, client.create_experiment(experiment, artifact_location=artifacts)
            if found.lifecycle_stage == "deleted":
                raise _deleted(experiment)
            return client, found.experiment_id
    except UserError:
        raise
    except (
        Exception
    ) as error:  # of MLflow, of SQLAlchemy, of a database's driver that is not installed
        raise _closed(store, error) from None


def database_file(store: str) -> Path | None:
    """Return the file of a store that is a local database."""
    return (
        Path(unquote(store.removeprefix("sqlite:///").split("?")[0]))
        if store.startswith("sqlite:///")
        else None
    )


def check_database(store: str, experiment: str) -> None:
    """Find out, without MLflow and so at once, whether a store in a local file is fit to be opened.

    Raises UserError where the file is no database, or MLflow's experiment in it is deleted.
    """
    database = database_file(store)
    assert database is not None
    if not database.exists():
        return
    try:
        with contextlib.closing(sqlite3.connect(database)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            asked = "SELECT 1 FROM experiments WHERE name = ? AND lifecycle_stage = 'deleted'"
            if "experiments" in tables and connection.execute(asked, [experiment]).fetchone():
                raise _deleted(experiment)
    except sqlite3.Error as error:
        raise _closed(store, error) from None


def _deleted(experiment: str) -> UserError:
    remedy = "restore it, or choose another with tracking.experiment=NAME"
    return UserError(f"MLflow's experiment {experiment!r} is deleted: {remedy}")


def _closed(store: str, error: Exception) -> UserError:
    said = _without_password(str(error) or type(error).__name__).splitlines()[0]
    reason = textwrap.shorten(said, 200, placeholder=" …")
    return UserError(f"the MLflow store {_without_password(store)} can't be opened: {reason}")


@contextlib.contextmanager
def _first_open(store: str) -> Iterator[None]:
    """Let one process at a time open a database file: two that create its tables at once would both fail."""
    database = database_file(store)
    if database is None:
        yield
        return
    from filelock import FileLock

    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(database.with_name(f"{database.name}.lock")):
        yield


def _create(store: str) -> None:
    """Make a database file that is not there yet under another name first: whatever dies, none is left half-made."""
    database = database_file(store)
    if database is None or database.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    part = database.with_name(f"{database.name}.new")
    part.unlink(missing_ok=True)
    made = SqlAlchemyStore(f"sqlite:///{part}", str(database.parent / "artifacts"))  # type: ignore[no-untyped-call]
    made.engine.dispose()
    part.replace(database)


def close_abandoned(
    client: "MlflowClient", experiment_id: str, sweep_id: str, status: str, reason: str
) -> set[Path]:
    """Give its status to each run of a sweep that is still said to run, its process being gone; return their folders."""
    found = client.search_runs(
        [experiment_id], f"{sweep_filter(sweep_id)} and attributes.status = 'RUNNING'"
    )
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
    logger.setLevel(logging.CRITICAL)  # what it has to say of errors, their exceptions say
    try:
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")  # recorded, and so neither shown nor raised
            yield
    finally:
        logger.setLevel(level)


def server_command(store: str, port: int) -> tuple[list[str], dict[str, str]]:
    """Return the command that serves a store's UI on this machine alone, and its environment.

    With MLflow's defaults the server would start ten processes and take 2.4 GB; so it starts two and takes 0.5.
    """
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store]
    environment = {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    return [*command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"], environment


def _without_password(text: str) -> str:
    """Blank the password of every URL in a text."""
    return re.sub(r"(://[^/@:\s]*):[^/@\s]*@", r"\1:***@", text)

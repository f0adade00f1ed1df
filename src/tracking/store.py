"""Opens MLflow's store and serves it, with safer settings than MLflow's defaults."""

import contextlib
import logging
import os
import shutil
import sqlite3
import ssl
import sys
import textwrap
import threading
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from src.runs.tracking import Tracking, database_uri
from src.support.errors import UserError
from src.support.masking import mask

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)  # shown on the terminal too


def preload() -> None:
    """Import what the first open of a process, and its first run, would wait for."""
    from src.tracking.mlflow_internals import preload as preload_mlflow

    with quiet():
        preload_mlflow()


def import_mlflow() -> None:
    """Import MLflow with the settings that it reads at that moment.

    Telemetry is off. A dead server costs seconds per call: with MLflow's defaults, four minutes.
    MLflow repeats no call: a creation that is repeated makes a second run.
    The link that MLflow prints at the end of a run would show the password of the URI.
    """
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # it draws in our lines
    with quiet():
        import mlflow.tracking  # noqa: F401
    # What it logs of a database's errors, with a traceback, it raises, too.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class _Opened:
    """An open store: ``file`` identifies the database file, or is None for another store."""

    client: "MlflowClient"
    experiment_id: str
    file: tuple[int, int] | None


# Where MLflow's tables hold paths of files.
_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
)
_LOCK_SECONDS = 30.0  # for another process that opens the same database
_BUSY_SECONDS = 5.0  # for a database that another process has locked
_REACH_SECONDS = 4.0  # for the first answer of a server
_LEAST_SPACE = 2**20  # bytes on the disk of a database


_opened: dict[tuple[str, str], _Opened] = {}


def open_store(store: str, experiment: str, outputs: Path) -> tuple["MlflowClient", str]:
    """Return a client of the store and the id of the experiment in it; create what is missing.

    A store stays open for the whole process. If its database file was deleted or replaced, it is
    opened anew. Raises UserError if the store cannot be opened.
    """
    known = _opened.get((store, experiment))
    if known is None or known.file != _file_identity(store):
        known = _opened[store, experiment] = _open(store, experiment, outputs)
    return known.client, known.experiment_id


def _file_identity(store: str) -> tuple[int, int] | None:
    """Return what tells a database file from another one that has taken its place."""
    database = database_file(store)
    if database is None or not database.exists():
        return None
    status = database.stat()
    return status.st_dev, status.st_ino


def _open(store: str, experiment: str, outputs: Path) -> _Opened:
    import_mlflow()
    from mlflow import MlflowClient

    from src.tracking.mlflow_internals import disconnect

    try:
        with _first_open(store), quiet():
            _create(store)
            client = MlflowClient(store)
            if database_file(store):
                disconnect(client)
            experiment_id = _experiment_id(client, experiment, _artifacts(store, outputs))
            return _Opened(client, experiment_id, _file_identity(store))
    except UserError:
        raise
    except Exception as error:  # of MLflow, of SQLAlchemy, of a missing database driver
        raise _closed(store, error) from None


def _artifacts(store: str, outputs: Path) -> str | None:
    """Return where a new experiment keeps its files; a server decides that itself."""
    return (outputs.absolute() / "artifacts").as_uri() if store.startswith("sqlite:") else None


def _experiment_id(client: "MlflowClient", name: str, artifacts: str | None) -> str:
    from mlflow import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name, artifact_location=artifacts)
        except MlflowException:
            found = client.get_experiment_by_name(name)
            if found is None:  # not created by another process at the same moment
                raise
    if found.lifecycle_stage == "deleted":
        raise _deleted(name)
    experiment_id: str = found.experiment_id
    return experiment_id


def database_file(store: str) -> Path | None:
    """Return the file of a store that is a local database, or None for another store."""
    return (
        Path(unquote(store.removeprefix("sqlite:///").split("?")[0]))
        if store.startswith("sqlite:///")
        else None
    )


def open_tracking(tracking: Tracking, outputs: Path) -> tuple["MlflowClient", str]:
    """Return a client of the store that settings describe, and the experiment's id.

    Raises UserError if the store cannot be opened, or is not used.
    """
    if tracking.offline:
        raise UserError("tracking.offline=true: no MLflow store is used")
    return open_store(tracking.store(outputs), tracking.experiment, outputs)


def check_store(tracking: Tracking, outputs: Path) -> None:
    """Check without MLflow, which takes seconds to import, that a store can be opened.

    Raises UserError if it can't. A store that is neither a local file nor a server is not checked.
    """
    store = tracking.store(outputs)
    if database := database_file(store):
        check_database(store, tracking.experiment)
        if tracking.uri is None and database.exists():
            _relocate(database, tracking.experiment)
    else:
        check_server(store)


def check_database(store: str, experiment: str) -> None:
    """Check a store in a local file.

    Raises UserError if the file is not a database, or if the experiment in it is deleted.
    """
    database = database_file(store)
    assert database is not None
    _require_space(store, database)
    if not database.exists():
        return
    if not database.is_file():
        raise _closed(store, OSError("it is not a regular file"))
    try:
        address = f"{database.absolute().as_uri()}?mode=rw"
        with contextlib.closing(
            sqlite3.connect(address, timeout=_BUSY_SECONDS, uri=True)
        ) as connection:
            _check_tables(connection, store, experiment)
            connection.execute("BEGIN IMMEDIATE")  # can it be written?
            connection.rollback()
    except sqlite3.Error as error:
        if "locked" not in str(error):  # a lock passes, or the run goes on without the store
            raise _closed(store, error) from None


def _check_tables(connection: sqlite3.Connection, store: str, experiment: str) -> None:
    """Raise UserError if MLflow can't use the tables, or if the experiment is deleted."""
    from src.tracking.schema import revisions

    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if "experiments" not in tables:
        return
    asked = "SELECT 1 FROM experiments WHERE name = ? AND lifecycle_stage = 'deleted'"
    if connection.execute(asked, [experiment]).fetchone():
        raise _deleted(experiment)
    version = None
    if "alembic_version" in tables:
        version = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    known = revisions()
    if version is None or (known.all and version[0] not in known.all):
        raise UserError(
            f"the MLflow store {mask(store)} has a schema that this MLflow does not know: it "
            "belongs to a newer MLflow; update MLflow, or choose another store with "
            "outputs=FOLDER or tracking.uri=URI"
        )
    if known.newest and version[0] != known.newest:
        raise UserError(
            f"the MLflow store {mask(store)} has the schema of an older MLflow: update it with "
            f"mlflow db upgrade {mask(store)}"
        )


def _relocate(database: Path, experiment: str) -> None:
    """Lead MLflow to the files beside a database that was moved: it stores absolute paths."""
    here = (database.absolute().parent / "artifacts").as_uri()
    address = f"{database.absolute().as_uri()}?mode=rw"
    asked = "SELECT artifact_location FROM experiments WHERE name = ?"
    with (
        contextlib.suppress(sqlite3.Error),  # it is new, or locked: MLflow will tell
        contextlib.closing(sqlite3.connect(address, timeout=_BUSY_SECONDS, uri=True)) as connection,
        connection,
    ):
        (before,) = connection.execute(asked, [experiment]).fetchone() or (here,)
        if before == here or not before.startswith("file:") or not before.endswith("/artifacts"):
            return
        for table, column in _LOCATIONS:
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608 # ours
                f"WHERE {column} = ? OR {column} LIKE ? || '/%'",
                [here, len(before) + 1, before, before],
            )
        log.warning(
            "%s was moved here: MLflow now looks for its files beside it, not in %s",
            database,
            unquote(urlsplit(before).path),
        )


def _require_space(store: str, database: Path) -> None:
    """Raise UserError if the disk of a database is full."""
    folder = next(path for path in database.absolute().parents if path.exists())
    if shutil.disk_usage(folder).free < _LEAST_SPACE:
        raise UserError(
            f"the MLflow store {mask(store)} can't be written: the disk is full; make room, or "
            "choose another disk with outputs=FOLDER"
        )


def check_server(store: str) -> None:
    """Check that a server answers, whatever it answers, before MLflow waits for it.

    Raises UserError within seconds if nothing answers.
    """
    parts = urlsplit(store)
    if parts.scheme not in ("http", "https"):
        return
    host = parts.netloc.rpartition("@")[2]
    address = urlunsplit((parts.scheme, host, parts.path, "", ""))
    try:
        urllib.request.urlopen(address, timeout=_REACH_SECONDS).close()  # noqa: S310 # http(s)
    except urllib.error.HTTPError:
        return  # MLflow will tell what is wrong
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError):
            return
        said = "it does not answer" if isinstance(reason, TimeoutError) else reason
        raise UserError(
            f"the MLflow store {mask(store)} can't be opened: {said}; start the server, or train "
            "without it: tracking.offline=true"
        ) from None


def _deleted(experiment: str) -> UserError:
    remedy = "restore it, or choose another with tracking.experiment=NAME"
    return UserError(f"MLflow's experiment {experiment!r} is deleted: {remedy}")


def _closed(store: str, error: Exception) -> UserError:
    said = mask(str(error) or type(error).__name__).splitlines()[0]
    reason = textwrap.shorten(said, 200, placeholder=" …")
    return UserError(f"the MLflow store {mask(store)} can't be opened: {reason}")


# Alembic, which makes MLflow's tables, keeps the database that it works on in global variables.
_ONE_AT_A_TIME = threading.Lock()


@contextlib.contextmanager
def _first_open(store: str) -> Iterator[None]:
    """Let one process at a time open a database file: two that create its tables both fail."""
    database = database_file(store)
    if database is None:
        yield
        return
    from filelock import FileLock, Timeout

    database.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(database.with_name(f"{database.name}.lock"))
    try:
        lock.acquire(timeout=_LOCK_SECONDS)
    except Timeout:
        raise UserError(
            f"the MLflow store {mask(store)} can't be opened: another process has held "
            f"{lock.lock_file} for {_LOCK_SECONDS:.0f} s; end that process"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _create(store: str) -> None:
    """Create a database file if there is none yet.

    It is created under another name and then renamed, so a process that dies leaves no half of it.
    """
    from src.tracking.mlflow_internals import create_database

    database = database_file(store)
    if database is None or database.exists():
        return
    part = database.with_name(f"{database.name}.new")
    part.unlink(missing_ok=True)
    artifacts = (database.absolute().parent / "artifacts").as_uri()  # MLflow quotes no paths in SQL
    with _ONE_AT_A_TIME:
        create_database(database_uri(part), artifacts)
    part.replace(database)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep MLflow's warnings and log lines off the terminal.

    MLflow sets warning filters of its own, so warnings are recorded rather than ignored.
    """
    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # its exceptions say what its log says of errors
    try:
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")  # recorded: neither shown nor raised
            yield
    finally:
        logger.setLevel(level)


def server_command(store: str, port: int) -> tuple[list[str], dict[str, str]]:
    """Return the command that serves a store's UI on this machine only, and its environment.

    So the server takes two processes and 0.5 GB; with MLflow's defaults, ten and 2.4 GB. It does
    not accept files: runs on this machine write theirs into the artifact folder themselves.
    """
    command = [sys.executable, "-m", "mlflow", "server", "--no-serve-artifacts"]
    if database := database_file(store):
        command += ["--default-artifact-root", (database.absolute().parent / "artifacts").as_uri()]
    environment = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": store,  # other users see arguments, not the environment
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    return [*command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"], environment

"""Tells MLflow, after the end of a run, what it could not be told during the run."""

import contextlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from src.support.errors import UserError
from src.support.sealed import read_sealed
from src.tracking.journal import (
    HISTORY,
    JOURNAL,
    RUN_LOCK,
    Entry,
    Journal,
    Status,
    is_running,
    note_ids,
    read_points,
)
from src.tracking.masking import MASK, mask
from src.tracking.outage import one_line
from src.tracking.store import check_database, check_server, database_file, database_uri, open_store
from src.tracking.upload import Upload
from src.tracking.writer import writer

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

DIED = "its process died"
Died = tuple[Status, str]  # the status of a run whose process died, and the reason
_LOCK = "tracking.lock"
_RESULT = "result.json"


@dataclass(frozen=True)
class Synced:
    """A run that MLflow now has whole, as far as it takes it: ``refused`` says what it does not."""

    store: str
    experiment_id: str
    run_id: str
    refused: str


def sync(folder: Path, died: Died = ("KILLED", DIED)) -> Synced | None:
    """Tell MLflow what it does not know of the run in a folder; None if it knows everything.

    A run whose process died is closed as ``died`` says. Raises UserError if the run still goes on,
    if the store is away, or if another process does the same at this moment.
    """
    from filelock import FileLock, Timeout

    if not (folder / JOURNAL).exists():
        return None
    try:
        with FileLock(folder / _LOCK, timeout=0):
            return _sync(folder, died)
    except Timeout:
        raise UserError(f"{folder}: another process is telling MLflow of this run") from None


def _sync(folder: Path, died: Died) -> Synced | None:
    journal = Journal.load(folder)
    if journal is None:
        return None
    entry = journal.entry
    if entry.status is None:
        if is_running(folder, entry):
            host = entry.owner.get("host")
            raise UserError(f"{folder}: the run still goes on, on the computer {host}")
        close_dead(journal, died)
    store = store_of(entry)
    if database_file(store):
        check_database(store, entry.experiment)
    else:
        check_server(store)
    client, experiment_id = open_store(store, entry.experiment, Path(entry.outputs))
    return _written(journal, client, experiment_id, store)


def _written(journal: Journal, client: "MlflowClient", experiment_id: str, store: str) -> Synced:
    upload = Upload(journal)
    try:
        upload.advance(client, experiment_id, lambda: None)
    except Exception as error:
        raise UserError(
            f"{journal.folder}: the MLflow store {mask(store)} fails: {one_line(error)}; "
            "what it has not been told is kept: try again later"
        ) from None
    refused = upload.lacking
    entry = journal.entry
    if entry.run_id is None:
        raise UserError(f"{journal.folder}: MLflow refuses the run: {refused}")
    note_ids(journal.folder, {"experiment_id": entry.experiment_id, "run_id": entry.run_id})
    return Synced(store, str(entry.experiment_id), entry.run_id, refused)


def sync_all(folders: Sequence[Path], died: Died = ("KILLED", DIED)) -> set[Path]:
    """Tell MLflow what it does not know of these runs, which have ended in one way or another.

    Returns the folders of those that it was told of. An error ends it: the rest stays as it is, for
    the next command or src.sync.
    """
    told = set()
    for folder in folders:
        try:
            if sync(folder, died):
                told.add(folder.absolute())
        except UserError as error:
            log.info("MLflow can't be told of a run: %s", error)
            break
    return told


def left_open(outputs: Path) -> list[Path]:
    """Return the folders of runs whose process died before it could close them.

    One that has ended is among them if MLflow knows it: it may be waiting for its status. Those of
    a sweep that is running are left out: it goes on with them itself.
    """
    found = []
    single = outputs.glob(f"runs/*/{JOURNAL}")
    idle = (path for path in outputs.glob("sweeps/*") if not _is_locked(path))
    of_sweeps = (path for sweep in idle for path in sweep.glob(f"*/{JOURNAL}"))
    for path in sorted([*single, *of_sweeps]):
        with contextlib.suppress(UserError):  # a damaged journal is told by src.sync
            journal = Journal.load(path.parent)
            ended = journal is None or (journal.entry.status and not journal.entry.run_id)
            if journal and not ended and not is_running(path.parent, journal.entry):
                found.append(path.parent)
    return found


def _is_locked(folder: Path) -> bool:
    """Return whether a process owns a folder."""
    from filelock import FileLock, Timeout

    if not (folder / RUN_LOCK).exists():
        return False
    try:
        with FileLock(folder / RUN_LOCK, timeout=0):
            return False
    except Timeout:
        return True


def close_left_open(folders: list[Path]) -> None:
    """Close the first of these runs in MLflow, and the others after what the writer has to do.

    An error ends it: the runs stay as they are, for the next command or src.sync.
    """
    if not folders:
        return
    try:
        synced = sync(folders[0])
    except UserError as error:
        log.info("a run left open can't be closed: %s", error)
        return
    if synced:
        log.info("closed run %s in MLflow: %s", synced.run_id, DIED)
    writer().submit(lambda: close_left_open(folders[1:]))


def close_dead(journal: Journal, died: Died = ("KILLED", DIED)) -> None:
    """Note in the journal how a run ended whose process died.

    What its result says counts, if it had written that; else it ended with its last epoch, as
    ``died`` says.
    """
    assert journal.folder is not None
    times = [time for _, _, time, _ in read_points(journal.folder / HISTORY, journal.entry.start)]
    status, reason = _result(journal.folder) or died
    with journal.change() as entry:
        if status == "PRUNED":  # MLflow has no word for it
            entry.status, entry.pruned = "FINISHED", reason
        else:
            entry.status, entry.failure = status, reason
        entry.end = max([entry.start, *times])


def _result(folder: Path) -> tuple[Status | Literal["PRUNED"], str | None] | None:
    """Return the status and the reason in a run's result, or None without a sound one."""
    try:
        known = read_sealed(folder / _RESULT)
        status, failure = known["status"], known["failure"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return (status, failure) if status in (*get_args(Status), "PRUNED") else None


def store_of(entry: Entry) -> str:
    """Return the URI of the store that a run belongs to.

    ``MLFLOW_TRACKING_URI`` comes first; a run that a store knows already stays there. Raises
    UserError if the run belongs to another store, or the URI's password is missing.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI") or None
    own = entry.store or mask(database_uri(Path(entry.outputs) / "mlflow.db"))
    if given:
        if entry.run_id is not None and mask(given) != own:
            raise UserError(
                f"MLFLOW_TRACKING_URI={mask(given)}: the run {entry.run_id} is kept in {own}: "
                "set the variable to that store, or unset it"
            )
        return given
    if MASK in own:
        raise UserError(
            f"the run {entry.name} is kept in {own}: set MLFLOW_TRACKING_URI to it, with the secret"
        )
    return own

"""What MLflow must be told about a run, on disk before MLflow is told: ``tracking.json``."""

import contextlib
import csv
import os
import secrets
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from src.support.errors import UserError, in_one_line
from src.support.files import write_whole
from src.support.input_files import read_text
from src.support.sealed import read_sealed, sealed
from src.support.serialization import check_types

JOURNAL = "tracking.json"
HISTORY = "history.csv"
RUN_LOCK = "run.lock"
_WITH_IDS = ("run.json", "result.json")  # hold MLflow's ids of the run

Status = Literal["FINISHED", "FAILED", "KILLED"]
Point = tuple[str, float, int, int]  # key, value, unix time in milliseconds, step


@dataclass
class Entry:
    """All that MLflow holds of a run, but for the curves: those are in ``history.csv``."""

    experiment: str
    store: str | None  # the URI without secrets; None for the database in ``outputs``
    outputs: str
    name: str
    start: int  # unix time in milliseconds, as all times here
    tags: dict[str, str]
    key: str = field(default_factory=lambda: secrets.token_hex(8))  # finds the run in MLflow
    owner: dict[str, Any] = field(default_factory=lambda: _this_process())
    run_id: str | None = None
    experiment_id: str | None = None
    parameters: dict[str, str] = field(default_factory=dict)
    sweep: dict[str, str] = field(default_factory=dict)  # tags of the experiment
    dataset: dict[str, Any] | None = None
    points: list[Point] = field(default_factory=list)  # measured outside of the epochs
    files: list[tuple[str, str | None]] = field(default_factory=list)  # and artifact folders
    model: dict[str, Any] | None = None
    model_id: str | None = None
    status: Status | None = None  # None: the run has not ended
    failure: str | None = None
    pruned: str | None = None  # why the run left its sweep early
    end: int | None = None
    written: list[str] = field(default_factory=list)  # the parts that MLflow has


class Journal:
    """The entry of a run, and its file in the run's folder; both change together.

    Without a folder nothing is written to disk. The file is removed when MLflow has everything.
    """

    def __init__(self, entry: Entry, folder: Path | None) -> None:
        self.entry, self.folder = entry, folder
        self._lock = threading.RLock()

    @staticmethod
    def load(folder: Path) -> "Journal | None":
        """Return the journal in a run's folder, or None if MLflow has everything.

        Raises UserError if the file is damaged.
        """
        path = folder / JOURNAL
        try:
            stored = read_sealed(path)
            known = {item.name for item in fields(Entry)}
            entry = Entry(**{key: value for key, value in stored.items() if key in known})
            check_types(entry)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, AttributeError, OSError) as error:
            reason = in_one_line(error)
            raise UserError(
                f"{path}: can't be read: {reason}; MLflow can't be told of it"
            ) from None
        return Journal(entry, folder)

    @contextlib.contextmanager
    def change(self) -> Iterator[Entry]:
        """Yield the entry for changes, and write the file afterwards."""
        with self._lock:
            yield self.entry
            if self.folder is not None:
                part = self.folder / f"{JOURNAL}.new"
                part.write_bytes(sealed(asdict(self.entry)))
                part.replace(self.folder / JOURNAL)

    def mark(self, part: str) -> None:
        """Note that MLflow has a part."""
        with self.change() as entry:
            entry.written.append(part)

    def owes(self, part: str) -> bool:
        """Return whether MLflow does not have a part yet."""
        with self._lock:
            return part not in self.entry.written

    def remove(self) -> None:
        """Remove the file: MLflow has everything."""
        if self.folder is not None:
            (self.folder / JOURNAL).unlink(missing_ok=True)

    def path(self, file: str) -> Path:
        """Return the path of one of the entry's files."""
        return Path(file) if self.folder is None else self.folder / file

    def rows(self) -> list[Point]:
        """Return the points of all curves in the run's ``history.csv``."""
        return [] if self.folder is None else read_points(self.folder / HISTORY, self.entry.start)


def read_points(path: Path, start: int) -> list[Point]:
    """Return the points in a ``history.csv``; what was not measured is left out.

    A row without a time is placed after ``start`` by its seconds. A torn last line is ignored.
    """
    try:
        text = read_text(path)
    except FileNotFoundError:
        return []
    whole, _, _ = text.rpartition("\n")
    points: list[Point] = []
    for row in csv.DictReader(whole.splitlines()):
        measured = {key: float(value) for key, value in row.items() if value}
        step = int(measured.pop("epoch"))
        time = measured.pop("time", None)
        at = start + int(1000 * measured.get("seconds", 0.0)) if time is None else int(time)
        points += [(key, value, at, step) for key, value in measured.items()]
    return points


def pending(folders: Sequence[Path]) -> list[Path]:
    """Return the folders of runs at or below these folders that MLflow does not fully have."""
    found: dict[Path, None] = {}
    for folder in folders:
        for path in sorted(folder.rglob(JOURNAL)):
            found[path.parent] = None
    return list(found)


def is_running(folder: Path, entry: Entry) -> bool:
    """Return whether the process that owns a run's folder is alive, as far as can be known."""
    lock = folder / RUN_LOCK
    if lock.exists():
        from filelock import FileLock, Timeout

        try:
            with FileLock(lock, timeout=0):
                return False
        except Timeout:
            return True
    owner = entry.owner
    if owner.get("host") != socket.gethostname():
        return True
    return _started(int(owner["pid"])) == owner.get("started")


def _this_process() -> dict[str, Any]:
    own = os.getpid()
    return {"host": socket.gethostname(), "pid": own, "started": _started(own)}


def _started(process: int) -> str | None:
    """Return when a process was started, which no other process of that number shares, or None."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:  # it is gone, or this is not Linux
        return _alive(process)
    state, *rest = status.rpartition(")")[2].split()
    return None if state in "ZX" else rest[18]


def _alive(process: int) -> str | None:
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "alive"


def texts(values: Mapping[str, Any], length: int) -> dict[str, str]:
    """Return values as strings, each cut to the length that MLflow allows."""
    return {key: cut(str(value), length) for key, value in values.items()}


def cut(text: str, length: int) -> str:
    """Return a text cut to the length that MLflow allows, with an ellipsis where it was cut."""
    return text if len(text) <= length else text[: length - 1] + "…"


def note_ids(folder: Path | None, ids: Mapping[str, str | None]) -> None:
    """Add MLflow's ids to what a run's folder says of it: a run that goes on finds its row again.

    What is damaged or can't be written stays as it is.
    """
    for name in _WITH_IDS if folder else ():
        with contextlib.suppress(OSError, ValueError):
            path = Path(folder or "", name)
            known = read_sealed(path)
            if known.get("run_id") is None:
                write_whole(path, sealed({**known, **ids}))

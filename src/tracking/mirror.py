"""The mirror: a process of its own that follows the folders of runs and tells MLflow what is new.

``src.tracking.process`` starts it. Lines of JSON come by its standard input, which ends with the
process that it serves, however that ends. The mirror then tells what is left, closes the runs that
were left open, and ends. What it has told is in the folders: see ``src.tracking.told``.
"""

import contextlib
import fcntl
import json
import math
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from src.runs.folder import RESULT, RUN, is_alive
from src.runs.tracking import Tracking
from src.support.errors import UserError
from src.support.signals import ENDING
from src.tracking.errors import one_line
from src.tracking.store import check_store, import_mlflow, open_store, open_tracking, preload
from src.tracking.summary import SummaryUpload, SweepSummary, is_best
from src.tracking.told import TOLD, Told, left_open
from src.tracking.upload import DIED, Upload, state

PATIENCE = 20.0  # seconds without an answer, after which a store is given up
PAUSE = 2.0  # seconds between attempts at a store that is away
# Turns come after at least and at most this many seconds, and in between so that they take this
# share of the time.
_LEAST_WAIT, _MOST_WAIT, _SHARE = 0.5, 5.0, 0.1
_CLOSING = 25.0  # seconds for the workers of a process that died, to close their runs

Message = dict[str, Any]


class Mirror:
    """Tells one store of the runs in the folders that it follows."""

    def __init__(
        self, store: str, experiment: str, outputs: Path, say: Callable[..., None]
    ) -> None:
        """``say`` sends what the process that this serves must know."""
        self._place, self._say = (store, experiment, outputs), say
        # Folders in which runs may begin or go on, each with the state in which it had no news.
        self._expected: dict[Path, object] = {}
        self._waits = False  # for another process that tells a run which we are to follow
        self._open: dict[Path, _Followed] = {}
        self._died: tuple[str, str] | None = None  # how runs end whose process has died
        self._arranged: set[tuple[str, str]] = set()  # views of sweeps
        self._looked = False  # for runs that dead processes left open
        self._is_away = False
        self._next = 0.0  # the time of the next attempt at a store that is away
        self.heard = self._said = time.monotonic()  # when the store answered; when that was said
        self.lacking: dict[str, str] = {}  # by folders, what the store refuses

    def follow(self, folders: Sequence[Path]) -> None:
        """Follow the runs that begin in these folders, or have begun."""
        self._expected |= dict.fromkeys(folders)

    def close_dead(self, status: str, reason: str) -> None:
        """Close the runs whose process has died, now and from now on."""
        self._died = status, reason

    def check(self) -> None:
        """Say whether the store can be opened: why not, or an empty text."""
        try:
            open_store(*self._place)
        except UserError as error:
            self._say(refused=str(error))
        else:
            self._say(refused="")

    def turn(self) -> None:
        """Tell what is new, as far as the store answers."""
        self._discover()
        if self._is_away and time.monotonic() < self._next:
            return
        try:
            opened = open_store(*self._place)
            self._look_for_abandoned()
            for folder in list(self._open):
                self._tell(folder, *opened)
        except Exception as error:  # whatever it is, it must not end the mirror
            self._next = time.monotonic() + PAUSE
            if not self._is_away:
                self._say(lost=one_line(error))
            self._is_away = True

    def summarize(self, folder: Path) -> None:
        """Tell the summary of a sweep, too, when its runs have been told."""
        best = SweepSummary.load(folder).best
        if best and (folder / best).resolve().is_relative_to(folder.resolve()):
            with contextlib.suppress(KeyError):
                self._follow(folder / best).upload.is_best = True
        self._open[folder] = _Followed(SummaryUpload(folder), contextlib.ExitStack())

    def _discover(self) -> None:
        self._waits = False
        for folder, before in list(self._expected.items()):
            seen = [state(folder, name) for name in (RUN, RESULT)]
            if seen == before:
                continue
            if not _has_news(folder):
                self._expected[folder] = seen
                continue
            try:
                self._follow(folder)
                del self._expected[folder]
            except KeyError:  # the mirror of a killed process tells it still: our turn comes
                self._waits = True

    def _follow(self, folder: Path) -> "_Followed":
        """Return a run to be told. Raises KeyError if another process tells it."""
        if folder not in self._open:
            lock = contextlib.ExitStack()
            if not lock.enter_context(_locked(folder)):
                raise KeyError(folder)
            self._open[folder] = _Followed(Upload(folder), lock)
        return self._open[folder]

    def _look_for_abandoned(self) -> None:
        """Close runs that dead processes have left open, also their mirrors."""
        if self._looked:
            return
        self._looked = True
        for folder in left_open(self._place[2]):
            if folder not in self._expected and not is_alive(folder):
                with contextlib.suppress(KeyError):
                    self._follow(folder).died = DIED

    def _tell(self, folder: Path, client: Any, experiment_id: str) -> None:
        followed = self._open[folder]
        upload = followed.upload
        try:
            died = None
            if not upload.has_ended and (followed.died or self._died):
                died = None if is_alive(folder) else followed.died or self._died
            if died or upload.has_news:
                self._arrange(client, experiment_id, upload.views)
                upload.advance(client, experiment_id, died, self._hear)
            self._hear()
            is_over = upload.told.status is not None and not upload.has_news
        except UserError as error:  # the folder is damaged
            upload.lacking["folder"], is_over = str(error), True
        self.lacking.pop(str(folder), None)
        if upload.lacking:
            self.lacking[str(folder)] = _listed(upload.lacking)
        if is_over:  # src.sync tries again what the store did not take
            del self._open[folder]
            followed.lock.close()
            if not upload.lacking and upload.has_ended:
                self._expected[folder] = None  # it may go on

    def _arrange(self, client: Any, experiment_id: str, tags: Mapping[str, str]) -> None:
        for tag in tags.items():
            if tag not in self._arranged:
                client.set_experiment_tag(experiment_id, *tag)
                self._arranged.add(tag)

    def _hear(self) -> None:
        """Note that the store has answered."""
        if self._is_away:
            self._is_away = False
            self._say(found=True)
        self.heard = time.monotonic()
        if self.heard - self._said > _LEAST_WAIT:
            self._said = self.heard
            self._say(heard=True)

    @property
    def is_idle(self) -> bool:
        """Whether nothing can be told that is not told."""
        is_waiting = self._is_away or self._waits
        return not is_waiting and not any(one.upload.has_news for one in self._open.values())

    @property
    def has_ended(self) -> bool:
        """Whether all runs are told to their end, as far as the store takes them."""
        return not self._open and not any(is_alive(folder) for folder in self._expected)


class _Followed:
    """A run, or the summary of a sweep, that is being told."""

    def __init__(self, upload: Upload | SummaryUpload, lock: contextlib.ExitStack) -> None:
        self.upload, self.lock = upload, lock
        self.died: tuple[str, str] | None = None


def _has_news(folder: Path) -> bool:
    """Return whether MLflow does not have the run in a folder as it is, and no other machine tells.

    A run that is to go on has none before it begins again.
    """
    if not (folder / RUN).exists():
        return False
    upload = Upload(folder)
    try:
        record, told = upload.record, upload.told
    except UserError:  # damaged, which its upload will say
        return True
    is_away = record.away_from == str(folder) and not (folder / TOLD).exists()
    is_told = record.has_ended and upload.is_complete and told.attempt == record.attempt
    return not is_away and not is_told


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Yield whether no other process tells MLflow of the run in a folder, nor will in the block."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_ours = True
    except BlockingIOError:
        is_ours = False
    except OSError:  # a file system without locks of folders
        is_ours = True
    try:
        yield is_ours
    finally:
        os.close(file)


def tell(
    folder: Path, tracking: Tracking, outputs: Path, *, wants_model: bool = False
) -> tuple[Told, str]:
    """Tell MLflow once what it does not have of the run in a folder.

    A run whose process died is closed. ``wants_model`` has its network logged as a model, too.
    Returns what MLflow has, and what it refuses. Raises UserError if the run still goes on, another
    process tells it, the folder is damaged, or the store is away.
    """
    with _locked(folder) as is_ours:
        if not is_ours:
            raise UserError(f"{folder}: another process is telling MLflow of this run")
        if is_alive(folder):
            raise UserError(f"{folder}: the run still goes on")
        is_run = (folder / RUN).exists()
        upload = Upload(folder) if is_run else SummaryUpload(folder)
        upload.is_best = wants_model or is_best(folder)
        check_store(tracking, outputs)
        client, experiment_id = open_tracking(tracking, outputs)
        try:
            arranged = client.get_experiment(experiment_id).tags
            for tag in upload.views.items():
                if tag[0] not in arranged:  # a sweep's end arranges it better
                    client.set_experiment_tag(experiment_id, *tag)
            upload.advance(client, experiment_id, DIED)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"{folder}: the MLflow store fails: {one_line(error)}; what it has not been told "
                "stays in the folder: try again later"
            ) from None
        return upload.told, _listed(upload.lacking)


def _listed(lacking: Mapping[str, str]) -> str:
    return "; ".join(f"{part}: {reason}" for part, reason in lacking.items())


def main() -> None:
    """Serve the process that has started this one, and end when it has ended and all is told."""
    for number in ENDING:  # it ends with the process that it serves
        signal.signal(number, signal.SIG_IGN)
    messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
    threading.Thread(target=_read, args=[messages], daemon=True).start()
    import_mlflow()
    preload()
    _say(ready=True)
    first = messages.get()  # which store it is
    mirror = Mirror(first["store"], first["experiment"], Path(first["outputs"]), _say)
    wait, flushes, ended = 0.0, list[int](), math.inf
    while True:
        for message in _received(messages, wait):
            if "check" in message:
                mirror.check()
            if "follow" in message:
                mirror.follow([Path(folder) for folder in message["follow"]])
            if "summary" in message:
                mirror.summarize(Path(message["summary"]))
            if "died" in message:
                mirror.close_dead(*message["died"])
            if "flush" in message:
                flushes.append(message["flush"])
            if "end" in message:
                ended = time.monotonic()
                mirror.close_dead(*DIED)
        begin = time.monotonic()
        mirror.turn()
        if mirror.is_idle:
            for flush in flushes:
                _say(flushed=flush, lacking=mirror.lacking)
            flushes = []
        now = time.monotonic()
        if now > ended:
            silent = now - max(mirror.heard, ended)
            if mirror.has_ended or silent > PATIENCE or now - ended > PATIENCE + _CLOSING:
                return
        wait = min(max((now - begin) / _SHARE, _LEAST_WAIT), _MOST_WAIT)
        if flushes or now > ended:
            wait = 0.1


def _read(messages: "queue.SimpleQueue[Message]") -> None:
    """Take the messages that come; leave if the other process ends before it has said anything."""
    is_used = False
    for line in sys.stdin:
        is_used = True
        messages.put(json.loads(line))
    if not is_used:
        os._exit(0)
    messages.put({"end": True})


def _received(messages: "queue.SimpleQueue[Message]", wait: float) -> Iterator[Message]:
    """Wait some seconds for a message, and yield those that are there."""
    with contextlib.suppress(queue.Empty):
        yield messages.get(timeout=wait) if wait else messages.get_nowait()
        while True:
            yield messages.get_nowait()


def _say(**message: Any) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more
        print(json.dumps(message), flush=True)


if __name__ == "__main__":
    main()

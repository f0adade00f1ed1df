"""Uses a store that may go away: one notice when it does, one when it is back, and no error."""

import logging
import threading
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from src.support.errors import UserError, first_line
from src.tracking.masking import mask
from src.tracking.store import import_mlflow, wait_longer

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)  # shown on the terminal too
_details = logging.getLogger("src.tracking.details")  # in the run's log only

PAUSE = 2.0  # seconds between attempts at a store that is away
# Errors of a database with many writers, which MLflow reports like a wrong request. The next
# attempt finds what the other writer, or our own last attempt, has written by then.
_CLASHES = ("unique constraint", "duplicate key", "database is locked", "deadlock", "serialize")
_NO_ROOM = 507  # the status of HTTP
_SOON = 2.0  # a call that fails within so many seconds is repeated once, at once


class Store:
    """A store as this process sees it: it answers, or it is away.

    The writer thread calls ``use``; any thread may call ``wait``.
    """

    def __init__(
        self, open_it: Callable[[], tuple["MlflowClient", str]], place: str, *, local: bool
    ) -> None:
        """``place`` names the store without secrets; ``local`` is true of a database file."""
        self._open, self._place, self._local = open_it, place, local
        self._changed = threading.Condition()
        self._starting = False
        self._away = self._given_up = False
        self._since = 0.0  # the time at which the store went away
        self._next = 0.0  # and that of the next attempt
        self._heard = time.monotonic()

    def use(self, work: Callable[["MlflowClient", str], None]) -> bool:
        """Do work with a client and the experiment's id; return whether all of it was done.

        While the store is away, most calls return at once.
        """
        if self._away and time.monotonic() < self._next:
            return False
        try:
            self._try(work)
        except Exception as error:  # whatever it is, it must not end the training
            self._lost(error)
            return False
        self._found()
        return True

    def _try(self, work: Callable[["MlflowClient", str], None]) -> None:
        """Do work; where an answer was lost, twice: a server may close a connection at any time."""
        begin = time.monotonic()
        try:
            work(*self._start())
        except Exception:
            if self._local or self._away or time.monotonic() - begin > _SOON:
                raise
            work(*self._start())

    def _start(self) -> tuple["MlflowClient", str]:
        """Import MLflow and open the store. On a busy machine both take long, and none hangs."""
        self._starting = True
        try:
            import_mlflow()
            self._starting = self._local
            opened = self._open()
            if not self._away:  # it may have been open before: that is no answer
                self.heard()
            return opened
        finally:
            self._starting = False

    def heard(self) -> None:
        """Note that the store has answered."""
        with self._changed:
            self._heard = time.monotonic()
            self._changed.notify_all()

    def _lost(self, error: Exception) -> None:
        self._next = time.monotonic() + PAUSE
        if _answers_late(error):
            wait_longer()
        if not self._away:
            log.warning(
                "the MLflow store %s fails: %s; training goes on, and the run's folder keeps "
                "what MLflow must be told",
                self._place,
                one_line(error),
            )
            _details.info("%s", mask("".join(traceback.format_exception(error))))
        with self._changed:
            if not self._away:
                self._since = time.monotonic()
            self._away = True
            self._changed.notify_all()

    def _found(self) -> None:
        if self._away:
            log.warning("the MLflow store %s is back", self._place)
        with self._changed:
            self._away = self._given_up = False
            self._heard = time.monotonic()
            self._changed.notify_all()

    def wait(self, done: Callable[[], bool], patience: float) -> bool:
        """Wait until ``done``, or until the store was silent for ``patience`` seconds.

        Return whether it is done. A store that went away before has a few attempts left. Once
        waited for in vain, a store that is still away is not waited for again.
        """
        attempts = min(patience, 2 * PAUSE)
        begin = time.monotonic()
        with self._changed:
            while not done():
                now = time.monotonic()
                if self._starting and not self._away:
                    begin = now
                if self._away:
                    since = max(self._since, self._heard)
                    silent = now - since >= patience and now - begin >= attempts
                else:
                    silent = now - max(begin, self._heard) >= patience
                if silent or (self._away and self._given_up):
                    self._given_up = True
                    return False
                self._changed.wait(0.2)
        return True


def refuses(error: Exception) -> bool:
    """Return whether an error means that the store will not take this, however often we try."""
    from mlflow import MlflowException
    from requests import HTTPError
    from sqlalchemy.exc import SQLAlchemyError

    if isinstance(error, MlflowException):
        if any(words in str(error).lower() for words in _CLASHES):
            return False
        code: int = error.get_http_status_code()  # type: ignore[no-untyped-call]
        return 400 <= code < 500 and code not in (401, 403, 408, 429)
    if isinstance(error, HTTPError) and error.response is not None:  # of a file that is sent
        code = error.response.status_code
        return code == _NO_ROOM or (400 <= code < 500 and code not in (401, 408, 429))
    return not isinstance(error, OSError | UserError | SQLAlchemyError)


def _answers_late(error: Exception) -> bool:
    """Return whether an error means that a server was reached and did not answer in time."""
    from requests import ReadTimeout
    from urllib3.exceptions import ReadTimeoutError

    behind: BaseException | None = error  # MLflow and requests each raise an error of their own
    while behind and not isinstance(behind, ReadTimeout | ReadTimeoutError):
        behind = behind.__context__
    return behind is not None


def is_local(error: Exception) -> bool:
    """Return whether an error is one of this computer's files, and not of the way to the store."""
    from requests import RequestException

    return isinstance(error, OSError) and not isinstance(
        error, RequestException | ConnectionError | TimeoutError
    )


def one_line(error: Exception) -> str:
    """Return an error of the store in one short line without secrets."""
    said = str(error) if isinstance(error, UserError) else first_line(error)
    line = " ".join(mask(said).splitlines()[0].split())
    return line if len(line) <= 200 else f"{line[:199]}…"

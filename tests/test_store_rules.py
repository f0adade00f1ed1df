"""When a store counts as away, how long it is waited for, and which errors are final."""

import logging
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowException
from mlflow.protos.databricks_pb2 import (
    BAD_REQUEST,
    INTERNAL_ERROR,
    PERMISSION_DENIED,
    REQUEST_LIMIT_EXCEEDED,
    RESOURCE_DOES_NOT_EXIST,
    UNAUTHENTICATED,
)
from requests import ConnectionError as NoConnection
from requests import HTTPError, ReadTimeout, Response
from sqlalchemy.exc import OperationalError
from urllib3.exceptions import ReadTimeoutError

from src.support.errors import UserError
from src.tracking import outage
from src.tracking.masking import has_secret, mask
from src.tracking.outage import PAUSE, Store, is_local, one_line, refuses
from src.tracking.writer import Writer, wait_after


class Clock:
    """Seconds that pass only where something waits, or takes them."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def take(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(outage, "time", made)
    monkeypatch.setattr(outage, "import_mlflow", lambda: None)

    def wait(self: threading.Condition, timeout: float) -> None:
        made.take(timeout)

    monkeypatch.setattr(threading.Condition, "wait", wait)
    return made


class Remote:
    """A store that does what a test says, and counts how often it was asked."""

    def __init__(self, *, local: bool = False) -> None:
        self.works: list[Callable[[], None]] = []
        self.asked = self.opened = 0
        self.store = Store(self._open, "http://host", local=local)

    def _open(self) -> Any:
        self.opened += 1
        return None, "1"

    def use(self, *answers: Callable[[], None]) -> bool:
        """Use the store, which answers each attempt in turn, and the last one always."""
        left = list(answers)

        def work(client: Any, experiment_id: str) -> None:
            assert experiment_id == "1"
            self.asked += 1
            (left.pop(0) if len(left) > 1 else left[0])()

        return self.store.use(work)


def fine() -> None:
    pass


def dead() -> None:
    raise NoConnection("refused")


@pytest.fixture
def remote(clock: Clock) -> Remote:
    return Remote()


# --- attempts -------------------------------------------------------------------------------------


def test_a_call_whose_answer_is_lost_is_repeated_once(remote: Remote) -> None:
    assert remote.use(dead, fine)
    assert remote.asked == 2
    assert not remote.use(dead, dead, fine)
    assert remote.asked == 4


def test_a_call_that_fails_late_is_not_repeated(remote: Remote, clock: Clock) -> None:
    def late(seconds: float) -> Callable[[], None]:
        def fail() -> None:
            clock.take(seconds)
            dead()

        return fail

    assert remote.use(late(2.0), fine)
    assert not remote.use(late(2.1), fine)
    assert remote.asked == 3


def test_a_local_database_is_not_asked_twice(clock: Clock) -> None:
    local = Remote(local=True)
    assert not local.use(dead, fine)
    assert local.asked == 1


def test_a_store_that_is_away_is_tried_every_two_seconds(
    remote: Remote, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "src.tracking")
    assert not remote.use(dead)
    assert "the MLflow store http://host fails: " in caplog.text
    assert remote.asked == 2
    clock.take(PAUSE - 0.1)
    assert not remote.use(fine)  # not asked
    assert remote.asked == 2
    clock.take(0.1)
    assert not remote.use(dead)  # once only
    assert remote.asked == 3
    clock.take(PAUSE)
    assert remote.use(fine)
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == 2  # one notice when it goes, and one when it is back
    assert said[0].startswith("the MLflow store http://host fails: ")
    assert said[1] == "the MLflow store http://host is back"
    details = [record.getMessage() for record in caplog.records if record.levelname == "INFO"]
    assert ["Traceback" in text for text in details] == [True]
    assert remote.use(fine)
    assert len([r for r in caplog.records if r.levelname == "WARNING"]) == 2


def test_answers_that_come_late_are_given_longer(
    remote: Remote, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[int] = []
    monkeypatch.setattr(outage, "wait_longer", lambda: waited.append(1))

    def late() -> None:
        try:
            raise ReadTimeoutError(SimpleNamespace(), "url", "late")  # type: ignore[arg-type]
        except ReadTimeoutError as error:
            raise MlflowException("late") from error

    assert not remote.use(dead)
    assert waited == []
    clock.take(PAUSE)
    assert not remote.use(late)
    assert waited == [1]
    clock.take(PAUSE)

    def plain() -> None:
        raise ReadTimeout("late")

    assert not remote.use(plain)
    assert waited == [1, 1]


# --- waiting --------------------------------------------------------------------------------------


def silence(remote: Remote, clock: Clock, patience: float) -> float:
    """Return how many seconds the store is waited for in vain."""
    begin = clock.now
    assert not remote.store.wait(lambda: False, patience)
    return clock.now - begin


def test_a_store_is_waited_for_until_all_is_done(remote: Remote, clock: Clock) -> None:
    assert remote.store.wait(lambda: clock.now >= 1005, 20.0)
    assert 1005 <= clock.now < 1006


def test_a_silent_store_is_given_up_after_the_patience(remote: Remote, clock: Clock) -> None:
    assert silence(remote, clock, 20.0) == pytest.approx(20.0, abs=0.5)


def test_each_answer_begins_the_patience_anew(remote: Remote, clock: Clock) -> None:
    begin = clock.now

    def done() -> bool:
        if clock.now - begin <= 50:
            remote.store.heard()
        return False

    assert not remote.store.wait(done, 20.0)
    assert clock.now - begin == pytest.approx(70.0, abs=1)


def test_a_store_that_went_away_before_has_a_few_attempts_left(
    remote: Remote, clock: Clock
) -> None:
    remote.use(dead)
    clock.take(15.0)
    assert silence(remote, clock, 20.0) == pytest.approx(5.0, abs=0.5)
    assert silence(remote, clock, 20.0) == 0.0  # waited for in vain before
    clock.take(PAUSE)
    assert remote.use(fine)
    remote.use(dead)
    clock.take(100.0)
    assert silence(remote, clock, 20.0) == pytest.approx(2 * PAUSE, abs=0.5)


def test_a_store_is_away_since_its_first_failure(remote: Remote, clock: Clock) -> None:
    remote.use(dead)
    clock.take(10.0)
    remote.use(dead)
    assert silence(remote, clock, 20.0) == pytest.approx(10.0, abs=0.5)


def test_a_short_patience_limits_the_attempts(remote: Remote, clock: Clock) -> None:
    remote.use(dead)
    clock.take(100.0)
    assert silence(remote, clock, 1.0) == pytest.approx(1.0, abs=0.3)


def test_the_first_import_of_mlflow_does_not_count_as_silence(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = Remote()
    begin = clock.now

    def imports() -> None:  # while another thread waits for the store
        waited = remote.store.wait(lambda: clock.now - begin > 60, 20.0)
        assert waited

    monkeypatch.setattr(outage, "import_mlflow", imports)
    assert remote.use(fine)
    assert clock.now - begin > 60


@pytest.mark.parametrize("local", [True, False])
def test_a_database_that_is_opened_does_not_count_as_silence_and_a_server_does(
    local: bool, clock: Clock
) -> None:
    found: list[bool] = []
    begin = clock.now

    def opens() -> Any:
        found.append(store.wait(lambda: clock.now - begin > 60, 20.0))
        return None, "1"

    store = Store(opens, "place", local=local)
    assert store.use(lambda *_: None)
    assert found == [local]


# --- errors ---------------------------------------------------------------------------------------


def http(status: int) -> HTTPError:
    response = Response()
    response.status_code = status
    return HTTPError(response=response)


@pytest.mark.parametrize(
    ("error", "final"),
    [
        (MlflowException("wrong", BAD_REQUEST), True),
        (MlflowException("none", RESOURCE_DOES_NOT_EXIST), True),
        (MlflowException("away", INTERNAL_ERROR), False),
        (MlflowException("who", UNAUTHENTICATED), False),
        (MlflowException("no", PERMISSION_DENIED), False),
        (MlflowException("slow", REQUEST_LIMIT_EXCEEDED), False),
        (MlflowException("UNIQUE constraint failed", BAD_REQUEST), False),
        (MlflowException("database is locked", BAD_REQUEST), False),
        (http(400), True),
        (http(403), True),  # of a file
        (http(499), True),
        (http(507), True),
        (http(399), False),
        (http(401), False),
        (http(408), False),
        (http(429), False),
        (http(500), False),
        (http(506), False),
        (HTTPError("no response"), False),
        (OSError("disk"), False),
        (UserError("no store"), False),
        (OperationalError("", {}, Exception()), False),
        (ValueError("ours"), True),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_which_errors_are_final(error: Exception, final: bool) -> None:
    assert refuses(error) == final


@pytest.mark.parametrize(
    ("error", "local"),
    [
        (OSError(28, "No space left on device"), True),
        (PermissionError("no"), True),
        (NoConnection("refused"), False),
        (ConnectionError("reset"), False),
        (TimeoutError("late"), False),
        (ValueError("wrong"), False),
    ],
)
def test_which_errors_are_of_this_computer_s_files(error: Exception, local: bool) -> None:
    assert is_local(error) == local


def test_an_error_is_told_in_one_line() -> None:
    assert one_line(UserError("no  such\tstore")) == "no such store"
    assert one_line(ValueError("at http://me:secret@host\nsecond")).endswith("http://me:***@host")
    assert one_line(UserError("x" * 200)) == "x" * 200
    assert one_line(UserError("x" * 201)) == "x" * 199 + "…"


# --- secrets --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "secret"),
    [
        ("http://me:secret@host", True),
        ("http://me@host", False),
        ("http://host/a?token=1", True),
        ("http://host/a:b", False),
        ("sqlite:////tmp/a?b=c", False),
        ("postgresql://me:secret@host/db", True),
    ],
)
def test_which_uris_hold_a_secret(uri: str, secret: bool) -> None:
    assert has_secret(uri) == secret


def test_a_name_without_a_password_is_shown() -> None:
    assert mask("http://me@host/a") == "http://me@host/a"


def test_secrets_of_the_environment_are_masked_and_other_words_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {
        "MLFLOW_TRACKING_PASSWORD": "Pass1",
        "MLFLOW_TRACKING_USERNAME": "user2",
        "AWS_SECRET_ACCESS_KEY": "abc",
        "AZURE_TOKEN": "ab",  # too short
        "OTHER_TOKEN": "word4",
        "MLFLOW_TRACKING_URI": "http://me:long%40er@host:80/p?key=v5value",
    }.items():
        monkeypatch.setenv(name, value)
    given = "Pass1 user2 abc ab word4 long@er v5value longest"
    assert mask(given) == "*** user2 *** ab word4 *** *** longest"


def test_the_parts_of_a_password_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:first@second:third@host")
    assert mask("first, second, third, first@second:third") == "***, ***, ***, ***"


# --- how often curves are written -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("took", "wait"), [(0.0, 1.0), (0.05, 1.0), (0.1, 2.0), (0.2, 4.0), (0.25, 5.0), (9.0, 5.0)]
)
def test_curves_take_a_twentieth_of_the_time(took: float, wait: float) -> None:
    assert wait_after(took) == pytest.approx(wait)


def test_jobs_that_are_left_have_a_moment_at_the_end_of_the_process() -> None:
    made, done = Writer(), list[int]()
    made.submit(lambda: time.sleep(0.2))
    made.submit(lambda: done.append(1))
    made._finish()
    assert done == [1]

"""Which errors of a store are final, which store holds the runs, and what is kept secret."""

from pathlib import Path

import pytest
from mlflow import MlflowException
from mlflow.protos.databricks_pb2 import (
    BAD_REQUEST,
    INTERNAL_ERROR,
    INVALID_PARAMETER_VALUE,
    PERMISSION_DENIED,
    REQUEST_LIMIT_EXCEEDED,
    RESOURCE_DOES_NOT_EXIST,
    UNAUTHENTICATED,
)
from requests import ConnectionError as NoConnection
from requests import HTTPError, Response
from sqlalchemy.exc import OperationalError

from src.runs.tracking import Tracking
from src.support.errors import InvalidValue, UserError
from src.support.masking import has_secret, mask
from src.tracking.errors import is_gone, is_local, one_line, refuses
from src.tracking.store import open_tracking

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


@pytest.mark.parametrize(
    ("error", "gone"),
    [
        (MlflowException("Run with id=7 not found", RESOURCE_DOES_NOT_EXIST), True),
        (
            MlflowException("The run 7 must be in the 'active' state.", INVALID_PARAMETER_VALUE),
            True,
        ),
        (MlflowException("No Experiment with id=1 exists", RESOURCE_DOES_NOT_EXIST), False),
        (MlflowException("The experiment 1 must be in the 'active' state."), False),
        (MlflowException("Run 7 is too long", BAD_REQUEST), False),
        (ValueError("The run 7 must be in the 'active' state."), False),
    ],
)
def test_which_errors_mean_that_a_run_is_gone(error: Exception, gone: bool) -> None:
    assert is_gone(error) == gone


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


# --- which store ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((None, " "), "experiment"),
        (("sqlite:///:memory:", "mine"), "must name a file"),
        (("sqlite://", "mine"), "must name a file"),
        (("http://me:secret@host", "mine"), r"me:\*\*\*@host: holds a password"),
    ],
)
def test_settings_of_a_store_that_are_refused(
    settings: tuple[str | None, str], message: str
) -> None:
    with pytest.raises(InvalidValue, match=message):
        Tracking(*settings)


def test_a_password_may_be_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "http://me:secret@host"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    given = Tracking(uri, "mine")
    assert given.store(Path("o")) == uri
    assert "secret" not in repr(given)
    with pytest.raises(InvalidValue, match="holds a password"):
        Tracking(f"{uri}2", "mine")


def test_without_a_uri_the_store_is_a_database_in_the_outputs(tmp_path: Path) -> None:
    assert Tracking(None, "mine").store(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"


def test_a_run_that_is_offline_opens_no_store(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no MLflow store is used"):
        open_tracking(Tracking(None, "mine", offline=True), tmp_path)
    assert not (tmp_path / "mlflow.db").exists()

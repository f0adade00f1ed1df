"""Tells the errors of a store apart: it is away, it refuses something, or it has lost a run."""

from src.support.errors import UserError, first_line
from src.support.masking import mask

# Errors of a database with many writers, which MLflow reports like a wrong request. The next
# attempt finds what the other writer, or our own last attempt, has written by then.
_CLASHES = ("unique constraint", "duplicate key", "database is locked", "deadlock", "serialize")
_NO_ROOM = 507  # the status of HTTP


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


def is_gone(error: Exception) -> bool:
    """Return whether an error means that the store does not have the run that it once had."""
    from mlflow import MlflowException

    said = str(error).lower()
    is_missing = "run" in said and getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST"
    is_deleted = "the run" in said and "must be in the 'active' state" in said
    return isinstance(error, MlflowException) and (is_missing or is_deleted)


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

"""Keeps passwords and tokens out of everything that is printed or stored."""

import os
import re
from urllib.parse import parse_qsl, unquote, urlsplit

MASK = "***"

# Greedy up to the last @, since a password may hold one.
_USER = re.compile(r"(://)([^\s'\"<>]*)@")
_QUERY = re.compile(r"(://[^\s'\"<>?]*\?)[^\s'\"<>]+")
_SECRET_VARIABLES = re.compile(r"(PASSWORD|TOKEN|SECRET|ACCESS_KEY)", re.IGNORECASE)
_SHORTEST = 3  # characters; masking shorter ones would make any text unreadable


def mask(text: str) -> str:
    """Return a text without the secrets of URLs in it, and without those of the environment.

    Of ``http://user:password@host?token=1``, ``http://user:***@host?***`` is left.
    """
    for secret in _secrets():
        text = text.replace(secret, MASK)
    text = _USER.sub(lambda found: f"{found[1]}{_masked_user(found[2])}@", text)
    return _QUERY.sub(rf"\1{MASK}", text)


def has_secret(uri: str) -> bool:
    """Return whether a URI holds a password, or settings after a question mark."""
    if uri.startswith("sqlite:"):
        return False
    return bool(_USER.search(uri) and ":" in _USER.search(uri)[2]) or bool(_QUERY.search(uri))  # type: ignore[index]


def _masked_user(user: str) -> str:
    name, colon, _ = user.partition(":")
    return f"{name}:{MASK}" if colon else name


def _secrets() -> list[str]:
    """Return the secrets that this process was given, the longest first."""
    found = {
        value
        for name, value in os.environ.items()
        if name.startswith(("MLFLOW", "AWS", "AZURE", "DATABRICKS")) and _is_secret(name)
    }
    found |= _secrets_of(os.environ.get("MLFLOW_TRACKING_URI", ""))
    return sorted((text for text in found if len(text) >= _SHORTEST), key=len, reverse=True)


def _is_secret(variable: str) -> bool:
    return _SECRET_VARIABLES.search(variable) is not None


def _secrets_of(uri: str) -> set[str]:
    """Return the password of a URI and its parts, as written and decoded, and its query's values.

    A library that splits a password at an @ shows the parts.
    """
    if not has_secret(uri):
        return set()
    found = set()
    if user := _USER.search(uri):
        _, _, password = user[2].partition(":")
        found |= {password, unquote(password), *re.split("[@:]", password)}
    try:
        query = urlsplit(uri).query
    except ValueError:  # a port or an address in brackets that is none
        query = uri.partition("?")[2]
    found |= {query, *(value for _, value in parse_qsl(query))}
    return found

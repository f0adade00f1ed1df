"""Knows the versions of a database's tables without importing MLflow, which takes seconds."""

import functools
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

_REVISION = re.compile(r"^(down_)?revision\b[^=\n]*=\s*[\"'](\w+)[\"']", re.MULTILINE)


@dataclass(frozen=True)
class Revisions:
    """The versions that the installed MLflow knows, and the newest of them."""

    all: frozenset[str]
    newest: str | None  # None if it can't be told


@functools.cache
def revisions() -> Revisions:
    """Return the versions of MLflow's tables, as its migration scripts name them.

    This is a private part of MLflow: its folder of Alembic scripts. Without it nothing is known.
    """
    package = importlib.util.find_spec("mlflow")
    if package is None or package.origin is None:
        return Revisions(frozenset(), None)
    scripts = Path(package.origin).parent / "store" / "db_migrations" / "versions"
    known: set[str] = set()
    older: set[str] = set()
    for path in scripts.glob("*.py"):
        for down, revision in _REVISION.findall(path.read_text(encoding="utf-8")):
            (older if down else known).add(revision)
    newest = known - older
    return Revisions(frozenset(known), newest.pop() if len(newest) == 1 else None)

"""Identifies the code that produced a result, and who ran it."""

import functools
import getpass
import hashlib
import subprocess
import sys
from collections.abc import Mapping

from src.support import plugins
from src.support.paths import SOURCE


def code_digest() -> str:
    """Return 32 hexadecimal digits of this package's source and of the plugins in use.

    A result belongs to the code that computed it.
    """
    own, others = _source_digest(), plugins.digests()
    if not others:
        return own
    return hashlib.sha256(f"{own} {sorted(others.items())}".encode()).hexdigest()[:32]


@functools.cache  # a process runs the code that it started with
def _source_digest() -> str:
    digest = hashlib.sha256()
    for path in sorted(SOURCE.rglob("*.py")):
        digest.update(f"{path.relative_to(SOURCE).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:32]


@functools.cache
def source() -> Mapping[str, str]:
    """Return the user and the program, and with git the commit and whether there are changes."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # in a container, the user may have no name
        user = "unknown"
    known = {"user": user, "program": sys.argv[0]}

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=SOURCE, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return {
            **known,
            "git.commit": git("rev-parse", "HEAD"),
            "git.dirty": str(bool(git("status", "--porcelain"))).lower(),
        }
    except (OSError, subprocess.CalledProcessError):
        return known

"""Which code a result comes from."""

import functools
import hashlib
import subprocess
from collections.abc import Mapping
from pathlib import Path

_SOURCE = Path(__file__).parent.parent


@functools.cache  # a process runs the code that it began with
def code_digest() -> str:
    """32 hexadecimal digits of this package's source: a result belongs to the code that made it."""
    digest = hashlib.sha256()
    for path in sorted(_SOURCE.rglob("*.py")):
        digest.update(f"{path.relative_to(_SOURCE).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:32]


@functools.cache
def git_tags() -> Mapping[str, str]:
    """Return the commit that this code is at and whether it was changed since, or nothing where there is no git."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=_SOURCE, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return {
            "git.commit": git("rev-parse", "HEAD"),
            "git.dirty": str(bool(git("status", "--porcelain"))).lower(),
        }
    except (OSError, subprocess.CalledProcessError):
        return {}

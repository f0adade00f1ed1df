"""Writes files that are whole or absent, whatever ends the process while it writes."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_PART = ".part"


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a binary file that takes its place at ``path`` when the block ends.

    Until then it has another name in the same folder. What the block wrote is on disk before it
    gets its name. If the block raises, ``path`` stays as it was.
    """
    part = path.with_name(f".{secrets.token_hex(6)}{_PART}")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, all of it or nothing. See ``whole_file``."""
    with whole_file(path) as file:
        file.write(content)


def sync_folder(folder: Path) -> None:
    """Wait until the names of the files in a folder are on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_parts(folder: Path) -> None:
    """Remove what ``whole_file`` left in a folder when its process was killed.

    No other process may write into the folder meanwhile.
    """
    for part in folder.glob(f".*{_PART}"):
        part.unlink(missing_ok=True)


def open_many_files() -> None:
    """Let this process have as many files open as the system allows it."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS allows fewer than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

"""Temporary folders that are removed however their process ends.

A process holds a lock on each folder that it makes or uses. The operating system frees the lock
when the process ends, so the next process can tell which folders are abandoned.
"""

import atexit
import contextlib
import fcntl
import functools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from src.support.signals import clean_when_leaving

_PREFIX = "scratchgrid."  # short: sockets in the folder have paths of at most 103 characters
_MARK = ".temporary"  # only a folder that holds this file is removed


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder that is removed when the block ends, or a signal ends the process."""
    folder, lock = _make()
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # a forked process that drops this block must not remove it
            shutil.rmtree(folder, ignore_errors=True)

    forget = clean_when_leaving(remove)
    try:
        yield folder
    finally:
        remove()
        os.close(lock)
        forget()


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a temporary folder for a thread that this process does not wait for when it ends."""
    with temporary_folder() as folder:
        remove = functools.partial(shutil.rmtree, folder, ignore_errors=True)
        atexit.register(remove)
        try:
            yield folder
        finally:
            atexit.unregister(remove)


@contextlib.contextmanager
def using(folder: Path) -> Iterator[None]:
    """Keep the temporary folder of another process in the block, even if that process is killed."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(lock, fcntl.LOCK_SH)
    try:
        yield
    finally:
        os.close(lock)


def remove_abandoned() -> None:
    """Remove the temporary folders of this user's processes that were killed."""
    with contextlib.suppress(OSError):
        for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
            with contextlib.suppress(OSError):  # in use, gone, or another user's
                _remove_if_abandoned(folder)


def _remove_if_abandoned(folder: Path) -> None:
    """Remove a folder of ours unless a process holds its lock, in which case OSError is raised."""
    if not (folder / _MARK).is_file() or folder.stat().st_uid != os.getuid():
        return
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def _make() -> tuple[Path, int]:
    """Return a new folder and the open file that holds its lock."""
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    (folder / _MARK).touch()  # from now on it may be abandoned, and until now nobody touches it
    return folder, lock

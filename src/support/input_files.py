"""Opens files that come from anywhere: reading never hangs, and takes a limited amount of memory.

Only regular files are opened, because a FIFO can block for ever and a device never ends. Whoever
reads compares each size with ``max_bytes`` before taking memory for it.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from src.support.errors import ConfigError, DataError

MAX_BYTES = "SCRATCHGRID_MAX_BYTES"  # the environment variable that sets the limit
_DEFAULT = 2 * 1024**3
_SMALL = 64 * 1024**2  # bytes of a file of settings, results or measurements


def max_bytes() -> int:
    """Return the most bytes that one file may hold, after decompression.

    The environment variable ``SCRATCHGRID_MAX_BYTES`` sets it; a configuration file cannot. Raises
    ConfigError unless the variable is a positive whole number.
    """
    value = os.environ.get(MAX_BYTES) or str(_DEFAULT)
    if not (value.isascii() and value.isdigit() and len(value) < 20 and int(value) > 0):
        raise ConfigError(
            f"{MAX_BYTES}={value[:60]}: must be a number of bytes, such as {_DEFAULT}"
        )
    return int(value)


def too_large(size: int | None = None) -> str:
    """Return the rest of a message about a file of more than ``max_bytes``."""
    has = "more than" if size is None else f"{size:,} bytes, more than"
    return f"holds {has} {max_bytes():,} bytes; set {MAX_BYTES} to raise the limit"


def expanded(path: Path) -> Path:
    """Return the path with ``~`` replaced by the home folder. Raises DataError if there is none."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise DataError(f"{path}: there is no such home folder") from None


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading bytes, buffered.

    Raises OSError if it cannot be opened, and DataError, without the path, if it is not a regular
    file or holds more than ``max_bytes``.
    """
    try:
        _check(path.stat())  # before it is opened: opening a device can have effects
        # Should a FIFO have taken its place by now, O_NONBLOCK keeps open from waiting.
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    except ValueError:  # the path holds a null byte
        raise DataError("not a path: it holds a null byte") from None
    try:
        _check(os.fstat(file.fileno()))
    except BaseException:
        file.close()
        raise
    return file


def read_text(path: Path) -> str:
    """Return the text of a small file that a run keeps, such as ``run.json``.

    The folder may be a stranger's. Raises OSError, also if it is not a regular file or is too
    large, and UnicodeDecodeError, which is a ValueError.
    """
    try:
        with open_regular(path) as file:
            # Not more than it has: Python takes memory for as many bytes as it is asked for.
            content = file.read(min(os.fstat(file.fileno()).st_size, _SMALL) + 1)
    except DataError as error:
        raise OSError(errno.EINVAL, str(error)) from None
    if len(content) > _SMALL:
        raise OSError(errno.EFBIG, f"holds more than {_SMALL:,} bytes")
    return content.decode()


def _check(status: os.stat_result) -> None:
    """Raise DataError or OSError unless this is a regular file within the limit."""
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        kinds = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
        kind = kinds.get(stat.S_IFMT(status.st_mode), "a device")
        raise DataError(f"is {kind}; a regular file is needed")
    if status.st_size > max_bytes():
        raise DataError(too_large(status.st_size))

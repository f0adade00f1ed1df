"""The folder of a run: its files, and which process owns it."""

import contextlib
import fcntl
import os
from pathlib import Path

from filelock import FileLock, Timeout

from src.support.errors import ConfigError
from src.support.files import remove_parts

LOCK, HISTORY, WEIGHTS, PREDICTIONS = "run.lock", "history.csv", "weights.npz", "predictions.npz"
RUN, RESULT = "run.json", "result.json"
CHECKPOINT, PREVIOUS = "checkpoint.npz", "checkpoint.previous.npz"
CONFIGURATION = ".hydra/config.yaml"
# In the order in which they are drawn.
PICTURES = [
    f"{title}.png"
    for title in ("samples", "curves", "layers", "confusion", "predictions", "first_layer")
]

_OWN = ("run.*", "result.json", "history.csv", "*.npz", "*.png", "mlflow.*", ".hydra", ".hydra/*")
_PATIENCE = 0.3  # seconds: whoever asks whether a run is alive holds its lock for a moment

_owned: dict[Path, FileLock] = {}


def own(folder: Path) -> None:
    """Make this process the owner of a run's folder, until ``disown`` or the end of the process.

    The operating system ends the ownership of a process that dies. Files that such a process left
    unfinished are removed. Raises ConfigError if another process owns the folder, or a file in it
    is a link.
    """
    folder = folder.absolute()
    if folder in _owned:
        return
    refuse_links(folder)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=_PATIENCE, poll_interval=0.01)
    except Timeout:
        raise ConfigError(
            f"{folder}: another process is writing into this folder: "
            "wait until it has ended, or choose another folder"
        ) from None
    _owned[folder] = lock
    remove_parts(folder)


def tidy(folder: Path) -> None:
    """Remove the unfinished files of a run whose process was killed just after it had finished."""
    with contextlib.suppress(ConfigError):  # another process writes there
        own(folder)
        disown(folder)


def disown(folder: Path) -> None:
    """Let other processes own the folder."""
    if lock := _owned.pop(folder.absolute(), None):
        lock.release()


def is_alive(folder: Path) -> bool:
    """Return whether this or another process owns the folder: whether its run goes on."""
    if folder.absolute() in _owned:
        return True
    try:
        file = os.open(folder / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)
    return False


def refuse_links(folder: Path) -> None:
    """Raise ConfigError if a link stands where a run writes: it would write to another place."""
    for pattern in _OWN:
        for path in folder.glob(pattern):
            if path.is_symlink():
                raise ConfigError(
                    f"{path}: is a link, and a run writes only into its own folder: remove the link"
                )


def refuse_taken(folder: Path) -> None:
    """Raise ConfigError if a folder holds a run already: a new one would overwrite its results."""
    if (folder / RUN).exists():
        raise ConfigError(
            f"{folder}: holds a run already: choose another folder, "
            f"or go on with that run: resume={folder}"
        )

"""Trains one run in a process that may be killed: ``python -m tests.resuming FOLDER OVERRIDES``.

No mirror tells MLflow of it, which saves seconds. A folder that holds a run goes on.
"""

import contextlib
import os
import sys
from pathlib import Path

from src.config.composition import compose, composer
from src.config.preflight import check
from src.runs.context import RunContext
from src.runs.folder import RUN
from src.runs.recorder import Finished
from src.runs.runner import execute


def train(folder: Path, *overrides: str) -> Finished:
    """Train a run in a folder, or go on with the one that it holds."""
    folder.mkdir(exist_ok=True)
    with composer():
        job, prepared = check(compose([f"outputs={folder}", *overrides]))
    context = RunContext(
        folder, "a run", list(overrides), {}, "1/1", goes_on=(folder / RUN).exists()
    )
    display = contextlib.nullcontext(lambda _: None)
    return execute(job, prepared, context, lambda _: display)


if __name__ == "__main__":
    train(Path(sys.argv[1]), *sys.argv[2:])
    os._exit(0)

"""Trains one run in a process that may be killed: ``python -m tests.resuming FOLDER OVERRIDES``.

The store is left out, which saves the seconds that MLflow takes to import. A folder that holds a
run goes on.
"""

import contextlib
import os
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

from src.config.composition import compose, composer
from src.config.preflight import check
from src.experiment.recorder import Finished
from src.experiment.run_context import RunContext
from src.experiment.run_folder import RUN
from src.experiment.runner import execute
from src.tracking.settings import Tracking


class NoTracker:
    """Takes what a tracker takes, and keeps nothing."""

    def identity(self, *_: Any) -> None:
        """Return that no store keeps the run."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def train(folder: Path, *overrides: str) -> Finished:
    """Train a run in a folder, or go on with the one that it holds."""
    folder.mkdir(exist_ok=True)
    with composer():
        job, prepared = check(compose([f"outputs={folder}", *overrides]))
    context = RunContext(
        folder, "a run", list(overrides), {}, "1/1", "no pictures", goes_on=(folder / RUN).exists()
    )
    display = contextlib.nullcontext(lambda _: None)
    with patch.object(Tracking, "start", lambda *_: NoTracker()):
        return execute(job, prepared, context, lambda _: display)


if __name__ == "__main__":
    train(Path(sys.argv[1]), *sys.argv[2:])
    os._exit(0)

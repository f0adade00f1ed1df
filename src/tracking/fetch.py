"""Brings the files of runs from MLflow into folders of this machine."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from src.support.errors import UserError
from src.support.signals import GRACE
from src.tracking.store import quiet
from src.tracking.view import sweep_filter

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_LOOK, _PAUSE = 0.5, 2.0
_PATIENCE = 60.0  # seconds for a store that is away, or busy with many workers


def fetch_runs(
    open_store: Callable[[], tuple["MlflowClient", str]],
    sweep_id: str,
    stack: str,
    folders: Mapping[str, Path],
    names: Sequence[str],
) -> None:
    """Bring the files with these names, as far as MLflow has them, of the runs of a stack.

    ``stack`` and the keys of ``folders`` are the tags ``stack`` and ``stack_position`` of the runs.
    The files are brought in the order of ``names``. A run without the last one was lost before
    anything was kept; it is removed from MLflow, and begins again. Raises UserError if the
    store stays away.
    """
    client, experiment_id = _opened(open_store)
    wanted = f"{sweep_filter(sweep_id)} and tags.stack = '{stack}'"
    with quiet():
        for run in _closed(client, experiment_id, wanted):
            folder, run_id = folders.get(run.data.tags["stack_position"]), run.info.run_id
            if folder is None:
                continue
            kept = {file.path for file in client.list_artifacts(run_id)}
            if names[-1] not in kept:
                client.delete_run(run_id)
                continue
            folder.mkdir(parents=True, exist_ok=True)
            for name in names:
                if name in kept:
                    client.download_artifacts(run_id, name, str(folder))


def _closed(client: "MlflowClient", experiment_id: str, wanted: str) -> "list[Run]":
    """Return the runs that a filter finds, after waiting for a process that may be closing them.

    One whose parent was killed lives on for a moment; of one that died with its machine nothing
    more is heard.
    """
    deadline = time.monotonic() + GRACE
    while True:
        found = list(client.search_runs([experiment_id], wanted))
        is_open = any(run.info.status == "RUNNING" for run in found)
        if not is_open or time.monotonic() > deadline:
            return found
        time.sleep(_LOOK)


def _opened(open_store: Callable[[], tuple["MlflowClient", str]]) -> tuple["MlflowClient", str]:
    """Open the store, again and again if need be. Raises UserError if it stays away."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return open_store()
        except UserError:
            if time.monotonic() > deadline:
                raise
        time.sleep(_PAUSE)

"""Which MLflow store and experiment keep the runs, as ``conf/tracking`` describes them."""

import functools
import multiprocessing
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from src.support.errors import UserError, require
from src.tracking.journal import Entry
from src.tracking.masking import has_secret, mask
from src.tracking.outage import Store
from src.tracking.store import (
    check_database,
    check_server,
    database_file,
    database_uri,
    open_store,
)
from src.tracking.sync import close_left_open, left_open
from src.tracking.tracker import Tracker, system_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient

_IN_MEMORY = ("sqlite:", "sqlite://", "sqlite:///", "sqlite:///:memory:")
_VARIABLE = "MLFLOW_TRACKING_URI"


@dataclass(frozen=True)
class Tracking:
    """The MLflow store at ``uri`` and the experiment in it that keeps the runs.

    Without ``uri``, the store is a database in the outputs folder. With ``offline``, no store is
    used: ``python -m src.sync`` uploads the runs later. ``models`` says which runs of a sweep are
    logged as models, too.
    """

    uri: str | None = field(repr=False)
    experiment: str
    models: Literal["best", "all"] = "best"
    offline: bool = False

    def __post_init__(self) -> None:
        require(self.experiment.strip() != "", "experiment", self.experiment, "must be a name")
        in_memory = self.uri in _IN_MEMORY
        require(not in_memory, "uri", self.uri, "must name a file: a database in memory is lost")
        typed = self.uri and self.uri != os.environ.get(_VARIABLE)
        if self.uri and typed and has_secret(self.uri):
            # A setting is stored with the run; the environment is not.
            rule = f"holds a password or token, which would be stored: set {_VARIABLE} instead"
            require(False, "uri", mask(self.uri), rule)

    def store(self, outputs: Path) -> str:
        """Return the URI of the store. It may hold a password: print ``mask`` of it only."""
        return self.uri or database_uri(outputs.absolute() / "mlflow.db")

    def open(self, outputs: Path) -> tuple["MlflowClient", str]:
        """Return a client of the store and the experiment's id, both created if they are new.

        Raises UserError if the store cannot be opened, or is not used.
        """
        if self.offline:
            raise UserError("tracking.offline=true: no MLflow store is used")
        return open_store(self.store(outputs), self.experiment, outputs)

    def check(self, outputs: Path) -> None:
        """Check that the store can be opened: a local database without MLflow, any other with it.

        Raises UserError if the store cannot be opened.
        """
        if self.offline:
            return
        store = self.store(outputs)
        if database_file(store):
            check_database(store, self.experiment)
        else:
            check_server(store)
            self.open(outputs)

    def start(
        self,
        outputs: Path,
        name: str,
        tags: Mapping[str, str],
        run_id: str | None = None,
        folder: Path | None = None,
    ) -> Tracker:
        """Return the tracker of a run, at once: the store is opened beside training.

        With ``run_id``, that run in MLflow goes on; otherwise a new one is created. The journal is
        kept in the run's ``folder``; without one, a store that fails loses what it was not told.
        """
        entry = Entry(
            experiment=self.experiment,
            store=mask(self.uri) if self.uri else None,
            outputs=str(outputs.absolute()),
            name=name,
            start=int(time.time() * 1000),
            tags={**system_tags(tags), **tags},
            run_id=run_id,
        )
        if self.offline:
            return Tracker(None, entry, folder)
        tracker = Tracker(_store(os.getpid(), self, outputs.absolute()), entry, folder)
        if multiprocessing.parent_process() is None:  # the process that a sweep's workers have
            tracker.when_open(lambda *_: _close_left_open(os.getpid(), outputs.absolute()))
        return tracker


@functools.cache
def _close_left_open(process: int, outputs: Path) -> None:
    """Close the runs that dead processes left open, once per process."""
    close_left_open(left_open(outputs))


@functools.cache
def _store(process: int, tracking: Tracking, outputs: Path) -> Store:
    """Return the state of a store, which all runs of a process share."""
    uri = tracking.store(outputs)
    return Store(lambda: tracking.open(outputs), mask(uri), local=database_file(uri) is not None)

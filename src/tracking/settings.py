"""Which MLflow store and experiment keep the runs, as ``conf/tracking`` describes them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from src.support.errors import require
from src.tracking.store import check_database, database_file, database_uri, open_store
from src.tracking.tracker import Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient

_IN_MEMORY = ("sqlite:", "sqlite://", "sqlite:///", "sqlite:///:memory:")


@dataclass(frozen=True)
class Tracking:
    """The MLflow store at ``uri`` and the experiment in it that keeps the runs.

    Without ``uri``, the store is a database in the outputs folder.
    """

    uri: str | None
    experiment: str

    def __post_init__(self) -> None:
        require(self.experiment.strip() != "", "experiment", self.experiment, "must be a name")
        in_memory = self.uri in _IN_MEMORY
        require(not in_memory, "uri", self.uri, "a database in memory would keep nothing")

    def store(self, outputs: Path) -> str:
        """Return the URI of the store."""
        return self.uri or database_uri(outputs.absolute() / "mlflow.db")

    def open(self, outputs: Path) -> tuple["MlflowClient", str]:
        """Return a client of the store and the experiment's id, both created if they are new.

        Raises UserError if the store cannot be opened.
        """
        return open_store(self.store(outputs), self.experiment, outputs)

    def check(self, outputs: Path) -> None:
        """Check that the store can be opened: a local database without MLflow, any other with it.

        Raises UserError if the store cannot be opened.
        """
        store = self.store(outputs)
        if database_file(store):
            check_database(store, self.experiment)
        else:
            self.open(outputs)

    def start(
        self, outputs: Path, name: str, tags: Mapping[str, str], run_id: str | None = None
    ) -> Tracker:
        """Return the tracker of a run, at once: the store is opened beside training.

        With the id of a run that the store holds, that run goes on; else it is a new one.
        """
        return Tracker(lambda: self.open(outputs), name, tags, run_id)

"""Which MLflow store and experiment hold the runs, as ``conf/tracking`` describes them."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from src.support.errors import require
from src.support.masking import has_secret, mask

_IN_MEMORY = ("sqlite:", "sqlite://", "sqlite:///", "sqlite:///:memory:")
_VARIABLE = "MLFLOW_TRACKING_URI"

# As for MLflow itself, an empty variable is one that is not set.
if os.environ.get("MLFLOW_EXPERIMENT_NAME") == "":
    del os.environ["MLFLOW_EXPERIMENT_NAME"]


@dataclass(frozen=True)
class Tracking:
    """The MLflow store at ``uri`` and the experiment in it that holds the runs.

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


def database_uri(path: Path) -> str:
    """Return the URI of a database file, for SQLAlchemy, which decodes percent signs."""
    return f"sqlite:///{str(path).replace('%', '%25').replace('?', '%3F')}"

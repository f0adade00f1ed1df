"""Finds a run that is kept in MLflow by its id, and adds to it after it has ended."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from src.support.errors import UserError
from src.tracking.store import database_file, quiet

if TYPE_CHECKING:
    from mlflow import MlflowClient


def require_store(
    store: str, advice: str = "--outputs names the folder that holds the run's mlflow.db"
) -> None:
    """Raise UserError if a store in a local file does not exist: to open it would create it."""
    database = database_file(store)
    if database is not None and not database.exists():
        raise UserError(f"there is no MLflow store {database}: {advice}")


def folder_of(client: "MlflowClient", run_id: str) -> Path:
    """Return the folder of the run with this id in MLflow.

    Raises UserError if the store holds no such run, or the folder of the run is gone.
    """
    from mlflow.exceptions import MlflowException

    try:
        with quiet():
            tags = client.get_run(run_id).data.tags
    except MlflowException:
        raise UserError(
            f"{run_id}: no run in the MLflow store has this id: "
            "--outputs names the folder of another store"
        ) from None
    folder = Path(tags.get("output_dir", ""))
    if "output_dir" not in tags or not folder.is_dir():
        raise UserError(
            f"{run_id}: the folder of this run, {folder}, is gone: if it was moved, give its path"
        )
    return folder


def add_files(
    client: "MlflowClient", run_id: str, paths: Sequence[Path], artifact_folder: str
) -> None:
    """Add files to a run in MLflow, under a folder of its artifacts.

    Raises UserError if the store refuses them.
    """
    from mlflow.exceptions import MlflowException

    try:
        with quiet():
            for path in paths:
                client.log_artifact(run_id, str(path), artifact_folder)
    except (MlflowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{run_id}: MLflow refuses files for this run: {reason}") from None

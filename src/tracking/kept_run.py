"""Finds a run that is kept in MLflow by its id, and adds to it after it has ended."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


def add_model(
    client: "MlflowClient", run_id: str, network: Mapping[str, Any], weights: Path
) -> bool:
    """Log the network of a run as a model; return False if it is one already.

    ``network`` is its description by ``model.describe``, ``weights`` the file of its parameters.
    Raises UserError if the store refuses it.
    """
    from mlflow.exceptions import MlflowException

    from src.tracking.model import find_model, log_model

    try:
        with quiet():
            run = client.get_run(run_id).info
            model = find_model(client, run.experiment_id, run_id)
            if model is not None and model.status == "READY":
                return False
            place = (run.experiment_id, run_id, str(run.run_name))
            known = model.model_id if model else None
            log_model(client, place, network, weights, known=known, know=lambda _: None)
    except (MlflowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{run_id}: MLflow refuses the model of this run: {reason}") from None
    return True

"""The private parts of MLflow that this project uses. Everything else that we use is public.

There is one test per function; when MLflow changes, it names what broke.
"""

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache


def create_database(uri: str, artifacts: str) -> None:
    """Create MLflow's tables in a new database, and close it.

    A client would keep its connection to the file open; we rename that file afterwards.
    """
    store = SqlAlchemyStore(uri, artifacts)  # type: ignore[no-untyped-call]
    store.engine.dispose()


def disconnect(client: MlflowClient) -> None:
    """Close the database connections of a client; its next call opens new ones.

    MLflow caches one store per URI for the whole process, so even a new client would reuse
    connections to a file that was deleted.
    """
    client._tracking_client.store.engine.dispose()


def remember_artifacts(client: MlflowClient, run: Run) -> None:
    """Let the client log files to a run without asking the store where the run keeps them."""
    uri = client._tracking_client.tracking_uri
    _artifact_repos_cache[run.info.run_id] = get_artifact_repository(
        run.info.artifact_uri, tracking_uri=uri
    )


def preload() -> None:
    """Import the modules that MLflow itself imports when it first opens a store or logs a run."""
    import mlflow.data.code_dataset_source
    import mlflow.data.numpy_dataset
    import mlflow.pyfunc
    import mlflow.store.artifact.local_artifact_repo  # noqa: F401

"""The private parts of MLflow that this project uses. Everything else that we use is public.

There is one test per function; when MLflow changes, it names what broke.
"""

from mlflow import MlflowClient
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore


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


def preload() -> None:
    """Import the modules that MLflow itself imports when it first opens a store or logs a run."""
    import mlflow.data.code_dataset_source
    import mlflow.data.numpy_dataset
    import mlflow.pyfunc
    import mlflow.store.artifact.local_artifact_repo  # noqa: F401

"""The private parts of MLflow that this project uses. Everything else that we use is public.

There is one test per function; when MLflow changes, it names what broke.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.tracking.dbmodels.models import SqlMetric
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache
from sqlalchemy import Engine, select

_RUNS_PER_QUERY = 500  # SQLite takes a limited number of values


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


def points_in_database(
    client: MlflowClient, run_ids: Sequence[str], keys: Sequence[str]
) -> Iterator[tuple[str, str, int, float]] | None:
    """Yield what runs logged of some metrics: the run's id, the key, the step and the value.

    The points of a metric come in the order in which they were logged. None if the client's store
    is not a database. MLflow's own calls read one metric of one run each, in 5 to 10 ms.
    """
    store = client._tracking_client.store
    if not isinstance(store, SqlAlchemyStore):
        return None
    return _points(store.engine, run_ids, keys)


def _points(
    engine: Engine, run_ids: Sequence[str], keys: Sequence[str]
) -> Iterator[tuple[str, str, int, float]]:
    columns: tuple[Any, ...] = (
        SqlMetric.run_uuid,
        SqlMetric.key,
        SqlMetric.step,
        SqlMetric.value,
        SqlMetric.is_nan,
    )
    with engine.connect() as connection:
        for first in range(0, len(run_ids), _RUNS_PER_QUERY):
            wanted = (
                select(*columns)
                .where(SqlMetric.run_uuid.in_(run_ids[first : first + _RUNS_PER_QUERY]))
                .where(SqlMetric.key.in_(keys))
                .order_by(SqlMetric.timestamp, SqlMetric.step, SqlMetric.value)
            )
            for run_id, key, step, value, is_nan in connection.execute(wanted):
                yield run_id, key, step, math.nan if is_nan else value


def preload() -> None:
    """Import the modules that MLflow itself imports when it first opens a store or logs a run."""
    import mlflow.data.code_dataset_source
    import mlflow.data.numpy_dataset
    import mlflow.pyfunc
    import mlflow.store.artifact.local_artifact_repo  # noqa: F401

"""Finds runs in MLflow by a filter, with what MLflow keeps of each, and reads their curves."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from src.support.errors import UserError
from src.tracking.errors import one_line
from src.tracking.store import quiet

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

_PER_PAGE = 1000
_THREADS = 8  # read curves at the same time: a server answers each call after some milliseconds
KIND = "kind"  # the tag of runs that are no trainings
SWEEP = "sweep"  # its value for the summary of a sweep

Point = tuple[str, str, int, float]  # the run's id, the key, the step and the value
Curve = dict[int, float]  # values by their steps


@dataclass(frozen=True)
class FoundRun:
    """A run as MLflow has it."""

    run_id: str
    experiment_id: str
    name: str
    status: str
    start: int  # milliseconds since 1970
    seconds: float | None
    parameters: Mapping[str, str]
    metrics: Mapping[str, float]  # the last value of each
    tags: Mapping[str, str]
    files: Path | None  # the folder of its artifacts, if it is on this computer


class Search:
    """Finds runs of one experiment, and reads their curves."""

    def __init__(self, client: "MlflowClient", experiment_id: str) -> None:
        self._client, self._experiment_id = client, experiment_id

    def runs(self, search_filter: str = "") -> list[FoundRun]:
        """Return the runs that a filter finds, the oldest first.

        The filter is in MLflow's own grammar; an empty one finds all. Summaries of sweeps are left
        out. Raises UserError if MLflow refuses the filter.
        """
        from mlflow.exceptions import MlflowException

        try:
            with quiet():
                found = list(_pages(self._client, self._experiment_id, search_filter))
        except MlflowException as error:
            raise UserError(
                f"--filter {search_filter}: MLflow refuses it: {one_line(error)}; "
                "write it as in \"params.model = 'relu2' and metrics.`val/accuracy` > 0.9\""
            ) from None
        return [_found(run) for run in found if KIND not in run.data.tags]

    def curves(self, wanted: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Curve]]:
        """Return by each run's id its curves by their keys, given the keys that are wanted of it.

        A metric that was logged once, at step 0, is no curve: it is left out.
        """
        found: dict[str, dict[str, Curve]] = {run_id: {} for run_id in wanted}
        for run_id, key, step, value in self._points(wanted):
            if key in wanted[run_id]:
                found[run_id].setdefault(key, {})[step] = value
        return {
            run_id: {key: curve for key, curve in own.items() if curve.keys() - {0}}
            for run_id, own in found.items()
        }

    def _points(self, wanted: Mapping[str, Sequence[str]]) -> Iterator[Point]:
        """Yield the points of metrics, those of each in the order in which they were logged."""
        from src.tracking.mlflow_internals import points_in_database

        keys = dict.fromkeys(key for own in wanted.values() for key in own)
        points = points_in_database(self._client, list(wanted), list(keys))
        return self._points_of_server(wanted) if points is None else points

    def _points_of_server(self, wanted: Mapping[str, Sequence[str]]) -> Iterator[Point]:
        def read(pair: tuple[str, str]) -> "list[Metric]":
            with quiet():
                return self._client.get_metric_history(*pair)

        pairs = [(run_id, key) for run_id, keys in wanted.items() for key in keys]
        with ThreadPoolExecutor(_THREADS) as threads:
            for (run_id, key), history in zip(pairs, threads.map(read, pairs), strict=True):
                for point in history:
                    yield run_id, key, point.step, point.value


def _pages(client: "MlflowClient", experiment_id: str, search_filter: str) -> "Iterator[Run]":
    token = None
    while True:
        page = client.search_runs(
            [experiment_id],
            search_filter,
            max_results=_PER_PAGE,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        yield from page
        token = page.token
        if not token:
            return


def _found(run: "Run") -> FoundRun:
    info, data = run.info, run.data
    seconds = None if info.end_time is None else (info.end_time - info.start_time) / 1000
    return FoundRun(
        info.run_id,
        info.experiment_id,
        info.run_name or info.run_id,
        info.status,
        info.start_time or 0,
        seconds,
        data.params,
        data.metrics,
        data.tags,
        _local(info.artifact_uri or ""),
    )


def _local(uri: str) -> Path | None:
    """Return the folder of artifacts that are files on this computer."""
    parts = urlsplit(uri)
    if parts.scheme not in ("", "file"):
        return None
    folder = Path(unquote(parts.path))
    return folder if folder.is_dir() else None

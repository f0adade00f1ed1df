"""Finds runs in MLflow by a filter, with what MLflow keeps of each, and reads their curves."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from src.support.errors import UserError
from src.tracking.outage import one_line
from src.tracking.store import quiet

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_PER_PAGE = 1000
_THREADS = 8  # read curves at the same time: a server answers each call after some milliseconds
KIND = "kind"  # the tag of runs that are no trainings
SWEEP = "sweep"  # its value for the summary of a sweep

Points = Sequence[tuple[int, float]]  # step and value


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

    def curves(self, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Points]:
        """Return the curve of each run's metric, given as pairs of a run's id and a key.

        A metric that was logged once, at step 0, is no curve: it has no points.
        """

        def read(pair: tuple[str, str]) -> Points:
            with quiet():
                history = self._client.get_metric_history(*pair)
            by_step = {point.step: point.value for point in history}
            return sorted(by_step.items()) if by_step.keys() - {0} else ()

        with ThreadPoolExecutor(_THREADS) as threads:
            return dict(zip(wanted, threads.map(read, wanted), strict=True))


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

"""Keeps a run in MLflow: its settings, its curves and its results.

Every call hands its work to the writer thread and returns at once. So a run begins to train while
MLflow, which takes seconds, is imported, and a slow server does not slow down the training.
"""

import getpass
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from src.data import Dataset
from src.nn.losses import Loss
from src.nn.network import MLP, Parameters
from src.tracking.view import comparison, sweep_filter, view_tag
from src.tracking.writer import writer

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

Status = Literal["FINISHED", "FAILED", "KILLED"]

_METRICS_PER_CALL, _PARAMETERS_PER_CALL = 1000, 100  # MLflow's limits
_PARAMETER_LENGTH, _TAG_LENGTH = 6000, 8000  # MLflow cuts longer ones
_ATTEMPTS = 5  # at what another process creates at the same moment


class Tracker:
    """One run in MLflow, from the constructor, which opens it, to ``close``.

    Several may be open at a time. Files are read later, when the writer reaches them: write them
    before you hand them over, and leave them as they are until the run is closed.

    An error of the store stops all further writing of the run. ``close`` raises it.
    """

    def __init__(
        self,
        open_store: Callable[[], tuple["MlflowClient", str]],
        name: str,
        tags: Mapping[str, str],
        run_id: str | None = None,
    ) -> None:
        self._writer = writer()
        self._error: Exception | None = None
        self._client: MlflowClient | None = None
        self._experiment_id = self._run_id = ""
        self._kept_parameters: Mapping[str, str] = {}
        self._name = name
        self._start = time.time()
        self._measured: deque[tuple[str, float, int, int]] = deque()

        def open_run() -> None:
            client, self._experiment_id = open_store()
            # All tags are there from the first moment, to find the run if its process dies.
            known = {**_system_tags(tags), **_cut_values(tags, _TAG_LENGTH)}
            run = (
                _run_again(client, run_id, known)
                if run_id
                else client.create_run(
                    self._experiment_id, self._milliseconds(0), known, run_name=name
                )
            )
            self._start = run.info.start_time / 1000
            self._kept_parameters = run.data.params
            self._client, self._run_id = client, run.info.run_id

        self._opening = self._writer.submit(lambda: self._attempt(open_run))

    def identity(self) -> tuple[str, str] | None:
        """Wait until the run is open; return the ids of its experiment and itself, or None."""
        self._opening.result()
        return (self._experiment_id, self._run_id) if self._run_id else None

    def when_open(self, hear: Callable[[str, str], None]) -> None:
        """Call ``hear`` with the ids of the run's experiment and of the run, once it is open.

        It is called in the writer's thread, and not at all if the store can't be opened.
        """

        def tell(_: Any) -> None:
            if self._run_id:
                hear(self._experiment_id, self._run_id)

        self._opening.add_done_callback(tell)

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Keep the settings of the run; those that the store has already stay as they are."""

        def log(client: "MlflowClient") -> None:
            new = {key: values[key] for key in values if key not in self._kept_parameters}
            _log_parameters(client, self._run_id, new)

        self._write(log)

    def metrics(self, values: Mapping[str, float], step: int, time: int) -> None:
        """Keep measurements made at a step; ``time`` is in milliseconds since 1970.

        Equal measurements with the same time are kept once, however often they are handed over.
        """
        self._measured.extend((key, value, time, step) for key, value in values.items())
        self._writer.plan(self._write_measured)

    def sweep(self, sweep_id: str, metric: str, varied: Sequence[str]) -> None:
        """Arrange the view of the run's sweep, whose runs differ in the parameters ``varied``.

        The best run by ``metric`` comes first.
        """
        view = comparison(sweep_filter(sweep_id), metric, varied)

        def arrange(client: "MlflowClient") -> None:
            client.set_experiment_tag(self._experiment_id, view_tag(sweep_id), view)

        self._write(arrange)

    def dataset(self, dataset: Dataset) -> None:
        """Keep what the run learns from: its name, its size and our digest of it."""
        self._write(lambda client: _log_dataset(client, self._run_id, dataset))

    def files(self, paths: Sequence[Path], folder: str | None = None) -> None:
        """Keep copies of files, in a folder if one is named."""

        def copy(client: "MlflowClient") -> None:
            for path in paths:
                client.log_artifact(self._run_id, str(path), folder)

        self._write(copy)

    def model(self, model: MLP, loss: Loss, dataset: Dataset, parameters: Parameters) -> None:
        """Keep the trained network as a model that can be served, under the run's name."""

        def log(client: "MlflowClient") -> None:
            from src.tracking.model import log_model

            log_model(
                client,
                self._experiment_id,
                self._run_id,
                self._name,
                model=model,
                loss=loss,
                dataset=dataset,
                parameters=parameters,
            )

        self._write(log)

    def close(self, status: Status, seconds: float, failure: str | None = None) -> None:
        """Give the run its status, when all is written, and wait for that.

        The run's end is ``seconds`` after its start. ``failure`` is kept as a tag.
        Raises the first error of the store since the run was opened.
        """
        self._writer.submit(lambda: self._end(status, seconds, failure)).result()
        if self._error:
            raise self._error

    def _write(self, write: Callable[["MlflowClient"], None]) -> None:
        """Hand work to the writer, to be done unless the store has failed before."""

        def work() -> None:
            if self._client and not self._error:
                write(self._client)

        self._writer.submit(lambda: self._attempt(work))

    def _attempt(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self._error = self._error or error

    def _write_measured(self) -> None:
        self._attempt(self._log_measured)

    def _log_measured(self) -> None:
        while self._measured and self._client and not self._error:
            from mlflow.entities import Metric

            size = min(len(self._measured), _METRICS_PER_CALL)
            batch = [Metric(*self._measured.popleft()) for _ in range(size)]
            self._client.log_batch(self._run_id, metrics=batch)

    def _end(self, status: Status, seconds: float, failure: str | None) -> None:
        self._write_measured()
        client, end = self._client, self._milliseconds(seconds)
        if client is None:
            return
        if self._error and status == "FINISHED":
            status, failure = "FAILED", f"MLflow's store failed: {self._error}"

        def terminate() -> None:
            if failure:
                client.set_tag(self._run_id, "failure", _cut(failure, _TAG_LENGTH))
            client.set_terminated(self._run_id, status, end)

        self._attempt(terminate)

    def _milliseconds(self, seconds: float) -> int:
        """Return the time that the run's own clock shows after so many seconds, as MLflow keeps it.

        The clock of a run in a stack counts its share of the time, so that durations compare.
        """
        return int((self._start + seconds) * 1000)


def _run_again(client: "MlflowClient", run_id: str, tags: Mapping[str, str]) -> "Run":
    """Let a run of the store go on: it is running again, and its tags are those of now."""
    from mlflow.entities import RunTag

    run = client.get_run(run_id)
    client.update_run(run_id, status="RUNNING")
    if "failure" in run.data.tags:
        client.delete_tag(run_id, "failure")
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
    return run


def ending(error: BaseException) -> tuple[Status, str]:
    """Return the status of a run that an exception ended, and the reason in words."""
    if isinstance(error, KeyboardInterrupt):
        return "KILLED", "interrupted"
    if isinstance(error, SystemExit):
        return "KILLED", "terminated"
    return "FAILED", str(error) or type(error).__name__


def _system_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags that MLflow's UI shows as user, source and version; a client sets none."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # in a container, the user may have no name
        user = "unknown"
    known = {
        "mlflow.user": user,
        "mlflow.source.name": sys.argv[0],
        "mlflow.source.type": "LOCAL",
    }
    if "git.commit" in tags:
        known["mlflow.source.git.commit"] = tags["git.commit"]
    return known


def _log_parameters(client: "MlflowClient", run_id: str, values: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    texts = _cut_values({key: str(value) for key, value in values.items()}, _PARAMETER_LENGTH)
    params = [Param(key, text) for key, text in texts.items()]
    for start in range(0, len(params), _PARAMETERS_PER_CALL):
        client.log_batch(run_id, params=params[start : start + _PARAMETERS_PER_CALL])


def _log_dataset(client: "MlflowClient", run_id: str, dataset: Dataset) -> None:
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.numpy_dataset import from_numpy
    from mlflow.entities import Dataset as DatasetEntity
    from mlflow.entities import DatasetInput, InputTag

    source = CodeDatasetSource(tags={"description": str(dataset)})
    train = dataset.train
    known = from_numpy(train.images, source, train.labels, dataset.name, dataset.digest)
    entity = DatasetEntity(**known.to_dict())
    used = [DatasetInput(entity, [InputTag("mlflow.data.context", "training")])]
    _together_with_others(lambda: client.log_inputs(run_id, used))


def _together_with_others(create: Callable[[], None]) -> None:
    """Call ``create`` again if another process created the same row at the same moment.

    MLflow looks for the row first and inserts it in a second step.
    """
    from mlflow import MlflowException

    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return create()
        except MlflowException as error:
            if attempt == _ATTEMPTS or "unique constraint" not in str(error).lower():
                raise
            time.sleep(0.01 * attempt)
    return None


def _cut_values(texts: Mapping[str, str], length: int) -> dict[str, str]:
    return {key: _cut(text, length) for key, text in texts.items()}


def _cut(text: str, length: int) -> str:
    """Return a text cut to the length that MLflow allows, with an ellipsis where it was cut."""
    return text if len(text) <= length else text[: length - 1] + "…"

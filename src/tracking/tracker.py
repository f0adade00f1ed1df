"""Keeps a run: what it was given, how it went and what came of it. MLflow is imported once a run begins: it takes seconds."""

import contextlib
import json
import math
import shutil
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from src.data import Dataset
from src.nn.losses import Loss
from src.nn.network import MLP, Parameters
from src.nn.weights import save_weights
from src.support.errors import require
from src.support.serialization import to_plain
from src.support.signals import held
from src.tracking.store import check_database, database_file, open_store, quiet, tracking_uri
from src.tracking.view import comparison, sweep_filter, view_tag

if TYPE_CHECKING:
    from mlflow import MlflowClient

Status = Literal["FINISHED", "FAILED", "KILLED"]

_METRICS_A_CALL, _PARAMETERS_A_CALL = 1000, 100  # MLflow's limits
_PARAMETER_LENGTH, _TAG_LENGTH = 6000, 8000
_WRITING = (
    0.01  # of the time at most, while training goes on; the rest is written when it has ended
)
_AT_FIRST = (
    2.0  # seconds without: the first call of a process takes longest, and short runs are soon done
)
_TURN_SECONDS = 1e-4  # after so long another thread may go on


@dataclass(frozen=True)
class Tracking:
    """Which MLflow store keeps the runs, and in which of its experiments. Without ``uri``, a database under the outputs."""

    uri: str | None
    experiment: str

    def __post_init__(self) -> None:
        require(self.experiment.strip() != "", "experiment", self.experiment, "must be a name")
        in_memory = self.uri in ("sqlite://", "sqlite:///", "sqlite:///:memory:")
        require(not in_memory, "uri", self.uri, "a database in memory would keep nothing")

    def open(self, outputs: Path) -> tuple["MlflowClient", str]:
        """Return a client of the store and the experiment's id. Raises UserError where the store can't be had."""
        return open_store(self.store(outputs), self.experiment, outputs)

    def store(self, outputs: Path) -> str:
        """Return the URI of the store."""
        return self.uri or f"sqlite:///{outputs.absolute() / 'mlflow.db'}"

    def check(self, outputs: Path) -> None:
        """Find out whether the store can be had: of a local database at once, of another by opening it.

        Raises UserError where it can't.
        """
        store = self.store(outputs)
        if database_file(store):
            check_database(store, self.experiment)
        else:
            self.open(outputs)

    @contextlib.contextmanager
    def start(self, outputs: Path, name: str, tags: Mapping[str, str]) -> Iterator["Tracker"]:
        """Open a run, and close it with the status that its end deserves. Several may be open at a time.

        Where MLflow is still to be imported that happens beside the block, which need not wait for it.
        An exception makes the run FAILED and its message the tag ``failure``; Ctrl-C or a termination makes it KILLED.
        """

        def open_run() -> _OpenRun:
            client, experiment_id = self.open(outputs)
            from mlflow.tracking.context.registry import resolve_tags

            with quiet():
                # MLflow's own tags: the user and the command. Ours are there from the first moment, so that whoever
                # closes what a dead process left open can find it.
                known = {
                    **resolve_tags(),
                    **{key: _cut(value, _TAG_LENGTH) for key, value in tags.items()},
                }
                run = client.create_run(experiment_id, run_name=name, tags=known)
            return _OpenRun(client, run.info.run_id, experiment_id, self.store(outputs))

        tracker = Tracker(_at_once(open_run) if "mlflow" in sys.modules else _beside(open_run))
        status: Status = "FINISHED"
        try:
            yield tracker
        except BaseException as error:
            status, reason = ending(error)
            tracker.tags({"failure": reason})
            raise
        finally:
            tracker.close(status)


class Tracker:
    """A run's side of MLflow: whatever is to be kept before the run is open there waits until it is.

    Each method may raise UserError, where it turns out that the store can't be opened.
    """

    def __init__(self, opening: Future["_OpenRun"]):
        self._opening = opening
        self._waiting: deque[Callable[[_OpenRun], None]] = deque()

    def identity(self) -> tuple[str, str]:
        """Return the ids of the experiment and of the run."""
        run = self._opening.result()
        return run.experiment_id, run.run_id

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Keep what the run was configured with."""
        self._write(lambda run: run.parameters(values))

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Keep measurements made at a step."""
        now = int(time.time() * 1000)
        measured = [(key, value, now, step) for key, value in values.items()]
        self._write(lambda run: run.metrics(measured))

    def tags(self, values: Mapping[str, str]) -> None:
        """Keep facts to find the run by."""
        self._write(lambda run: run.tags(values))

    def sweep(self, sweep_id: str, metric: str, varied: Sequence[str]) -> None:
        """Arrange the view of the run's sweep, whose runs differ in the parameters ``varied`` and rank by ``metric``."""
        self._write(lambda run: run.sweep(sweep_id, metric, varied))

    def dataset(self, dataset: Dataset) -> None:
        """Keep what the run learned from: its name, its sizes and our digest of it."""
        self._write(lambda run: run.dataset(dataset))

    def files(self, paths: Sequence[Path], folder: str | None = None) -> None:
        """Keep files, under a folder if one is named."""
        self._write(lambda run: run.files(paths, folder))

    def model(self, model: MLP, loss: Loss, dataset: Dataset, parameters: Parameters) -> None:
        """Keep the trained network in a form that can be loaded and served, its weights without pickle."""
        self._write(lambda run: run.model(model, loss, dataset, parameters))

    def close(self, status: Status) -> None:
        """Give the run its status, when all is kept."""
        self._opening.result()
        self._write(lambda run: run.close(status))

    def _write(self, call: Callable[["_OpenRun"], None]) -> None:
        self._waiting.append(call)
        if self._opening.done():
            run = self._opening.result()
            with held():  # a transaction that is broken off would leave the database locked
                while self._waiting:
                    self._waiting.popleft()(run)


class _Pace:
    """Keeps the writing of metrics to a small share of a process's time, however many runs there are to write."""

    def __init__(self) -> None:
        self._next = math.nan  # until somebody asks

    def allows(self) -> bool:
        now = time.monotonic()
        if math.isnan(self._next):
            self._next = now + _AT_FIRST
        return now >= self._next

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        start = time.monotonic()
        yield
        end = time.monotonic()
        self._next = end + (end - start) / _WRITING


_pace = _Pace()


class _OpenRun:
    """Writes a run that is open to MLflow, its metrics in batches: one by one they would cost more than the training."""

    def __init__(self, client: "MlflowClient", run_id: str, experiment_id: str, store: str):
        self._client, self.run_id, self.experiment_id, self._store = (
            client,
            run_id,
            experiment_id,
            store,
        )
        self._waiting: list[tuple[str, float, int, int]] = []

    def close(self, status: Status) -> None:
        self.flush()
        self._client.set_terminated(self.run_id, status)

    def parameters(self, values: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(key, _cut(str(value), _PARAMETER_LENGTH)) for key, value in values.items()]
        for start in range(0, len(params), _PARAMETERS_A_CALL):
            self._client.log_batch(self.run_id, params=params[start : start + _PARAMETERS_A_CALL])

    def metrics(self, measured: Sequence[tuple[str, float, int, int]]) -> None:
        """Keep measurements by key, value, time in ms and step; they are written within seconds, together with others."""
        self._waiting += measured
        if _pace.allows():
            self._write_some()

    def flush(self) -> None:
        """Write the metrics that wait."""
        while self._waiting:
            self._write_some()

    def _write_some(self) -> None:
        from mlflow.entities import Metric

        with _pace.writing():
            batch = [Metric(*fields) for fields in self._waiting[:_METRICS_A_CALL]]
            self._client.log_batch(self.run_id, metrics=batch)
            del self._waiting[:_METRICS_A_CALL]

    def tags(self, values: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        self._client.log_batch(
            self.run_id,
            tags=[RunTag(key, _cut(value, _TAG_LENGTH)) for key, value in values.items()],
        )

    def sweep(self, sweep_id: str, metric: str, varied: Sequence[str]) -> None:
        view = comparison(sweep_filter(sweep_id), metric, varied)
        self._client.set_experiment_tag(self.experiment_id, view_tag(sweep_id), view)

    def dataset(self, dataset: Dataset) -> None:
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.numpy_dataset import from_numpy
        from mlflow.entities import DatasetInput, InputTag

        source = CodeDatasetSource(tags={"description": str(dataset)})
        train = dataset.train
        known = from_numpy(train.images, source, train.labels, dataset.name, dataset.digest)
        given = DatasetInput(
            known._to_mlflow_entity(), [InputTag("mlflow.data.context", "training")]
        )
        self._client.log_inputs(self.run_id, [given])

    def files(self, paths: Sequence[Path], folder: str | None = None) -> None:
        for path in paths:
            self._client.log_artifact(self.run_id, str(path), folder)

    def model(self, model: MLP, loss: Loss, dataset: Dataset, parameters: Parameters) -> None:
        import mlflow
        import numpy as np
        from mlflow.models import Model, ModelSignature
        from mlflow.types import Schema, TensorSpec

        dtype = next(p.dtype for layer in parameters for p in layer)
        signature = ModelSignature(
            inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, dataset.features))]),
            outputs=Schema(
                [
                    TensorSpec(np.dtype(np.int64), (-1,), "label"),
                    TensorSpec(dtype, (-1, model.outputs), "probabilities"),
                ]
            ),
        )
        source = Path(__file__).parent.parent
        with tempfile.TemporaryDirectory() as scratch:
            settings, weights, code = (
                Path(scratch, "network.json"),
                Path(scratch, "weights.npz"),
                Path(scratch, "src"),
            )
            described = {
                "model": to_plain(model),
                "loss": to_plain(loss),
                "scale": dataset.scale,
                "dtype": dtype.name,
            }
            settings.write_text(json.dumps(described, indent=2), encoding="utf-8")
            save_weights(weights, model.layers, parameters)
            for package in ("nn", "support"):  # all that the served model imports
                shutil.copytree(
                    source / package, code / package, ignore=shutil.ignore_patterns("__pycache__")
                )
            shutil.copy(source / "__init__.py", code)
            with quiet(), tracking_uri(self._store):
                made = self._client.create_logged_model(
                    self.experiment_id, "model", source_run_id=self.run_id
                )
                Model.log(  # what mlflow.pyfunc.log_model calls, for a run that need not be the active one
                    None,
                    mlflow.pyfunc,
                    run_id=self.run_id,
                    model_id=made.model_id,
                    python_model=str(source / "tracking" / "served_model.py"),
                    artifacts={"network": str(settings), "weights": str(weights)},
                    code_paths=[str(code)],
                    pip_requirements=[f"mlflow=={mlflow.__version__}", f"numpy=={np.__version__}"],
                    signature=signature,
                )


def _at_once(call: Callable[[], _OpenRun]) -> Future[_OpenRun]:
    done: Future[_OpenRun] = Future()
    with held():
        done.set_result(call())
    return done


def _beside(call: Callable[[], _OpenRun]) -> Future[_OpenRun]:
    """Call in a thread; until it has returned, threads take turns more often."""
    result: Future[_OpenRun] = Future()

    def work() -> None:
        interval = sys.getswitchinterval()
        # Training gives its turn away in every call of NumPy, and an import keeps it for the whole interval.
        sys.setswitchinterval(_TURN_SECONDS)
        try:
            result.set_result(call())
        except BaseException as error:
            result.set_exception(error)
        finally:
            sys.setswitchinterval(interval)

    threading.Thread(target=work, daemon=True).start()
    return result


def ending(error: BaseException) -> tuple[Status, str]:
    """Return the status that a run deserves which an exception ended, and the reason in words."""
    if isinstance(error, KeyboardInterrupt):
        return "KILLED", "interrupted"
    if isinstance(error, SystemExit):
        return "KILLED", "terminated"
    return "FAILED", str(error) or type(error).__name__


def _cut(text: str, length: int) -> str:
    """Cut where MLflow would, but visibly."""
    return text if len(text) <= length else text[: length - 1] + "…"

"""Writes a run's journal to MLflow, part by part; a part that is written again changes nothing."""

import contextlib
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from src.data import Dataset
from src.support.temporary import scratch_folder
from src.tracking.journal import HISTORY, Journal, Point, cut, note_ids
from src.tracking.outage import is_local, one_line, refuses

if TYPE_CHECKING:
    from mlflow import MlflowClient

_METRICS_PER_CALL, _PARAMETERS_PER_CALL = 1000, 100  # MLflow's limits
_TAG_LENGTH = 8000  # MLflow cuts longer ones
_ATTEMPTS = 5  # at what another process creates at the same moment
# Files that grow while the run trains. A server refuses one that grows while it is sent, and what
# comes after it through the same connection.
_GROWING = (".csv", ".log")
_EVERY_EPOCH = "updates"  # a metric that each epoch has
_KEY = "journal"  # the tag by which a run is found whose creation was not confirmed

# The views that this process has arranged by each client: the runs of a sweep share them.
_arranged: MutableMapping["MlflowClient", set[tuple[str | None, str, str]]] = WeakKeyDictionary()


class Upload:
    """What MLflow does not have of a run. Its methods are called in one thread, but for ``add``."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._refused: dict[str, str] = {}  # the reasons by part
        self._put_off: dict[str, str] = {}  # of parts that are tried again, such as on a full disk
        self._refusals = 0  # of the next points, so far
        self._kept: Mapping[str, str] = {}  # parameters that an earlier process gave the run
        self.stopped = False  # set by another thread: the journal is given up
        self.renewals: Counter[str] = Counter()  # how often a file was handed over again
        # On disk there may be rows of an earlier process that MLflow was never told.
        self._points: deque[Point] = deque([*journal.rows(), *journal.entry.points])
        self._known: frozenset[int] = frozenset()  # epochs that MLflow has from an earlier process

    def add(self, points: list[Point]) -> None:
        """Add points of one step, which are on disk already."""
        self._points.extend(points)

    @property
    def lacking(self) -> str:
        """What MLflow does not take, with the reasons; empty if it takes everything."""
        parts = {**self._refused, **self._put_off}
        return "; ".join(f"{part}: {reason}" for part, reason in parts.items())

    @property
    def complete(self) -> bool:
        """Whether the run is closed in MLflow, and MLflow has all that it takes at present."""
        return self.journal.entry.status is not None and not (
            self._points
            or any(self._owed(part) for part, _ in self._parts() if part not in self._put_off)
        )

    def advance(
        self,
        client: "MlflowClient",
        experiment_id: str,
        heard: Callable[[], None],
        *,
        points: bool = True,
    ) -> None:
        """Write what MLflow does not have yet; call ``heard`` after each answer.

        Without ``points``, those of a run that goes on wait: MLflow takes two transactions for
        them, however few they are. Raises the error of a store that fails. What the store refuses
        is noted and left out. A file that can't be written is tried again by the next call.
        """
        if self.stopped:
            return
        if self.journal.owes("run"):
            if not self._attempt("run", lambda: self._open(client, experiment_id)):
                return
            heard()
        is_killed = self.journal.entry.status == "KILLED" and self._owed("end")
        if is_killed and not self._history_is_owed:
            # The process must end within seconds: nobody may find the run RUNNING for ever. But
            # one that goes on elsewhere from its history does so as soon as it is closed.
            self._attempt("end", lambda: self._end(client))
            heard()
        points = points or self.journal.entry.status is not None
        if points:
            self._write_points(client, heard)
        for part, write in self._parts():
            if self.stopped:
                return
            if part == "end":
                self._write_points(client, heard)
            if self._owed(part) and self._attempt(part, lambda write=write: write(client)):  # type: ignore[misc]
                heard()
        if points:
            self._write_points(client, heard)
        if self.complete and not self.lacking:
            entry = self.journal.entry
            # The process may die before it writes them itself, and nobody looks again.
            ids = {"experiment_id": entry.experiment_id, "run_id": entry.run_id}
            note_ids(self.journal.folder, ids)
            self.journal.remove()

    def _owed(self, part: str) -> bool:
        return self.journal.owes(part) and part not in self._refused

    def _attempt(self, part: str, write: Callable[[], None]) -> bool:
        """Write a part, and return whether MLflow has it."""
        before = self.renewals[part]
        try:
            write()
        except Exception as error:
            if refuses(error):
                self._refused[part] = one_line(error)
            elif part != "run" and is_local(error):
                self._put_off[part] = one_line(error)
            else:
                raise
            return False
        self._put_off.pop(part, None)
        # On a full disk the journal stays as it was: the next process writes the part again.
        with contextlib.suppress(OSError), self.journal.change() as entry:
            if self.renewals[part] != before:  # MLflow may have what the file was before
                return False
            entry.written.append(part)
        return True

    def _parts(self) -> Iterator[tuple[str, Callable[["MlflowClient"], None]]]:
        """Yield the name of each part that is known so far, and the function that writes it."""
        entry = self.journal.entry
        if entry.parameters:
            yield "parameters", self._log_parameters
        if entry.sweep:
            yield "sweep", self._log_sweep
        if entry.dataset:
            yield "dataset", lambda client: _log_dataset(client, self._id, entry.dataset or {})
        for file, folder in list(entry.files):
            yield (
                f"file {folder or ''}/{file}",
                lambda client, file=file, folder=folder: self._log_file(client, file, folder),  # type: ignore[misc]
            )
        if entry.model:
            yield "model", self._log_model
        if entry.status:
            yield "end", self._end

    @property
    def _id(self) -> str:
        assert self.journal.entry.run_id
        return self.journal.entry.run_id

    def _open(self, client: "MlflowClient", experiment_id: str) -> None:
        """Create the run, find the one whose creation was not confirmed, or go on with a run."""
        from src.tracking.mlflow_internals import remember_artifacts

        entry = self.journal.entry
        tags = {key: cut(value, _TAG_LENGTH) for key, value in entry.tags.items()}
        if entry.run_id is None and not self.journal.owes("attempt"):
            wanted = f"tags.`{_KEY}` = '{entry.key}'"
            found = client.search_runs([experiment_id], wanted, max_results=1)
            if found:
                self._know(found[0].info.run_id, experiment_id)
                return
        if entry.run_id is None:
            self.journal.mark("attempt")
            run = client.create_run(
                experiment_id, entry.start, {**tags, _KEY: entry.key}, run_name=entry.name
            )
            self._know(run.info.run_id, experiment_id)
            remember_artifacts(client, run)
            return
        run = client.get_run(entry.run_id)
        client.update_run(entry.run_id, status="RUNNING")
        for key, value in tags.items():
            if run.data.tags.get(key) != value:
                client.set_tag(entry.run_id, key, value)
        for ended in ("failure", "pruned"):
            if ended in run.data.tags:
                client.delete_tag(entry.run_id, ended)
        self._kept = run.data.params
        self._known = _epochs(client, entry.run_id)
        with self.journal.change():
            shift = run.info.start_time - entry.start
            entry.start += shift
            entry.end = None if entry.end is None else entry.end + shift
        self._know(entry.run_id, run.info.experiment_id)

    def _know(self, run_id: str, experiment_id: str) -> None:
        with self.journal.change() as entry:
            entry.run_id, entry.experiment_id = run_id, experiment_id

    @property
    def _history_is_owed(self) -> bool:
        """Whether MLflow is to have the history before the points in it.

        A run that goes on from that file would otherwise give the points a second time.
        """
        files = [file for file, _ in self.journal.entry.files]
        part = f"file /{HISTORY}"
        # If the file can't be written now, the points still can.
        return HISTORY in files and self._owed(part) and part not in self._put_off

    def _write_points(self, client: "MlflowClient", heard: Callable[[], None]) -> None:
        # What is taken is counted first: its history was handed over before it.
        while (size := self._next_points()) and not (self.stopped or self._history_is_owed):
            from mlflow.entities import Metric

            batch = [Metric(*self._points[i]) for i in range(size)]
            try:
                client.log_batch(self._id, metrics=batch)
            except Exception as error:
                self._refusals += 1
                if not refuses(error) or self._refusals < _ATTEMPTS:
                    raise  # it is tried again: a batch holds many epochs
                self._refused["metrics"] = one_line(error)
            self._refusals = 0
            for _ in range(size):  # only now: after a failure, they are written again
                self._points.popleft()
            heard()

    def _next_points(self) -> int:
        """Return how many points to write next: as many whole epochs as MLflow takes at a time.

        Leaves out the epochs that MLflow has. One that was computed again may have other times,
        with which MLflow would keep it twice. Another thread adds points on the right.
        """
        points = self._points
        while points and points[0][3] in self._known:
            points.popleft()
        size = min(len(points), _METRICS_PER_CALL)
        known = next((i for i in range(size) if points[i][3] in self._known), None)
        if known is not None:
            return known
        whole = size
        if size < len(points):
            while whole and points[whole - 1][3] == points[size][3]:
                whole -= 1
        return whole or size

    def _log_parameters(self, client: "MlflowClient") -> None:
        values = self.journal.entry.parameters
        new = {key: text for key, text in values.items() if key not in self._kept}
        _log_parameters(client, self._id, new)

    def _log_sweep(self, client: "MlflowClient") -> None:
        entry = self.journal.entry
        arranged = _arranged.setdefault(client, set())
        for key, value in entry.sweep.items():
            if (view := (entry.experiment_id, key, value)) not in arranged:
                client.set_experiment_tag(str(entry.experiment_id), key, value)
                arranged.add(view)

    def _log_file(self, client: "MlflowClient", file: str, folder: str | None) -> None:
        path = self.journal.path(file)
        if not path.exists():
            return
        if path.suffix not in _GROWING:
            client.log_artifact(self._id, str(path), folder)
            return
        with scratch_folder() as own:  # as it is now
            client.log_artifact(self._id, shutil.copy(path, own), folder)

    def _log_model(self, client: "MlflowClient") -> None:
        from src.tracking.model import log_model

        entry = self.journal.entry
        assert entry.model is not None
        assert entry.experiment_id is not None

        def know(model_id: str) -> None:
            with self.journal.change() as changed:
                changed.model_id = model_id

        weights = self.journal.path(entry.model["weights"])
        described = entry.model["network"]
        place = (entry.experiment_id, self._id, entry.name)
        log_model(client, place, described, weights, known=entry.model_id, know=know)

    def _end(self, client: "MlflowClient") -> None:
        entry = self.journal.entry
        if entry.failure:
            client.set_tag(self._id, "failure", cut(entry.failure, _TAG_LENGTH))
        if entry.pruned:
            client.set_tag(self._id, "pruned", cut(entry.pruned, _TAG_LENGTH))
        client.set_terminated(self._id, entry.status, entry.end)


def _epochs(client: "MlflowClient", run_id: str) -> frozenset[int]:
    """Return the epochs of a run that MLflow has.

    There may be gaps: what a process could not write, the next one writes.
    """
    known = client.get_metric_history(run_id, _EVERY_EPOCH)
    return frozenset(point.step for point in known)


def described(dataset: Dataset) -> dict[str, Any]:
    """Return what MLflow is told about a dataset."""
    train = dataset.train
    return {
        "name": dataset.name,
        "digest": dataset.digest,
        "description": str(dataset),
        "images": [str(train.images.dtype), list(train.images.shape)],
        "labels": [str(train.labels.dtype), list(train.labels.shape)],
    }


def _log_parameters(client: "MlflowClient", run_id: str, values: Mapping[str, str]) -> None:
    from mlflow.entities import Param

    params = [Param(key, text) for key, text in values.items()]
    for start in range(0, len(params), _PARAMETERS_PER_CALL):
        client.log_batch(run_id, params=params[start : start + _PARAMETERS_PER_CALL])


def _log_dataset(client: "MlflowClient", run_id: str, dataset: Mapping[str, Any]) -> None:
    import numpy as np
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.numpy_dataset import from_numpy
    from mlflow.entities import Dataset as DatasetEntity
    from mlflow.entities import DatasetInput, InputTag

    # MLflow reads the types and sizes of the arrays only: these take no memory.
    images, labels = (
        np.broadcast_to(np.zeros((), dtype), tuple(shape))
        for dtype, shape in (dataset["images"], dataset["labels"])
    )
    source = CodeDatasetSource(tags={"description": dataset["description"]})
    known = from_numpy(images, source, labels, dataset["name"], dataset["digest"])
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

"""Tells MLflow what it does not have of a run; what is told twice changes nothing."""

import contextlib
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.runs import folder as files_of_run
from src.runs.folder import CONFIGURATION, HISTORY, PICTURES, PREDICTIONS, RESULT, RUN, WEIGHTS
from src.runs.history import HistoryReader, Row
from src.runs.record import Record
from src.tracking.errors import is_gone, is_local, one_line, refuses
from src.tracking.model import log_model
from src.tracking.told import Told
from src.tracking.view import sweep_views

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow's limits.
_METRICS, _PARAMETERS, _PARAMETER_LENGTH, _TAG_LENGTH = 1000, 100, 6000, 8000
_FIRST = _METRICS - 2 * _PARAMETERS  # metrics that go together with as many parameters and tags
_ATTEMPTS = 5  # at what another process creates at the same moment
_KEY = "key"  # the tag by which a run is found whose creation was not confirmed
DIED = ("KILLED", "its process died")

File = tuple[str, str | None]  # the name in the run's folder, and the folder of artifacts
# What a run goes on from on another machine. The record comes last: with it, the others are there.
_TO_GO_ON: list[File] = [
    (name, None) for name in (HISTORY, files_of_run.CHECKPOINT, files_of_run.PREVIOUS, RUN)
]
_WHEN_ENDED: list[File] = [
    (CONFIGURATION, "config"),
    (HISTORY, None),
    (PREDICTIONS, None),
    *((picture, "pictures") for picture in PICTURES),
]
_WHEN_AWAY_ENDED: list[File] = [(WEIGHTS, None), ("run.log", None), (RESULT, None)]
_Point = tuple[str, float, int, int]  # key, value, time, step


class Upload:
    """A run on its way to MLflow: ``advance`` tells what is new in its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told = Told.load(folder)
        self.lacking: dict[str, str] = {}  # what MLflow does not have, with the reasons
        self._refused: set[str] = set()  # of that, what need not be tried again
        self.is_best = False  # whether it is the run of its sweep that is logged as a model
        self._told: list[list[int]] = []  # the signature of what MLflow has
        self._record: Record | None = None
        self._seen: object = None  # of the record on disk
        self._is_known = False  # whether MLflow's run was found in this process
        self._history = HistoryReader(folder / HISTORY)
        self._rows: list[Row] = []  # read, and not told yet
        self._last = 0  # the time of the last row
        self._has_finals = False  # whether MLflow has what is known when a run ends

    @property
    def record(self) -> Record:
        """The record on disk. Raises UserError if it is damaged."""
        seen = [state(self.folder, name) for name in (RESULT, RUN)]
        if self._record is None or seen != self._seen:
            self._record, self._seen = Record.load(self.folder), seen
        return self._record

    @property
    def is_complete(self) -> bool:
        """Whether MLflow has all that it takes at present of a run that has ended."""
        return self.told.status is not None and not self._owed() and not self._owes_model

    @property
    def has_ended(self) -> bool:
        """Whether the run has ended, as its folder says. Raises UserError if that is damaged."""
        return self.record.has_ended

    @property
    def views(self) -> dict[str, str]:
        """The views of the run's sweep, as tags of the experiment."""
        record = self.record
        if record.sweep_id is None or not record.varied:
            return {}
        differing = [name for name in record.varied if name in record.settings]
        return sweep_views(record.sweep_id, record.metric, differing)

    @property
    def has_news(self) -> bool:
        """Whether something is there that MLflow does not have and has not refused."""
        if self._signature() != self._told:
            return True
        return self.has_ended and not self.is_done and not self.lacking

    def _signature(self) -> list[list[int]]:
        """Return what changes whenever something new is in the folder."""
        names = (RUN, RESULT, HISTORY, files_of_run.CHECKPOINT)
        return [state(self.folder, name) for name in names]

    @property
    def is_done(self) -> bool:
        """Whether nothing can be told at present: MLflow has everything, or refuses the rest."""
        if {"run", "end"} & self._refused:
            return True
        owed = [name for name, _ in self._owed()]
        return self.told.status is not None and not self._owes_model and self._refused >= set(owed)

    def advance(
        self,
        client: "MlflowClient",
        experiment_id: str,
        died: tuple[str, str] | None = None,
        heard: Callable[[], None] = lambda: None,
    ) -> None:
        """Tell what MLflow does not have yet; call ``heard`` after each answer.

        A run whose process ``died`` is closed with that status and reason. What the store refuses
        is noted in ``lacking`` and left out. Raises the error of a store that fails, and UserError
        if the folder is damaged.
        """
        signature, record = self._signature(), self.record
        if self.told.key != record.key:  # it is missing, damaged or of another run
            self._forget(record, is_tried=self.told != Told())
        try:
            self._advance(client, experiment_id, record, died, heard)
        except Exception as error:
            if not is_gone(error):
                raise
            self._forget(record)  # the run was deleted, or the store is another one
            self._advance(client, experiment_id, record, died, heard)
        self._told = signature

    def _forget(self, record: Record, *, is_tried: bool = True) -> None:
        """Begin with a run that MLflow does not have: the folder has all that it needs."""
        self.told, self._is_known = Told(key=record.key, is_tried=is_tried), False
        self._history, self._rows = HistoryReader(self.folder / HISTORY), []
        self.lacking, self._refused = {}, set()

    def _advance(
        self,
        client: "MlflowClient",
        experiment_id: str,
        record: Record,
        died: tuple[str, str] | None,
        heard: Callable[[], None],
    ) -> None:
        if not self._is_known:
            if not self._attempt("run", lambda: self._open(client, experiment_id, record)):
                return
            self._is_known = True
            heard()
        if record.away_from is not None:
            self._log_files(client, _TO_GO_ON, heard)
        self._log(client, record, heard)
        if record.has_ended or died:
            self._log_files(client, self._files(record), heard)
            if self._owes_model and self._attempt("model", lambda: self._log_model(client, record)):
                heard()
            if self.told.status is None:
                self._attempt("end", lambda: self._end(client, record, died))
                heard()
            self.told.is_complete = self.is_complete and not self.lacking
            self._write()

    def _attempt(self, part: str, tell: Callable[[], object]) -> bool:
        """Tell a part and write down that MLflow has it; return whether it does."""
        if part in self._refused:
            return False
        try:
            tell()
        except Exception as error:
            if is_gone(error) or not (refuses(error) or (part != "run" and is_local(error))):
                raise
            self.lacking[part] = one_line(error)
            if refuses(error):
                self._refused.add(part)
            return False
        self.lacking.pop(part, None)
        self._write()
        return True

    def _write(self) -> None:
        with contextlib.suppress(OSError):  # a full disk: the next process tells it again
            self.told.write(self.folder)

    # --- the run ---

    def _open(self, client: "MlflowClient", experiment_id: str, record: Record) -> None:
        """Create the run, find the one whose creation was not confirmed, or go on with a run."""
        from src.tracking.mlflow_internals import remember_artifacts

        run = None if self.told.run_id is None else client.get_run(self.told.run_id)
        if run and (run.data.tags.get(_KEY) != record.key or run.info.lifecycle_stage == "deleted"):
            self._forget(record)
            run = None
        told = self.told
        if run is None and (told.is_tried or record.attempt > 1):
            wanted = f"tags.`{_KEY}` = '{record.key}'"
            run = next(iter(client.search_runs([experiment_id], wanted, max_results=1)), None)
        if run is None:
            told.is_tried = True
            told.write(self.folder)
            tags = self._tags(record)
            run = client.create_run(experiment_id, record.started, tags, run_name=record.name)
            remember_artifacts(client, run)
        told.run_id, told.experiment_id = run.info.run_id, run.info.experiment_id
        is_told = (told.attempt, told.status) == (record.attempt, record.status)
        if run.info.status != "RUNNING" and not is_told:  # it goes on, or went on
            client.update_run(told.run_id, status="RUNNING")
            for ended in ("failure", "pruned"):
                if ended in run.data.tags:
                    client.delete_tag(told.run_id, ended)
            told.status, told.is_complete = None, False

    def _tags(self, record: Record) -> dict[str, str]:
        """Return the tags of a run: the user's own, and what identifies it."""
        source, folder = record.source, self._place(record)
        tags = {
            **record.tags,
            "mlflow.note.content": record.note or _note(record, folder),
            "mlflow.user": source.get("user"),
            "mlflow.source.name": source.get("program"),
            "mlflow.source.type": "LOCAL",
            "mlflow.source.git.commit": source.get("git.commit"),
            "git.commit": source.get("git.commit"),
            "git.dirty": source.get("git.dirty"),
            "overrides": " ".join(record.overrides),
            "output_dir": folder,
            "config_digest": record.identity.config,
            "data_digest": record.identity.data,
            "code_digest": record.identity.code,
            "sizes": " ".join(f"{name}={size}" for name, size in record.sizes.items()),
            "sweep_id": record.sweep_id,
            "stack": " ".join(map(str, record.stack)) or None,
            "stack_position": None if record.stack_position is None else str(record.stack_position),
            _KEY: record.key,
        }
        if record.attempt > 1:  # MLflow has the parameters as they were
            tags |= {"attempt": str(record.attempt), "epochs": str(record.epochs)}
        return {name: cut(text) for name, text in tags.items() if text is not None}

    # --- settings and curves ---

    def _log(self, client: "MlflowClient", record: Record, heard: Callable[[], None]) -> None:
        """Tell the settings and the new rows of the history."""
        if self.told.attempt != record.attempt and "settings" not in self._refused:
            # What an earlier process has left may have been mended.
            self._history, self._rows = HistoryReader(self.folder / HISTORY), []
            self._log_settings(client, record)
            heard()
        self._read()
        while self._rows:
            size = max(1, _whole(self._rows, _METRICS))  # one epoch alone may take several calls
            points = [point for row in self._rows[:size] for point in _points(row)]
            if not self._log_points(client, points):
                return
            del self._rows[:size]
            self.told.epochs += size
            self._write()
            heard()

    def _read(self) -> None:
        """Read the rows that MLflow does not have."""
        known = self._history.epochs
        # Where the folder may be lost, MLflow has no epoch that its copy of the history lacks: one
        # that is trained again would otherwise come at two times.
        is_away = self.record.away_from is not None
        rows = self._history.more(self.told.files.get(HISTORY, [0])[0] if is_away else None)
        if rows:
            self._last = int(rows[-1]["time"])
        self._rows += rows[max(0, self.told.epochs - known) :]

    def _log_settings(self, client: "MlflowClient", record: Record) -> None:
        """Tell the settings of a run and its first epochs; its end, too, if that is all."""
        from mlflow.entities import Metric, Param, RunTag

        points: list[_Point] = []
        params: list[Param] = []
        dataset: Mapping[str, Any] = {}
        if not self.told.attempt:  # of a run that goes on, MLflow has them as they were
            points = [(key, value, record.started, 0) for key, value in record.first.items()]
            params = [
                Param(key, cut(text, _PARAMETER_LENGTH)) for key, text in record.settings.items()
            ]
            dataset = record.dataset
        tags = self._tags(record) if record.attempt > 1 else {}
        self._read()
        size = _whole(self._rows, _FIRST - len(points))
        points += [point for row in self._rows[:size] for point in _points(row)]
        self._has_finals = record.has_ended and size == len(self._rows)
        if self._has_finals:
            final_points, final_tags = self._finals(record)
            points += final_points
            tags |= final_tags

        def log() -> None:
            metrics = [Metric(*point) for point in points]
            told = [RunTag(*tag) for tag in tags.items()]
            client.log_batch(self._id, metrics[:_FIRST], params[:_PARAMETERS], told)
            for start in range(_PARAMETERS, len(params), _PARAMETERS):
                client.log_batch(self._id, params=params[start : start + _PARAMETERS])
            for start in range(_FIRST, len(metrics), _METRICS):
                client.log_batch(self._id, metrics[start : start + _METRICS])
            if dataset:
                _log_dataset(client, self._id, dataset)
            self.told.attempt = record.attempt
            self.told.epochs += size

        if self._attempt("settings", log):
            del self._rows[:size]
        else:
            self._has_finals = False

    def _log_points(self, client: "MlflowClient", points: Sequence[_Point]) -> bool:
        """Tell points; return whether MLflow has them."""
        from mlflow.entities import Metric

        metrics = [Metric(*point) for point in points]

        def log() -> None:
            for start in range(0, len(metrics), _METRICS):
                client.log_batch(self._id, metrics[start : start + _METRICS])

        return self._attempt("metrics", log)

    @property
    def _id(self) -> str:
        assert self.told.run_id
        return self.told.run_id

    # --- files and the end ---

    def _files(self, record: Record) -> list[File]:
        """Return the files that MLflow gets of a run that has ended."""
        if record.away_from is None:
            return _WHEN_ENDED
        return [*_WHEN_ENDED, *_TO_GO_ON, *_WHEN_AWAY_ENDED]

    def _owed(self) -> list[File]:
        """Return the files that MLflow does not have as they are."""
        return [file for file in self._files(self.record) if self._is_owed(file)]

    def _is_owed(self, file: File) -> bool:
        found = state(self.folder, file[0])
        return bool(found) and self.told.files.get(file[0]) != found

    def _log_files(
        self, client: "MlflowClient", files: Sequence[File], heard: Callable[[], None]
    ) -> None:
        for name, place in files:
            path = self.folder / name
            if not self._is_owed((name, place)):
                continue

            def log(path: Path = path, name: str = name, place: str | None = place) -> None:
                found = state(self.folder, name)
                client.log_artifact(self._id, str(path), place)
                self.told.files[name] = found

            if self._attempt(name, log):
                heard()

    @property
    def _owes_model(self) -> bool:
        record = self.record
        is_wanted = not record.sweep_id or record.models == "all" or self.is_best
        is_wanted |= record.away_from is not None  # the weights are on another machine
        has_weights = bool(state(self.folder, WEIGHTS))
        return (
            is_wanted
            and record.status == "FINISHED"
            and has_weights
            and not self.told.has_model
            and "model" not in self._refused
        )

    def _log_model(self, client: "MlflowClient", record: Record) -> None:
        place = (str(self.told.experiment_id), self._id, record.name)
        log_model(client, place, record.network, self.folder / WEIGHTS)
        self.told.has_model = True

    def _end(self, client: "MlflowClient", record: Record, died: tuple[str, str] | None) -> None:
        """Close the run, with its final scores."""
        from mlflow.entities import Metric, RunTag

        end = record.ended
        if not record.has_ended:
            assert died
            end = max(record.started, self._last)
            record = replace(record, status=died[0], failure=died[1])  # type: ignore[arg-type]
        points, tags = self._finals(record)
        if not self._has_finals and (points or tags):
            metrics = [Metric(*point) for point in points]
            client.log_batch(self._id, metrics, tags=[RunTag(*tag) for tag in tags.items()])
        # MLflow has no word for PRUNED.
        closed = "FINISHED" if record.status == "PRUNED" else record.status
        client.set_terminated(self._id, closed, end)
        self.told.status = record.status

    def _finals(self, record: Record) -> tuple[list[_Point], dict[str, str]]:
        """Return the points and the tags that are known when a run has ended."""
        at = max(record.started, self._last)
        # At step 0, since they belong to no epoch: MLflow draws them as bars with their values.
        points = [(key, value, at, 0) for key, value in _final_scores(record).items()]
        tags = {}
        if record.failure:
            tags["pruned" if record.status == "PRUNED" else "failure"] = record.failure
        if not record.note:
            tags["mlflow.note.content"] = _note(record, self._place(record))
        return points, {key: cut(text) for key, text in tags.items()}

    def _place(self, record: Record) -> str:
        return record.away_from or str(self.folder.absolute())


def _note(record: Record, folder: str) -> str:
    """Return a run's description: the command, the result in a sentence, and the folder."""
    lines = [f"`python -m src.run {' '.join(record.overrides)}`".replace(" `", "`")]
    if record.status == "FINISHED":
        lines.append(f"Finished with {record.metric} {record.value:.4f}.")
    elif record.has_ended:
        lines.append(f"{record.status.capitalize()}: {record.failure}.")
    return "\n\n".join([*lines, f"Folder: {folder}"])


def _final_scores(record: Record) -> dict[str, float]:
    """Return the final scores under the names that MLflow knows them by.

    MLflow's page of a run sorts its charts by these names: behind each set's curves, which lead.
    """
    if record.status != "FINISHED":
        return {}
    return {
        key if "/best/" in key else key.replace("/", "/final/"): value
        for key, value in record.metrics.items()
    }


def _points(row: Row) -> Iterator[_Point]:
    """Yield what was measured in an epoch."""
    step, at = int(row["epoch"]), int(row["time"])
    for key, value in row.items():
        if key not in ("epoch", "time"):
            yield key, value, at, step


def _whole(rows: Sequence[Row], most: int) -> int:
    """Return how many rows fit into a batch."""
    size, points = 0, 0
    while size < len(rows) and points + len(rows[size]) - 2 <= most:
        points += len(rows[size]) - 2
        size += 1
    return size


def state(folder: Path, name: str) -> list[int]:
    """Return the size and the time of a file in a folder; nothing of a link, or of a folder."""
    path = folder / name
    try:
        found = path.lstat()
    except OSError:
        return []
    is_ours = stat.S_ISREG(found.st_mode) and (
        path.parent == folder or not path.parent.is_symlink()
    )
    return [found.st_size, found.st_mtime_ns] if is_ours else []


def cut(text: str, length: int = _TAG_LENGTH) -> str:
    """Return a text cut to the length that MLflow allows, with an ellipsis where it was cut."""
    return text if len(text) <= length else text[: length - 1] + "…"


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

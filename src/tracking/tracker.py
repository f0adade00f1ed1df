"""Keeps a run in MLflow: its settings, its curves and its results.

Every call notes what it is given in the run's folder and returns at once; a thread of its own tells
MLflow. So a run begins to train while MLflow, which takes seconds, is imported. A store that is
slow, fails or goes away neither slows down the training nor ends it.
"""

import contextlib
import getpass
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from src.data import Dataset
from src.nn.losses import Loss
from src.nn.network import MLP, Parameters
from src.support.errors import UserError
from src.support.signals import exit_code
from src.tracking.journal import Entry, Journal, Point, Status, texts
from src.tracking.model import describe
from src.tracking.outage import Store
from src.tracking.upload import Upload, described
from src.tracking.view import sweep_views
from src.tracking.writer import writer

log = logging.getLogger("src.tracking.outage")  # shown on the terminal too

_PARAMETER_LENGTH = 6000  # MLflow cuts longer ones
# A store that was silent for so many seconds is given up at the end of a run. After a signal the
# process must end soon.
PATIENCE, _PATIENCE_WHEN_KILLED = 20.0, 4.0


class Tracker:
    """One run in MLflow, from the constructor, which opens it, to ``close``.

    Several may be open at a time. Files are read later, when the writer reaches them: write them
    before you hand them over, and leave them as they are until the run is closed.

    No error of the store is raised. What MLflow could not be told is in the journal of the run's
    folder, for ``python -m src.sync``.
    """

    def __init__(self, store: Store | None, entry: Entry, folder: Path | None) -> None:
        """Open a run. Without a store, only its journal is kept."""
        self._store, self._writer = store, writer()
        self._journal = _adopted(entry, folder)
        self._broken = self._complete = False
        with self._change():  # it is on disk from the first moment
            pass
        self._upload = Upload(self._journal)
        self._follow()

    def identity(self) -> tuple[str, str] | None:
        """Return the ids of the run's experiment and of the run; None if the store is away.

        Waits until the run is open, or for a store that is away as long as ``close`` does.
        """
        entry = self._journal.entry
        self._wait(lambda: entry.experiment_id is not None)
        if entry.run_id is None or entry.experiment_id is None:
            return None
        return entry.experiment_id, entry.run_id

    def when_open(self, hear: Callable[[str, str], None]) -> None:
        """Call ``hear`` with the ids of the run's experiment and of the run, once it is open.

        It is called in the writer's thread, and not at all while the store is away.
        """

        def tell() -> None:
            entry = self._journal.entry
            if entry.run_id and entry.experiment_id:
                hear(entry.experiment_id, entry.run_id)
            elif not self._upload.stopped and self._store is not None:
                self._writer.plan(tell)

        self._writer.submit(tell)

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Keep the settings of the run."""
        with self._change() as entry:
            entry.parameters = texts(values, _PARAMETER_LENGTH)
        self._follow()

    def milliseconds(self, seconds: float) -> int:
        """Return the unix time, in milliseconds, at which the run's own clock shows ``seconds``.

        The clock of a run in a stack counts its share of the time, so that durations compare.
        """
        return self._journal.entry.start + int(1000 * seconds)

    def metrics(self, values: Mapping[str, float], step: int, time: int) -> None:
        """Keep measurements made at a step, at a unix time in milliseconds.

        Those of step 0 are noted in the journal. Those of an epoch, its step, must be in
        ``history.csv`` already, with the same time.
        """
        points: list[Point] = [(key, value, time, step) for key, value in values.items()]
        self._upload.add(points)
        if step == 0:
            with self._change() as entry:
                entry.points += points
        self._writer.plan(self._advance)

    def sweep(self, sweep_id: str, metric: str, varied: Sequence[str]) -> None:
        """Arrange the views of the run's sweep, whose runs differ in the parameters ``varied``.

        The best run by ``metric`` comes first.
        """
        self.views(sweep_views(sweep_id, metric, varied))

    def views(self, views: Mapping[str, str]) -> None:
        """Arrange views of the experiment's runs, given as JSON by their tags."""
        with self._change() as entry:
            entry.sweep |= views
        self._follow()

    def dataset(self, dataset: Dataset) -> None:
        """Keep what the run learns from: its name, its size and our digest of it."""
        with self._change() as entry:
            entry.dataset = described(dataset)
        self._follow()

    def files(self, paths: Sequence[Path], folder: str | None = None) -> None:
        """Keep copies of files, in a folder if one is named."""
        own = self._journal.folder
        with self._change() as entry:
            for path in paths:
                inside = own is not None and path.is_relative_to(own)
                name = str(path.relative_to(own) if inside and own else path.absolute())
                if (name, folder) not in entry.files:
                    entry.files.append((name, folder))
                part = f"file {folder or ''}/{name}"
                entry.written = [other for other in entry.written if other != part]
                self._upload.renewals[part] += 1
        self._follow()

    def model(
        self, model: MLP, loss: Loss, dataset: Dataset, parameters: Parameters, weights: Path
    ) -> None:
        """Keep the trained network as a model that can be served, under the run's name.

        ``weights`` is the file that holds its parameters.
        """
        own = self._journal.folder
        inside = own is not None and weights.is_relative_to(own)
        place = str(weights.relative_to(own) if inside and own else weights.absolute())
        with self._change() as entry:
            entry.model = {
                "network": describe(model, loss, dataset, parameters),
                "weights": place,
            }
        self._follow()

    def end(
        self,
        status: Status,
        seconds: float,
        failure: str | None = None,
        pruned: str | None = None,
    ) -> None:
        """Note the run's status, which it gets when all is written. It has nothing more to tell.

        The run's end is ``seconds`` after its start. ``failure`` is kept as a tag, and so is
        ``pruned``, why a run left its sweep early.
        """
        with self._change() as entry:
            entry.status, entry.failure, entry.pruned = status, failure, pruned
            entry.end = self.milliseconds(seconds)
        self._follow()

    def close(self) -> None:
        """Wait until all is written. A store that is away is waited for for some seconds."""
        complete = self._wait(lambda: self._complete)
        self._upload.stopped = True  # from now on, the journal belongs to src.sync
        place = self._journal.folder or "FOLDER"
        if lacking := self._upload.lacking:
            log.warning(
                "MLflow refuses a part of the run: %s; python -m src.sync %s tries again",
                lacking,
                place,
            )
        elif not complete and self._store is not None:
            log.warning(
                "MLflow has not been told everything: python -m src.sync %s does it later", place
            )

    def _wait(self, done: Callable[[], bool]) -> bool:
        ends_soon = self._journal.entry.status == "KILLED" or exit_code() is not None
        patience = _PATIENCE_WHEN_KILLED if ends_soon else PATIENCE
        return self._store is not None and self._store.wait(done, patience)

    @contextlib.contextmanager
    def _change(self) -> Iterator[Entry]:
        """Yield the journal's entry for changes. A full disk is noted; it ends no training."""
        try:
            with self._journal.change() as entry:
                yield entry
        except OSError as error:
            if not self._broken:
                log.warning("the run's journal can't be written: %s", error)
            self._broken = True

    def _follow(self) -> None:
        self._writer.submit(lambda: self._advance(points=False))

    def _advance(self, *, points: bool = True) -> None:
        """Tell MLflow what it does not know yet; try again later if the store is away.

        Without ``points``, those of a run that goes on wait for the writer's next turn.
        """
        store = self._store
        if store is None or self._upload.stopped:
            return
        if store.use(
            lambda client, experiment_id: self._upload.advance(
                client, experiment_id, store.heard, points=points
            )
        ):
            self._complete = self._upload.complete
            store.heard()  # wakes ``close``
        else:
            self._writer.plan(self._advance)


def _adopted(entry: Entry, folder: Path | None) -> Journal:
    """Return the journal of a run, which goes on with the one that a dead process left."""
    left = None
    if folder is not None:
        with contextlib.suppress(UserError):  # a damaged one is replaced
            left = Journal.load(folder)
    if left is not None and entry.run_id in (None, left.entry.run_id):
        old = left.entry
        entry.run_id, entry.start, entry.key = old.run_id, old.start, old.key
        entry.points, entry.model_id = old.points, old.model_id
        entry.written = [part for part in old.written if part == "attempt"]
    return Journal(entry, folder)


def system_tags(tags: Mapping[str, str]) -> dict[str, str]:
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


def ending(error: BaseException) -> tuple[Status, str]:
    """Return the status of a run that an exception ended, and the reason in words."""
    if isinstance(error, KeyboardInterrupt):
        return "KILLED", "interrupted"
    if isinstance(error, SystemExit):
        return "KILLED", "terminated"
    return "FAILED", str(error) or type(error).__name__

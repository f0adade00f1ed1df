"""The epochs of a run: each is a line of ``history.csv`` before anything else has it."""

import contextlib
import csv
import io
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from src.nn.network import Parameters
from src.runs.folder import HISTORY
from src.runs.summary import measurements
from src.support.errors import DataError, NotReproduced, in_one_line
from src.support.files import whole_file
from src.support.input_files import open_regular
from src.training.checkpoint import Checkpoint
from src.training.training_run import Epoch, Progress

log = logging.getLogger(__name__)

# What was measured in an epoch, by the names of the columns. What was not is empty in the file and
# missing here.
Row = dict[str, float]


class HistoryReader:
    """Reads a ``history.csv`` that may grow; a torn last line is left for later."""

    def __init__(self, path: Path) -> None:
        self._path, self._columns = path, list[str]()
        self.size = 0  # bytes read so far
        self.lines: list[bytes] = []  # of the last call of ``more``, the columns' names included
        self.epochs = 0  # read so far

    def more(self, end: int | None = None) -> list[Row]:
        """Return the rows that were added since the last call, as far as the byte ``end``.

        Raises DataError if the file is damaged. A file that is not there has no rows.
        """
        try:
            with open_regular(self._path) as file:
                file.seek(self.size)
                raw = file.read(-1 if end is None else max(0, end - self.size))
            self.lines = raw[: raw.rfind(b"\n") + 1].splitlines(keepends=True)
            return [row for line in self.lines if (row := self._take(line.decode())) is not None]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, DataError) as error:
            raise DataError(
                f"{self._path}: not the history of a run ({in_one_line(error)}); remove it: "
                "resume= writes it again, from the checkpoint"
            ) from None

    def _take(self, line: str) -> Row | None:
        """Return the row in a line, or None if it names the columns."""
        self.size += len(line.encode())
        values = line.rstrip("\r\n").split(",")
        if not self._columns:
            self._columns = values
            return None
        filled = zip(self._columns, values, strict=True)
        row = {name: float(value) for name, value in filled if value}
        self.epochs += 1
        if row["epoch"] != self.epochs or not math.isfinite(row["time"]):
            raise ValueError(f"line {self.epochs + 1} is not that of epoch {self.epochs}")
        return row


def read_history(folder: Path) -> list[Row]:
    """Return the rows of the history in a run's folder. Raises DataError if it is damaged."""
    return HistoryReader(folder / HISTORY).more()


def columns(rows: Sequence[Row]) -> dict[str, npt.NDArray[np.float64]]:
    """Return the columns of a history by name; what was not measured is NaN."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([row.get(name, math.nan) for row in rows]) for name in names}


class History:
    """The history of an open run, and the run's clock.

    ``epochs`` come without their parameters and progress. ``trained`` are the parameters that the
    run keeps, ``progress`` is how far it has come; None before the first epoch. ``rows`` may hold
    more than ``epochs``: those that an earlier process has trained after its last checkpoint.
    """

    def __init__(
        self, folder: Path, started: int, parameters: Parameters, *, is_exact: bool
    ) -> None:
        """Open the file of a run that began at ``started``, in milliseconds since 1970.

        With ``is_exact`` an epoch that is computed again must have equal values. Raises DataError
        if the file is damaged in another way than by a torn last line, which is cut off.
        """
        self._path, self._started, self._is_exact = folder / HISTORY, started, is_exact
        reader = HistoryReader(self._path)
        self.rows = reader.more()
        self._lines, self._columns = reader.lines, list[str]()
        if self._lines:
            self._columns = self._lines[0].decode().rstrip("\r\n").split(",")
        self._file = _append(self._path)
        self._file.truncate(reader.size)
        self._writing = 0.0  # seconds
        self.epochs: list[Epoch] = []
        self.trained = parameters
        self.progress: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    # --- the clock ---

    @property
    def seconds(self) -> float:
        """The seconds spent on the run so far: its share of training, and writing results."""
        return self._writing + (self.epochs[-1].seconds if self.epochs else 0.0)

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Count the seconds of the block as spent on writing results."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._writing += time.perf_counter() - start

    def _now(self) -> int:
        """Return the time that the run's own clock shows, in milliseconds since 1970.

        It counts the seconds spent on the run, so that durations compare: not the time between an
        interruption and a resume, and in a stack the run's share only.
        """
        last = int(self.rows[-1]["time"]) if self.rows else self._started
        return max(last, self._started + int(self.seconds * 1000))

    # --- epochs ---

    def add(self, epoch: Epoch) -> None:
        """Write an epoch: it is on disk when this returns.

        Raises NotReproduced if it was written before an interruption, with another result.
        """
        if epoch.number > len(self.rows):
            with self.timed():
                self._append(_row(epoch, self._now()))
        else:
            self._compare(epoch, self.rows[epoch.number - 1])
        # The curve stays in memory, but not the weights and the progress of every epoch. An epoch
        # that is computed again has its first time: checkpoints say what the file says.
        seconds = self.rows[epoch.number - 1]["seconds"]
        self.epochs.append(replace(epoch, parameters=(), progress=None, seconds=seconds))
        if epoch.kept:
            self.trained = epoch.parameters
        self.progress = epoch.progress

    def _append(self, row: Row) -> None:
        """Append an epoch's row, at once. The first row decides the columns."""
        head = b""
        if not self._columns:
            self._columns = list(row)
            head = _line(self._columns, dict(zip(self._columns, self._columns, strict=True)))
        self._file.write(head + _line(self._columns, row))
        self._file.flush()
        self.rows.append(row)

    def _compare(self, epoch: Epoch, row: Row) -> None:
        """Raise NotReproduced unless an epoch is what its row says, apart from the time it took."""
        values = {"epoch": epoch.number, **measurements(epoch)}
        for name, value in values.items():
            before = row.get(name, math.nan)
            if name == "seconds" or value == before or (value != value and before != before):
                continue
            message = f"epoch {epoch.number}, computed again, has {name} {value!r}, not {before!r}"
            if self._is_exact:
                raise NotReproduced(
                    f"{message} as {HISTORY} says: the processor, BLAS or a plugin has changed"
                )
            log.warning(message)
            return

    # --- checkpoints ---

    def checkpoint(self, progress: Progress) -> Checkpoint:
        """Return a checkpoint of this progress, with the record of each epoch up to it."""
        times = [int(row["time"]) for row in self.rows[: progress.epoch]]
        return Checkpoint(progress, self.epochs[: progress.epoch], times, self._writing)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take up the state of a checkpoint. A machine that died may have lost the last lines."""
        self.progress = checkpoint.progress
        self.epochs = list(checkpoint.epochs)
        self.trained, self._writing = checkpoint.progress.kept, checkpoint.keeping
        times = zip(checkpoint.epochs, checkpoint.times, strict=True)
        known = [_row(epoch, at) for epoch, at in times]
        pairs = enumerate(zip(self.rows, known, strict=False), 2)
        wrong = next((line for line, pair in pairs if not _are_equal(*pair)), None)
        if wrong is None:
            for row in known[len(self.rows) :]:
                self._append(row)
        else:
            log.warning("%s: line %d is damaged; it is taken from the checkpoint", HISTORY, wrong)
            self._replace(known)

    def _replace(self, rows: Sequence[Row]) -> None:
        """Put these rows into the place of the first ones; the lines after them stay.

        Whatever ends the process leaves the file with the old rows, or with the new ones.
        """
        names = list(rows[0])
        with whole_file(self._path) as file:
            file.write(_line(names, dict(zip(names, names, strict=True))))
            for row in rows:
                file.write(_line(names, row))
            file.writelines(self._lines[1 + len(rows) :])
        self._columns, self.rows = names, [*map(dict, rows), *self.rows[len(rows) :]]
        self._file.close()
        self._file = _append(self._path)


def _append(path: Path) -> io.BufferedWriter:
    """Open a file for appending, which may not be a link."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    return os.fdopen(os.open(path, flags, 0o666), "ab")


def _row(epoch: Epoch, at: int) -> Row:
    """Return an epoch's row in the history; ``at`` is in milliseconds since 1970."""
    return {"epoch": epoch.number, **measurements(epoch), "time": at}


def _are_equal(ours: Row, theirs: Row) -> bool:
    """Return whether two rows have the same values; NaN is equal to NaN."""
    return ours.keys() == theirs.keys() and all(
        ours[name] == theirs[name] or (math.isnan(ours[name]) and math.isnan(theirs[name]))
        for name in ours
    )


def _line(columns: Sequence[str], row: Mapping[str, Any]) -> bytes:
    """Return a row, or the names of the columns, as a line of the file."""
    text = io.StringIO(newline="")
    csv.DictWriter(text, columns).writerow(row)
    return text.getvalue().encode()

"""The history of a run as lines of a CSV file: an epoch is on disk before anything else has it."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from src.support.errors import DataError, in_one_line
from src.support.files import whole_file
from src.support.input_files import read_text

Row = dict[str, float]


class HistoryFile:
    """The file ``history.csv``, open for appending; ``rows`` holds what it says of each epoch.

    A torn last line, which a killed process may leave, is cut off. What was not measured in an
    epoch is empty in the file and missing in its row. Raises DataError if the file is damaged
    in another way.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._columns = path, list[str]()
        self._lines: list[bytes] = []  # as they were found
        self.rows: list[Row] = []
        sound = self._read(path) if path.exists() else 0
        self._file = path.open("ab")
        self._file.truncate(sound)

    def _read(self, path: Path) -> int:
        """Take the whole lines of the file and return how many bytes they have."""
        try:
            raw = read_text(path).encode()
            sound = raw.rfind(b"\n") + 1
            self._lines = raw[:sound].splitlines(keepends=True)
            lines = csv.reader(io.StringIO(raw[:sound].decode(), newline=""))
            self._columns = next(lines, [])
            for number, values in enumerate(lines, 1):
                filled = zip(self._columns, values, strict=True)
                row = {name: float(value) for name, value in filled if value}
                if row["epoch"] != number or not math.isfinite(row["time"]):
                    raise ValueError(f"line {number + 1} is not that of epoch {number}")
                self.rows.append(row)
        except (OSError, ValueError, KeyError, csv.Error) as error:
            raise DataError(
                f"{path}: not the history of a run ({in_one_line(error)}); remove it: "
                "resume= writes it again, from the checkpoint"
            ) from None
        return sound

    def mend(self, rows: Sequence[Row]) -> int | None:
        """Write the first rows again where the file says otherwise, and add those that it lacks.

        Returns the number of the first line that was wrong, or None if all were right. A file with
        a wrong line is replaced as a whole: whatever ends the process leaves the one or the other.
        """
        pairs = enumerate(zip(self.rows, rows, strict=False), 2)
        wrong = next((line for line, (ours, known) in pairs if not _are_equal(ours, known)), None)
        if wrong is None:
            for row in rows[len(self.rows) :]:
                self.add(row)
        else:
            self._replace(rows)
        return wrong

    def _replace(self, rows: Sequence[Row]) -> None:
        """Put these rows into the place of the first ones; the lines after them stay."""
        columns = list(rows[0])
        with whole_file(self._path) as file:
            file.write(_line(columns, dict(zip(columns, columns, strict=True))))
            for row in rows:
                file.write(_line(columns, row))
            file.writelines(self._lines[1 + len(rows) :])
        self._columns, self.rows = columns, [*map(dict, rows), *self.rows[len(rows) :]]
        self._file.close()
        self._file = self._path.open("ab")

    def add(self, row: Mapping[str, float]) -> None:
        """Append an epoch's row, at once. The first row decides the columns."""
        head = b""
        if not self._columns:
            self._columns = list(row)
            head = _line(self._columns, dict(zip(self._columns, self._columns, strict=True)))
        self._file.write(head + _line(self._columns, row))
        self._file.flush()
        self.rows.append(dict(row))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()


def whole_lines(path: Path) -> int:
    """Return how many epochs a ``history.csv`` has; a torn last line is none."""
    try:
        return max(0, path.read_bytes().count(b"\n") - 1)
    except FileNotFoundError:
        return 0


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

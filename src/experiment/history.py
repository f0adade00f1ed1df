"""The history of a run as lines of a CSV file: an epoch is on disk before anything else has it."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from src.support.errors import DataError
from src.support.input_files import read_text

Row = dict[str, float]


class HistoryFile:
    """The file ``history.csv``, open for appending; ``rows`` holds what it says of each epoch.

    A torn last line, which a killed process may leave, is cut off. What was not measured in an
    epoch is empty in the file and missing in its row. Raises DataError if the file is damaged
    in another way.
    """

    def __init__(self, path: Path) -> None:
        self._columns: list[str] = []
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
                f"{path}: not the history of a run ({error}); remove it: "
                "resume= writes it again, from the checkpoint"
            ) from None
        return sound

    def mend(self, rows: Sequence[Row]) -> int | None:
        """Write the first rows again where the file says otherwise, and add those that it lacks.

        Returns the number of the first line that was wrong, or None if all were right.
        """
        pairs = enumerate(zip(self.rows, rows, strict=False), 2)
        wrong = next((line for line, (ours, known) in pairs if not _are_equal(ours, known)), None)
        later = self.rows[len(rows) :]
        if wrong is not None:
            self._file.truncate(0)
            self._columns, self.rows = [], []
        for row in rows[len(self.rows) :]:
            self.add(row)
        if wrong is not None:
            self._file.write(b"".join(self._lines[1 + len(rows) :]))
            self._file.flush()
            self.rows += later
        return wrong

    def add(self, row: Mapping[str, float]) -> None:
        """Append an epoch's row, at once. The first row decides the columns."""
        text = io.StringIO(newline="")
        if not self._columns:
            self._columns = list(row)
            csv.writer(text).writerow(self._columns)
        csv.DictWriter(text, self._columns).writerow(row)
        self._file.write(text.getvalue().encode())
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

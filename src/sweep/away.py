"""Runs on workers that do not see the sweep's folder: MLflow keeps them, this folder their results.

A worker keeps a run in a folder of its own while it trains. What another worker needs to go on with
it is in MLflow; what the sweep's table needs is sent back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from src.runs.folder import CHECKPOINT, HISTORY, PREVIOUS, RESULT, RUN
from src.runs.job import Job
from src.support.files import write_whole
from src.tracking.fetch import fetch_runs
from src.tracking.store import open_tracking
from src.tracking.told import TOLD

_SENT_BACK = (RUN, HISTORY, RESULT)  # in this order: the result says that the others are there
_NEEDED = (HISTORY, CHECKPOINT, PREVIOUS, RESULT, RUN)  # the last says that the others are there


@dataclass(frozen=True)
class Returned:
    """What is sent back of a run that has ended: a few kilobytes."""

    number: int
    files: Mapping[str, bytes]

    @staticmethod
    def of(number: int, folder: Path, *, is_last: bool = False) -> "Returned":
        """Read the files in the folder of the run with this number.

        Only with the last of them comes what MLflow has of the run: who has that file tells the
        rest, if anything is left.
        """
        names = [TOLD, *_SENT_BACK] if is_last else _SENT_BACK
        found = [name for name in names if (folder / name).exists()]
        return Returned(number, {name: (folder / name).read_bytes() for name in found})

    def write(self, folder: Path) -> None:
        """Write the files into the run's folder in the sweep."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            write_whole(folder / name, content)


def fetch(job: Job, sweep_id: str, numbers: list[int], folders: Mapping[int, Path]) -> None:
    """Bring what MLflow keeps of a stack's runs into their folders, so that they go on from there.

    ``numbers`` are those of all jobs of the stack, in order; ``folders`` has those to bring, by
    the jobs' numbers. Raises UserError if the store stays away.
    """
    stack = " ".join(map(str, numbers))
    places = {
        str(place): folders[number]
        for place, number in enumerate(numbers)
        if number in folders and not (folders[number] / RUN).exists()
    }
    if places:
        store = job.tracking
        fetch_runs(lambda: open_tracking(store, job.outputs), sweep_id, stack, places, _NEEDED)

"""What MLflow has of a run: ``mlflow.json`` in the run's folder, so that any mirror can go on."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from src.runs.folder import RUN
from src.runs.record import Record
from src.support.errors import UserError
from src.support.input_files import read_text
from src.support.serialization import check_types

TOLD = "mlflow.json"
SUMMARY = "summary.json"  # of a sweep, in its folder


@dataclass
class Told:
    """What MLflow has of a run. It names no store: that of the command is used."""

    key: str = ""  # of the record that it belongs to
    is_tried: bool = False  # whether MLflow was asked to create the run
    experiment_id: str | None = None
    run_id: str | None = None
    attempt: int = 0  # of the record whose settings MLflow has
    epochs: int = 0
    files: dict[str, list[int]] = field(default_factory=dict)  # size and time, by names
    has_model: bool = False
    status: str | None = None  # with which the run was closed; None: it is open
    is_complete: bool = False

    def write(self, folder: Path) -> None:
        """Write the file. Raises OSError."""
        part = folder / f".{TOLD}.part"
        part.unlink(missing_ok=True)  # never through a link
        part.write_text(json.dumps(asdict(self)), encoding="utf-8")
        part.replace(folder / TOLD)

    @staticmethod
    def load(folder: Path) -> "Told":
        """Return what the file says; nothing if it is missing or damaged."""
        try:
            told = Told(**json.loads(read_text(folder / TOLD)))
            check_types(told)
        except FileNotFoundError:
            return Told()
        except (OSError, ValueError, TypeError, RecursionError):
            return Told(is_tried=True)  # MLflow may have the run
        return told


def ids(folder: Path) -> tuple[str, str] | None:
    """Return MLflow's ids of the experiment and of the run in a folder, if it has the run."""
    told = Told.load(folder)
    if told.experiment_id is None or told.run_id is None:
        return None
    return told.experiment_id, told.run_id


def pending(places: Sequence[Path]) -> list[Path]:
    """Return the folders at or below some others whose runs MLflow does not have whole.

    The summaries of sweeps come last: they name the runs.
    """
    names = [(name, place) for name in (RUN, SUMMARY) for place in places]
    found = [path.parent for name, place in names for path in sorted(place.rglob(name))]
    return [folder for folder in dict.fromkeys(found) if not _is_whole(folder)]


def _is_whole(folder: Path) -> bool:
    told = Told.load(folder)
    try:
        attempt = Record.load(folder).attempt
    except UserError:  # it is damaged, or the summary of a sweep
        attempt = told.attempt
    return told.is_complete and told.attempt == attempt


def left_open(outputs: Path) -> Iterator[Path]:
    """Yield the folders of runs that MLflow has begun to get and does not have whole."""
    for pattern in (f"runs/*/{TOLD}", f"sweeps/*/*/{TOLD}"):
        for path in sorted(outputs.glob(pattern)):
            if not Told.load(path.parent).is_complete:
                yield path.parent

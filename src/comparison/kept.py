"""Reads kept runs: what each was asked, how it ended, and its history."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from src.runs.folder import HISTORY, PREDICTIONS, RUN
from src.runs.history import columns, read_history
from src.runs.record import Record
from src.support.errors import DataError
from src.tracking.told import ids

if TYPE_CHECKING:
    import pandas as pd

# As training says it: "training loss inf in epoch 3, after 99 updates; …".
_DIVERGED = re.compile(r" in epoch \d+, after \d+ updates")


@dataclass(frozen=True)
class KeptRun:
    """A run as its folder or MLflow keeps it. What they do not hold is None or empty."""

    name: str
    # Every resolved setting by its dotted key, and every choice by its group, as MLflow has them.
    settings: Mapping[str, str]
    status: str  # FINISHED, FAILED, KILLED, PRUNED, RUNNING
    failure: str | None = None
    metric: str | None = None  # by which its sweep ranks
    metrics: Mapping[str, float] = field(default_factory=dict)  # of the kept epoch, and the best
    findings: Sequence[str] = ()
    chance: str | None = None  # that it answers no better than a guess, and the likely reason
    seconds: float | None = None
    epochs: int | None = None  # that it was asked to train
    started: int = 0  # milliseconds since 1970
    overrides: Sequence[str] = ()
    sweep_id: str | None = None
    folder: Path | None = None
    run_id: str = ""  # in MLflow
    experiment_id: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)  # samples of each set
    data: str = ""  # digests
    code: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    files: Path | None = None  # where its history and predictions are; by default its folder
    is_ours: bool = True  # not logged to MLflow by another program

    @property
    def diverged(self) -> bool:
        """Whether a loss or a weight became infinite, or no number."""
        return self.status == "FAILED" and bool(_DIVERGED.search(self.failure or ""))

    @property
    def predictions(self) -> Path | None:
        """The file of its predictions, or None if it was not kept."""
        return self._file(PREDICTIONS)

    @property
    def history(self) -> Path | None:
        """The file of its history, or None if it was not kept."""
        return self._file(HISTORY)

    def _file(self, name: str) -> Path | None:
        folder = self.folder or self.files
        return folder / name if folder and (folder / name).exists() else None


def run_folders(places: Iterable[Path]) -> list[Path]:
    """Return the folders of all runs at or below these folders, in the order of their numbers.

    Raises DataError if a place does not exist or holds no run.
    """
    found: dict[Path, None] = {}
    for place in places:
        if not place.is_dir():
            raise DataError(
                f"{place}: no such folder: give the folder of a sweep, a run or outputs"
            )
        own = [place] if (place / RUN).exists() else [path.parent for path in place.rglob(RUN)]
        if not own:
            raise DataError(f"{place}: holds no run.json: give the folder of a sweep or a run")
        found |= dict.fromkeys(sorted(own, key=_order))
    return list(found)


def _order(folder: Path) -> tuple[str, int, str]:
    number = int(folder.name) if folder.name.isdecimal() else -1
    return str(folder.parent), number, folder.name


def read_folder(folder: Path) -> KeptRun:
    """Return the run in a folder. Raises UserError if its files are damaged."""
    record = Record.load(folder)
    experiment_id, run_id = ids(folder) or ("", "")
    return KeptRun(
        name=record.name,
        settings=record.settings,
        status=record.status,
        failure=record.failure,
        metric=record.metric if record.has_ended else None,
        metrics=record.metrics,
        findings=record.findings,
        chance=record.chance,
        seconds=record.seconds if record.has_ended else None,
        epochs=record.epochs,
        started=record.started,
        overrides=record.overrides,
        sweep_id=record.sweep_id,
        folder=folder,
        run_id=run_id,
        experiment_id=experiment_id,
        sizes=record.sizes,
        data=record.identity.data,
        code=record.identity.code,
        versions=record.identity.versions,
    )


def read_histories(files: Mapping[int, Path]) -> "pd.DataFrame":
    """Return the epochs of runs, each given by its number and its ``history.csv``, in one frame.

    The column ``run`` holds the number. What a run did not measure is NaN. Raises DataError if a
    file is damaged.
    """
    import numpy as np
    import pandas as pd

    frames = []
    for number, file in sorted(files.items()):
        rows = read_history(file.parent)
        if rows:  # else it ended in its first epoch
            frames.append(pd.DataFrame({"run": number, **columns(rows)}))
    if not frames:
        return pd.DataFrame({"run": np.array([], dtype=int), "epoch": np.array([], dtype=int)})
    history = pd.concat(frames, ignore_index=True)
    return history.astype({"epoch": int})

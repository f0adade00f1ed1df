"""Reads kept runs: what each was asked, how it ended, and its history."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from src.config.reader import leaves
from src.experiment.results import RESULT, Result
from src.experiment.run_folder import HISTORY, RUN, RunRecord
from src.support.errors import DataError
from src.support.input_files import read_text

if TYPE_CHECKING:
    import pandas as pd

_PREDICTIONS = "predictions.npz"
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
        return self._file(_PREDICTIONS)

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
    record, result = RunRecord.load(folder), _result(folder)
    kept = KeptRun(
        name=record.name,
        settings=record.settings or _configured(folder),
        status=result.status if result else record.status,
        epochs=record.epochs,
        started=record.started,
        overrides=record.overrides,
        sweep_id=record.sweep_id,
        folder=folder,
        run_id=record.run_id or "",
        experiment_id=record.experiment_id or "",
        sizes=record.sizes,
        data=record.identity.data,
        code=record.identity.code,
        versions=record.identity.versions,
    )
    if result is None:
        return kept
    return replace(
        kept,
        failure=result.failure,
        metric=result.metric,
        metrics=result.metrics,
        findings=result.findings,
        chance=result.chance,
        seconds=result.seconds,
        run_id=result.run_id or kept.run_id,
        experiment_id=result.experiment_id or kept.experiment_id,
    )


def _result(folder: Path) -> Result | None:
    """Return the result in a folder, or None if the run has not ended."""
    try:
        return Result.load(folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{folder / RESULT}: can't be read ({error})") from None


def _configured(folder: Path) -> dict[str, str]:
    """Return the settings of a run whose run.json does not hold them: it is of an older version."""
    config = _yaml(folder / ".hydra" / "config.yaml")
    hydra = _yaml(folder / ".hydra" / "hydra.yaml").get("hydra", {})
    choices = {
        group.rpartition("@")[2]: choice
        for group, choice in hydra.get("runtime", {}).get("choices", {}).items()
        if choice and not group.startswith("hydra/")
    }
    settings = {**choices, **leaves(config, "")}
    return {key: str(value) for key, value in settings.items()}


def _yaml(path: Path) -> dict[str, Any]:
    try:
        known = yaml.load(read_text(path), yaml.CSafeLoader)
    except (OSError, UnicodeError, yaml.YAMLError):
        return {}
    return known if isinstance(known, dict) else {}


def read_histories(files: Mapping[int, Path]) -> "pd.DataFrame":
    """Return the epochs of runs, each given by its number and its ``history.csv``, in one frame.

    The column ``run`` holds the number. What a run did not measure is NaN. A torn last line is
    left out. Raises DataError if a file is damaged.
    """
    import io

    import numpy as np
    import pandas as pd

    bodies: dict[str, list[str]] = {}
    runs: dict[str, list[int]] = {}
    for number, file in files.items():
        try:
            text = read_text(file)
        except (OSError, UnicodeError) as error:
            raise DataError(f"{file}: can't be read ({error})") from None
        header, _, body = text.partition("\n")
        body = body[: body.rfind("\n") + 1]
        if not body:  # it ended in its first epoch
            continue
        bodies.setdefault(header.strip(), []).append(body)
        runs.setdefault(header.strip(), []).extend([number] * body.count("\n"))
    frames = []
    for header, parts in bodies.items():
        columns = header.split(",")
        try:
            frame = pd.read_csv(io.StringIO("".join(parts)), names=columns, dtype=float)
            frame.insert(0, "run", np.array(runs[header], dtype=int))
            frame["epoch"] = frame["epoch"].astype(int)
        except (ValueError, KeyError) as error:
            own = ", ".join(str(files[number]) for number in dict.fromkeys(runs[header]))
            raise DataError(f"{own}: not the history of a run ({error})") from None
        frames.append(frame)
    if not frames:
        return pd.DataFrame({"run": np.array([], dtype=int), "epoch": np.array([], dtype=int)})
    history = pd.concat(frames, ignore_index=True)
    return history.sort_values(["run", "epoch"], kind="stable", ignore_index=True)

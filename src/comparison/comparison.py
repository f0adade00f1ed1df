"""A set of kept runs, compared: what the terminal, the report and notebooks show."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from src.comparison import wording
from src.comparison.frames import CURVES, Frames, Pair
from src.comparison.from_mlflow import runs_in_mlflow
from src.comparison.kept import read_folder, run_folders
from src.comparison.provenance import provenance
from src.support.errors import ConfigError
from src.tracking.search import Search

__all__ = ["CURVES", "Comparison", "Pair"]


class Comparison(Frames):
    """Runs divided into configurations, whose seeds are replicates: numbers, and what they say.

    Every frame is computed once, when it is first asked for.
    """

    @staticmethod
    def read(
        places: Iterable[Path | str], metric: str | None = None, at: str | None = None
    ) -> Comparison:
        """Return the comparison of all runs in folders: of sweeps, of runs, or outputs.

        Raises DataError if a folder holds no runs, or a run's files are damaged.
        """
        folders = run_folders(map(Path, places))
        return Comparison([read_folder(folder) for folder in folders], metric, at)

    @staticmethod
    def find(
        search_filter: str = "",
        outputs: Path | str = "outputs",
        experiment: str = "scratchgrid",
        metric: str | None = None,
        at: str | None = None,
    ) -> Comparison:
        """Return the comparison of the runs that MLflow finds, in its own search grammar.

        The store is the one of ``MLFLOW_TRACKING_URI``, else the database in ``outputs``. Raises
        UserError if it can't be opened, does not exist, refuses the filter or finds no run.
        """
        from src.runs.tracking import Tracking
        from src.tracking.kept_run import require_store
        from src.tracking.store import open_tracking

        tracking = Tracking(os.environ.get("MLFLOW_TRACKING_URI") or None, experiment)
        require_store(tracking.store(Path(outputs)))
        search = Search(*open_tracking(tracking, Path(outputs)))
        return Comparison(runs_in_mlflow(search, search_filter), metric, at, search)

    def says(self, name: str) -> str:
        """Return the settings of a configuration or a run, as they are typed."""
        number = self._of(name)[0]
        row = self._table.rows.loc[number]
        seed = "" if name in self.configurations.index else f" seed={row['seed']}"
        return wording.settings(self, row) + seed

    def draw_disagreement(self, a: str, b: str, path: Path) -> str:
        """Draw the samples on which two configurations disagree most; return what is shown.

        Nothing is drawn, and nothing returned, if they agree or the images are not at hand. Raises
        ConfigError if the file can't be written.
        """
        found, images = self.disagreement(a, b), self._images
        if found.empty or images is None:
            return ""
        from src.runs.pictures.images import disagreement
        from src.runs.pictures.style import save

        figure = disagreement(
            images[found["sample"].to_numpy(int)],
            found["label"].to_numpy(int),
            (a, b),
            found[["a", "b"]].to_numpy(float),
        )
        try:
            save(figure, path)
        except OSError as error:
            raise ConfigError(f"--picture {path}: can't be written ({error.strerror})") from None
        return f"{len(found)} samples that one of them gets right more often"

    @functools.cached_property
    def answer(self) -> list[str]:
        """What the runs say: which is best and how surely, and what matters."""
        return wording.answer(self)

    @functools.cached_property
    def advice(self) -> str | None:
        """What single seeds leave open, with the command that adds seeds, or None."""
        return wording.advice(self)

    @functools.cached_property
    def notes(self) -> list[str]:
        """What a reader must know to take the numbers for what they are, a sentence each."""
        return wording.notes(self)

    @functools.cached_property
    def explanations(self) -> dict[str, str]:
        """Why configurations are worse than the best: a sentence by label, where it shows."""
        return wording.explanations(self)

    @functools.cached_property
    def provenance(self) -> Mapping[str, str]:
        """Where the numbers come from: the commands, the versions and the digests."""
        return provenance(self.kept)

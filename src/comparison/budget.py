"""Compares runs at an equal budget: each counts with its last epoch within it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from src.comparison.kept import KeptRun
from src.support.errors import ConfigError, suggest

AXES = ("epochs", "updates", "samples", "seconds")


@dataclass(frozen=True)
class Budget:
    """A limit on epochs, updates, samples or seconds of training."""

    axis: str
    limit: float

    @staticmethod
    def parse(text: str) -> "Budget":
        """Return the budget that ``epochs=10`` names. Raises ConfigError for anything else."""
        axis, equals, value = text.partition("=")
        if axis not in AXES or not equals:
            raise ConfigError(f"--at {text}: no such budget{suggest(axis, AXES)}, as in epochs=10")
        try:
            limit = float(value)
        except ValueError:
            limit = math.nan
        if not 0 < limit < math.inf:
            raise ConfigError(f"--at {text}: {value} must be a positive number, as in {axis}=10")
        return Budget(axis, limit)

    def __str__(self) -> str:
        return f"{self.axis}={self.limit:g}"

    @property
    def column(self) -> str:
        """The column of a history that counts what the budget limits."""
        return "epoch" if self.axis == "epochs" else self.axis

    def within(self, history: pd.DataFrame, runs: Sequence[KeptRun]) -> pd.DataFrame:
        """Return the last epoch within the budget of each run that used it up, by the run's number.

        A run that ended by its own stopping rule counts, too: it would have stayed as it is. Of a
        run that restores its best weights, the best epoch within the budget counts. Best scores
        count only the epochs within the budget.
        """
        column = self.column
        if column not in history:
            return history.iloc[:0].set_index("run")
        history = with_bests(history.dropna(subset=[column]))
        inside = _restored(history[history[column] <= self.limit], runs)
        ends = history.groupby("run")[column].agg(["last", _last_step])
        used = (ends["last"] + ends["_last_step"] > self.limit) | (ends["last"] >= self.limit)
        epochs = history.groupby("run")["epoch"].last()
        ended = [
            number
            for number, last in epochs.items()
            if runs[number].status == "FINISHED" and last < (runs[number].epochs or 0)
        ]
        counting = [number for number in inside.index if used[number] or number in set(ended)]
        return inside.loc[counting]


def _restored(inside: pd.DataFrame, runs: Sequence[KeptRun]) -> pd.DataFrame:
    """Return by run the scores of the weights that it would have restored, else of its last epoch.

    What was spent (epochs, updates, samples and seconds) is that of the last epoch.
    """
    last = inside.groupby("run").last()
    scores = [name for name in last if "/" in str(name) and "/best/" not in str(name)]
    for number in last.index:
        metric = _restores(runs[number].settings)
        values = inside.loc[inside["run"] == number, metric].dropna() if metric in inside else None
        if values is not None and len(values):
            best = values.idxmin() if str(metric).endswith("loss") else values.idxmax()
            last.loc[number, scores] = inside.loc[best, scores]
    return last


def _restores(settings: Mapping[str, str]) -> str | None:
    """Return by which metric a run restores its best weights, or None if it does not."""
    restores = settings.get("stopping.restore_best") == "True"
    return settings.get("stopping.metric") if restores else None


def with_bests(history: pd.DataFrame) -> pd.DataFrame:
    """Return the history with the best accuracy and the least loss so far, ``val/best/…``."""
    by_run = history.groupby("run")
    bests = {}
    for part in ("train", "val"):
        if f"{part}/accuracy" in history:
            bests[f"{part}/best/accuracy"] = by_run[f"{part}/accuracy"].cummax()
        if f"{part}/loss" in history:
            bests[f"{part}/best/loss"] = by_run[f"{part}/loss"].cummin()
    return history.assign(**bests)


def _last_step(values: pd.Series) -> float:
    """Return how much the last epoch cost."""
    if len(values) < 2:
        return float(values.iloc[-1]) if len(values) else np.nan
    return float(values.iloc[-1] - values.iloc[-2])

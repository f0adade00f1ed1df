"""A whole configuration as one value: what to compute, and what to do with the result."""

import csv
from dataclasses import dataclass
from pathlib import Path

from src.experiment.experiment import Experiment
from src.support.errors import require, suggest
from src.support.paths import CONF
from src.tracking.tracker import Tracking

METRICS = [
    f"{best}{part}/{score}"
    for best in ("", "best/")
    for part in ("val", "test", "train")
    for score in ("accuracy", "loss")
]


@dataclass(frozen=True)
class Curve:
    """A published curve: a CSV under ``conf/experiment`` with the columns ``epoch`` and ``metric``.

    From epoch ``start`` on, ours is to keep within ``tolerance`` of it.
    """

    file: str
    metric: str
    start: int
    tolerance: float


@dataclass(frozen=True)
class Reference:
    """What somebody published for this recipe: ``figures`` by metric, as reached at the end.

    ``tolerance`` says how much worse a mean of ours may be and still count as what was published.
    """

    source: str
    figures: dict[str, float]
    tolerance: dict[str, float]
    curve: Curve | None = None

    def __post_init__(self) -> None:
        for metric in self.figures:
            require(
                metric in METRICS, "figures", metric, f"no such metric{suggest(metric, METRICS)}"
            )
        same = self.tolerance.keys() == self.figures.keys()
        require(
            same,
            "tolerance",
            ", ".join(self.tolerance),
            f"is needed for each of {', '.join(self.figures)}",
        )


@dataclass(frozen=True)
class Job:
    """A whole configuration: what to compute, and what to do with the result."""

    experiment: Experiment
    tracking: Tracking
    metric: str
    name: str | None
    outputs: Path
    reference: Reference | None
    diagnose: int | None
    gradcheck: bool
    plugins: tuple[str, ...] = ()  # imported before the configuration was read

    def __post_init__(self) -> None:
        require(
            self.diagnose is None or self.diagnose >= 1,
            "diagnose",
            self.diagnose,
            "must be 1 epoch or more, or null",
        )
        require(
            self.metric in METRICS,
            "metric",
            self.metric,
            f"no such metric{suggest(self.metric, METRICS)}",
        )


def read_curve(curve: Curve) -> tuple[list[float], list[float]]:
    """Return the epochs and the values of a published curve."""
    with (CONF / "experiment" / curve.file).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [float(row["epoch"]) for row in rows], [float(row[curve.metric]) for row in rows]

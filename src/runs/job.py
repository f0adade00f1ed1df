"""A whole configuration as one value: what to compute, and what to do with the result."""

import csv
from dataclasses import dataclass
from pathlib import Path

from src.runs.checkpoints import Checkpoints
from src.runs.experiment import Experiment
from src.runs.tracking import Tracking
from src.support.errors import require, suggest
from src.support.paths import CONF

# Without test/best/…: the test set must not decide which epoch counts.
METRICS = [
    f"{part}/{score}"
    for part in ("val", "test", "train", "val/best", "train/best")
    for score in ("accuracy", "loss")
]


# Of every run in MLflow.
TAGS = frozenset(
    (
        *("overrides", "output_dir", "config_digest", "data_digest", "code_digest", "sizes"),
        *("sweep_id", "stack", "stack_position", "kind", "summary_of", "key", "attempt", "epochs"),
        *("failure", "pruned", "git.commit", "git.dirty"),
    )
)


@dataclass(frozen=True)
class Curve:
    """A published curve: a CSV under ``conf/experiment`` with the columns ``epoch`` and ``metric``.

    From epoch ``start`` on, our curve should stay within ``tolerance`` of it.
    """

    file: str
    metric: str
    start: int
    tolerance: float


@dataclass(frozen=True)
class Reference:
    """What was published for a recipe: ``figures`` by metric, reached in the last epoch.

    ``tolerance`` says how much worse our mean may be and still count as equal to the published
    figure. The figures hold for the recipe's own data, and for the other choices in ``same_data``.
    """

    source: str
    figures: dict[str, float]
    tolerance: dict[str, float]
    curve: Curve | None = None
    same_data: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for metric in self.figures:
            rule = f"no such metric{suggest(metric, METRICS)}"
            require(metric in METRICS, "figures", metric, rule)
        same = self.tolerance.keys() == self.figures.keys()
        rule = f"must give a value for each of {', '.join(self.figures)}"
        require(same, "tolerance", ", ".join(self.tolerance), rule)


@dataclass(frozen=True)
class Job:
    """A whole configuration: what to compute, and what to do with the result."""

    experiment: Experiment
    tracking: Tracking
    metric: str
    name: str | None
    note: str | None
    tags: dict[str, str | int | float | bool]
    outputs: Path
    reference: Reference | None
    diagnose: int | None
    gradcheck: bool
    checkpoint: Checkpoints
    plugins: tuple[str, ...] = ()  # imported before the configuration was read

    def __post_init__(self) -> None:
        often_enough = self.diagnose is None or self.diagnose >= 1
        require(often_enough, "diagnose", self.diagnose, "must be 1 epoch or more, or null")
        rule = f"no such metric{suggest(self.metric, METRICS)}"
        require(self.metric in METRICS, "metric", self.metric, rule)
        for name, value in self.tags.items():
            rule = "this name is taken: every run has a tag of it; choose another"
            require(name not in TAGS, f"tags.{name}", value, rule)
            rule = "MLflow reserves names that begin with mlflow.; choose another"
            require(not name.startswith("mlflow."), f"tags.{name}", value, rule)


def read_curve(curve: Curve) -> tuple[list[float], list[float]]:
    """Return the epochs and the values of a published curve."""
    with (CONF / "experiment" / curve.file).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [float(row["epoch"]) for row in rows], [float(row[curve.metric]) for row in rows]

"""What a run came to: its scores, the best and the kept ones, and the record that it leaves in its folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from src.training import diagnostics
from src.training.scoring import Score
from src.training.training_run import Epoch

RESULT = "result.json"


@dataclass(frozen=True)
class Best:
    """The best scores that a set had after any epoch; ``epoch`` is that of the best accuracy, the first one."""

    loss: float
    accuracy: float
    epoch: int


@dataclass(frozen=True)
class Summary:
    """What a whole training came to; ``final`` are the scores of the epoch ``kept``, whose weights are kept."""

    final: Mapping[str, Score]
    best: Mapping[str, Best]
    kept: int
    epochs: int
    stopped: str | None  # why training ended early
    findings: Sequence[str]  # what is wrong in the layers
    updates: int
    samples: int
    seconds: float

    def metrics(self) -> dict[str, float]:
        """Return every figure under the name that MLflow and the configuration know it by."""
        figures: dict[str, float] = {}
        for name, score in self.final.items():
            figures |= {f"{name}/loss": score.loss, f"{name}/accuracy": score.accuracy}
            best = self.best[name]
            figures |= {
                f"best/{name}/loss": best.loss,
                f"best/{name}/accuracy": best.accuracy,
                f"best/{name}/epoch": best.epoch,
            }
        return figures


@dataclass(frozen=True)
class Result:
    """What is known of a run when it has ended, however it did; kept as ``result.json`` in its folder."""

    name: str
    overrides: Sequence[str]
    status: str
    metric: str
    failure: str | None = None
    value: float | None = None  # of the metric
    metrics: Mapping[str, float] = field(default_factory=dict)
    findings: Sequence[str] = field(default_factory=list)  # what is wrong in the layers
    seconds: float = (
        0.0  # spent on training and on keeping what came of it; of a stack's training its share
    )
    experiment_id: str | None = None
    run_id: str | None = None
    stack: Sequence[int] = ()  # the numbers of the jobs trained in one stack with it, and its own
    stack_position: int | None = None  # its place among them, from 0

    def write(self, folder: Path) -> None:
        (folder / RESULT).write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> "Result":
        """Raises FileNotFoundError where the run has not ended."""
        return Result(**json.loads((folder / RESULT).read_text(encoding="utf-8")))


def summarize(history: Sequence[Epoch], findings: Sequence[str]) -> Summary:
    """Return the kept and the best scores of a training."""
    last = history[-1]
    kept = next(epoch for epoch in reversed(history) if epoch.kept)
    best = {}
    for name in last.scores:
        scores = [epoch.scores[name] for epoch in history]
        at = int(np.argmax([score.accuracy for score in scores]))
        best[name] = Best(
            min(score.loss for score in scores), scores[at].accuracy, history[at].number
        )
    return Summary(
        kept.scores,
        best,
        kept.number,
        last.number,
        last.stopped,
        findings,
        last.updates,
        last.samples,
        last.seconds,
    )


def measurements(epoch: Epoch) -> dict[str, float]:
    """Return an epoch's record as metrics."""
    scores = {
        f"{name}/{measure}": value
        for name, score in epoch.scores.items()
        for measure, value in asdict(score).items()
    }
    counts = {
        "updates": epoch.updates,
        "samples": epoch.samples,
        "seconds": epoch.seconds,
        "lr": epoch.lr,
    }
    return {**scores, **counts, **diagnostics.measurements(epoch.layers)}

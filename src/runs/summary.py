"""What a training run has come to: its best scores, and those of the weights that are kept."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from src.training import diagnostics
from src.training.scoring import Score
from src.training.training_run import Epoch, Scores


@dataclass(frozen=True)
class Best:
    """The best scores of a set after any epoch; ``epoch`` is the first with the best accuracy."""

    loss: float
    accuracy: float
    epoch: int


@dataclass(frozen=True)
class Summary:
    """The results of a training run; ``final`` are the scores of the epoch whose weights are kept.

    ``best`` has no test set: test scores must not decide which epoch counts.
    """

    final: Mapping[str, Score]
    best: Mapping[str, Best]
    kept: int
    epochs: int
    stopped: str | None  # why training ended early
    findings: Sequence[str]  # what is wrong in the layers
    updates: int
    samples: int
    seconds: float
    chance: str | None = None  # that it answers no better than a guess, and the likely reason

    def metrics(self) -> dict[str, float]:
        """Return every figure under the name that MLflow and the configuration use."""
        figures: dict[str, float] = {}
        for name, score in self.final.items():
            figures |= {f"{name}/loss": score.loss, f"{name}/accuracy": score.accuracy}
        for name, best in self.best.items():
            figures |= {
                f"{name}/best/loss": best.loss,
                f"{name}/best/accuracy": best.accuracy,
                f"{name}/best/epoch": best.epoch,
            }
        return figures


def summarize(
    history: Sequence[Epoch], findings: Sequence[str], chance: str | None = None
) -> Summary:
    """Return the kept and the best scores of a training run."""
    last = history[-1]
    kept = next(epoch for epoch in reversed(history) if epoch.kept)
    best = {}
    for name in [name for name in last.scores if name != "test"]:
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
        chance,
    )


def value_after(scores: Sequence[Scores], metric: str) -> float:
    """Return a metric after the last of the epochs that have these scores.

    A metric such as ``val/best/accuracy`` is the best after any of them.
    """
    part, *best, measure = metric.split("/")
    values = [float(getattr(of_epoch[part], measure)) for of_epoch in scores]
    if not best:
        return values[-1]
    return min(values) if measure == "loss" else max(values)


def measurements(epoch: Epoch) -> dict[str, float]:
    """Return an epoch's record as metrics by their names."""
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

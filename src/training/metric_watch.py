"""Decides when a metric counts as improved, for early stopping and the plateau schedule."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from src.support.errors import require, suggest

WATCHABLE = ["val/loss", "val/accuracy", "train/loss", "train/accuracy"]


@dataclass(frozen=True)
class MetricWatch:
    """A metric that training is steered by: a loss improves downwards, an accuracy upwards.

    An improvement is a change of more than ``min_delta`` over the best value so far. Metrics of the
    test set are refused: what steers training can't also judge its result.
    """

    metric: str
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        if self.metric.startswith("test/"):
            instead = self.metric.replace("test/", "val/")
            rule = f"the test set is for reporting, not for steering training: use {instead}"
        else:
            rule = f"no such metric{suggest(self.metric, WATCHABLE)}"
        require(self.metric in WATCHABLE, "metric", self.metric, rule)
        finite = 0 <= self.min_delta < math.inf
        require(finite, "min_delta", self.min_delta, "must be 0 or more, and finite")

    def improvements(self, values: Sequence[float]) -> Iterator[bool]:
        """Yield for each epoch's value whether it improved; the first one always does."""
        sign = 1 if self.metric.endswith("loss") else -1
        best = math.inf
        for value in values:
            improved = sign * value < best - self.min_delta
            best = sign * value if improved else best
            yield improved

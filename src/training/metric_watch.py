"""When a metric counts as improved: what early stopping and a schedule that waits for a plateau have in common."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from src.support.errors import require, suggest

WATCHABLE = [
    f"{part}/{measure}" for part in ("val", "train", "test") for measure in ("loss", "accuracy")
]


@dataclass(frozen=True)
class MetricWatch:
    """Improved by more than ``min_delta`` over the best so far: a loss downwards, an accuracy upwards."""

    metric: str
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        require(
            self.metric in WATCHABLE,
            "metric",
            self.metric,
            f"no such metric{suggest(self.metric, WATCHABLE)}",
        )
        require(
            0 <= self.min_delta < math.inf,
            "min_delta",
            self.min_delta,
            "must be 0 or more, and finite",
        )

    def improvements(self, values: Sequence[float]) -> Iterator[bool]:
        """Yield for each epoch's value whether it improved; the first one did."""
        sign = 1 if self.metric.endswith("loss") else -1
        best = math.inf
        for value in values:
            improved = sign * value < best - self.min_delta
            best = sign * value if improved else best
            yield improved

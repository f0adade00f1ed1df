"""When training ends, and which epoch's weights are kept: both follow from the epochs so far."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from src.support.errors import require
from src.training.metric_watch import MetricWatch


class Stopping(ABC):
    """A rule over the values that one metric had after each epoch."""

    @property
    def watch(self) -> MetricWatch | None:
        """The metric that the rule uses, if any."""
        return None

    @abstractmethod
    def reason(self, values: Sequence[float]) -> str | None:
        """Return why training ends after these epochs, or None where it goes on."""

    def kept(self, values: Sequence[float]) -> int:
        """Return the number, from 1, of the epoch whose weights are kept: by default the last.

        There must be at least one value.
        """
        return len(values)

    def shortfall(self, values: Sequence[float]) -> str | None:
        """Return the goal that training has ended without reaching, or None."""
        return None


@dataclass(frozen=True)
class Never(Stopping):
    """Every epoch is trained, and the last one's weights are kept."""

    def reason(self, values: Sequence[float]) -> str | None:
        return None


@dataclass(frozen=True)
class EarlyStopping(Stopping):
    """Training ends after ``patience`` epochs in a row without improvement.

    Prechelt 1998, criterion UP, epoch by epoch. ``min_delta`` decides only what counts as an
    improvement. With ``restore_best`` the weights of the epoch with the best value are kept, the
    first of equal ones, even if training runs to its end.
    """

    metric: str
    patience: int
    min_delta: float = 0.0
    restore_best: bool = True

    def __post_init__(self) -> None:
        require(self.patience >= 1, "patience", self.patience, "must be 1 epoch or more")
        MetricWatch(self.metric, self.min_delta)

    @property
    def watch(self) -> MetricWatch:
        return MetricWatch(self.metric, self.min_delta)

    def reason(self, values: Sequence[float]) -> str | None:
        improved = self._improved(values)
        if len(values) - improved < self.patience:
            return None
        least = f"by more than {self.min_delta:g} " if self.min_delta else ""
        return (
            f"{self.metric} has not improved on epoch {improved}'s {values[improved - 1]:.4f} "
            f"{least}in {self.patience} epochs"
        )

    def kept(self, values: Sequence[float]) -> int:
        if not self.restore_best:
            return len(values)
        best = min(values) if self.metric.endswith("loss") else max(values)
        return values.index(best) + 1

    def _improved(self, values: Sequence[float]) -> int:
        """Return the number, from 1, of the last epoch that improved."""
        return max(
            number for number, improved in enumerate(self.watch.improvements(values), 1) if improved
        )


@dataclass(frozen=True)
class Target(Stopping):
    """Training ends when the metric reaches a value; ending without it is a failure."""

    metric: str
    value: float

    def __post_init__(self) -> None:
        MetricWatch(self.metric)
        loss = self.metric.endswith("loss")
        right = 0 < self.value < math.inf if loss else 0 < self.value <= 1
        require(
            right,
            "value",
            self.value,
            "must be above 0" if loss else "must be above 0, and 1 at most",
        )

    @property
    def watch(self) -> MetricWatch:
        return MetricWatch(self.metric)

    def reason(self, values: Sequence[float]) -> str | None:
        reached = (
            values[-1] <= self.value if self.metric.endswith("loss") else values[-1] >= self.value
        )
        return f"{self.metric} has reached {self.value:g}" if reached else None

    def shortfall(self, values: Sequence[float]) -> str | None:
        if self.reason(values):
            return None
        return (
            f"{self.metric} is {values[-1]:.4g} after {len(values)} epochs; "
            f"the target is {self.value:g}"
        )

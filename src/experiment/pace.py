"""How often a run writes a checkpoint."""

import re
import time
from dataclasses import dataclass

from src.support.errors import require

_SHARE = 0.02  # of the training time: the most that checkpoints cost
_FIRST_COST = 0.01  # seconds, until the first one is measured


@dataclass(frozen=True)
class Checkpoints:
    """When checkpoints are written, as ``checkpoint`` configures it.

    ``every`` is a number of epochs, or seconds such as ``30s``. By default checkpoints are as
    frequent as 2 % of the training time allows.
    """

    every: int | str | None

    def __post_init__(self) -> None:
        rule = "must be a number of epochs such as 10, seconds such as 30s, or null"
        if isinstance(self.every, str):
            right = re.fullmatch(r"\d+(\.\d+)?s", self.every) is not None and self._seconds > 0
        else:
            right = self.every is None or self.every >= 1
        require(right, "every", self.every, rule)

    @property
    def _seconds(self) -> float:
        return float(str(self.every).removesuffix("s"))

    def due(self, epoch: int, trained: float, cost: float, passed: float) -> bool:
        """Return whether a checkpoint is due after an epoch.

        ``trained`` and ``passed`` are the seconds of training and of real time since the last
        checkpoint, ``cost`` is what that one took.
        """
        if self.every is None:
            return trained * _SHARE >= cost
        if isinstance(self.every, str):
            return passed >= self._seconds
        return epoch % self.every == 0


class Pace:
    """Measures what checkpoints cost, and says when the next one is due."""

    def __init__(self, chosen: Checkpoints, trained: float = 0.0) -> None:
        self._chosen = chosen
        self.written(_FIRST_COST, trained)

    def due(self, epoch: int, trained: float) -> bool:
        """Return whether a checkpoint is due after an epoch, ``trained`` seconds into training.

        In a stack, a run's seconds of training are its share of the stack's.
        """
        passed = time.monotonic() - self._at
        return self._chosen.due(epoch, trained - self._trained, self._cost, passed)

    def written(self, cost: float, trained: float) -> None:
        """Take note that a checkpoint was written, and of the seconds that it took."""
        self._cost, self._trained, self._at = cost, trained, time.monotonic()

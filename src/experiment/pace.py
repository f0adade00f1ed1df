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
    frequent as 2% of the training time allows.
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

    def due(self, epoch: int, affordable: bool, passed: float) -> bool:
        """Return whether a checkpoint is due after an epoch.

        ``affordable`` says whether it keeps to the share of the training time, ``passed`` are the
        seconds since the last checkpoint.
        """
        if self.every is None:
            return affordable
        if isinstance(self.every, str):
            return passed >= self._seconds
        return epoch % self.every == 0


class Pace:
    """Measures what checkpoints cost, and says when the next one is due.

    ``trained`` are seconds of training, of this run alone: in a stack its share of the stack's.
    """

    def __init__(self, chosen: Checkpoints, trained: float = 0.0) -> None:
        self._chosen, self._begun = chosen, trained
        self._cost, self._spent, self._at = _FIRST_COST, 0.0, time.monotonic()

    def due(self, epoch: int, trained: float) -> bool:
        """Return whether a checkpoint is due after an epoch."""
        # Twice the cost: the checkpoint at the end of the run is paid from the same share.
        planned = self._spent + 2 * self._cost
        affordable = planned <= _SHARE * (trained - self._begun)
        return self._chosen.due(epoch, affordable, time.monotonic() - self._at)

    def due_within(self, trained: float) -> bool:
        """Return whether a checkpoint is due within an epoch: by seconds, never by epochs."""
        return not isinstance(self._chosen.every, int) and self.due(0, trained)

    def written(self, cost: float) -> None:
        """Take note that a checkpoint was written, and of the seconds that it took."""
        self._cost, self._at = cost, time.monotonic()
        self._spent += cost

"""Trains a long epoch in parts, so that it can be interrupted within and go on there."""

import time
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from src.nn.layers import Array
from src.training.batching import Rows, length, part
from src.training.engines.base import Engine
from src.training.training_run import Begun

# Updates in a part: a multiple of the blocks of all engines, so that an epoch in parts has the
# bytes of an epoch in one.
UPDATES = 8192


class Parts:
    """An epoch of a stack: ``train`` it, then read ``logits`` and ``seconds``.

    The arguments are those of ``Engine.epoch``, and for each network what was trained of the epoch
    before an interruption, equally much of each.
    """

    logits: list[Array]  # (samples, classes) of each network, in the order of training
    seconds: float  # spent on training a network: its share

    def __init__(
        self,
        engine: Engine,
        orders: Sequence[Rows],
        rates: npt.NDArray[np.float64],
        masks: Sequence[np.random.Generator],
        begun: Sequence[Begun | None],
    ) -> None:
        self._engine, self._orders, self._rates, self._masks = engine, orders, rates, masks
        self._samples = length(orders[0])
        self._done, self.seconds, self.logits = 0, 0.0, []
        for own, rng in zip(begun, masks, strict=True):
            if own is not None:
                self._done, self.seconds = own.samples, own.seconds
                self._keep(own.logits, len(self.logits), 0)
                rng.bit_generator.state = own.masks

    def train(self) -> Iterator[list[Begun]]:
        """Train what is left; between parts, yield what has been trained of each network."""
        engine, size = self._engine, self._engine.batch_size
        while self._done < self._samples:
            begin, self._done = self._done, min(self._done + UPDATES * size, self._samples)
            orders = [part(order, begin, self._done) for order in self._orders]
            rates = self._rates[begin // size : -(-self._done // size)]
            start = time.perf_counter()
            passes = engine.epoch(orders, rates, self._masks)
            self.seconds += (time.perf_counter() - start) / len(passes)
            if begin == 0 and self._done == self._samples:
                self.logits = passes
                return
            for j, logits in enumerate(passes):
                self._keep(logits, j, begin)
            if self._done < self._samples:
                yield self._begun()

    def _keep(self, logits: Array, j: int, begin: int) -> None:
        """Keep the logits of network j from a place in the order on."""
        if j == len(self.logits):
            self.logits.append(np.empty((self._samples, logits.shape[-1]), logits.dtype))
        self.logits[j][begin : begin + len(logits)] = logits

    def _begun(self) -> list[Begun]:
        return [
            Begun(self._done, logits[: self._done], rng.bit_generator.state, self.seconds)
            for logits, rng in zip(self.logits, self._masks, strict=True)
        ]

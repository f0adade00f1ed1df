"""The full batch through the cache once, on every core: each chunk goes forward and backward while it is there."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import numpy as np

from src.nn.layers import Array, Dense
from src.nn.losses import Loss
from src.nn.network import Network, Parameters
from src.support.threads import available_cores
from src.training.batching import Rows
from src.training.engines.base import Arrays, Engine
from src.training.engines.buffered import Pass
from src.training.optimizers import Optimizer

CHUNK = 1000  # rows: few enough for the cache, enough for BLAS
LANES = 8  # sums that are kept apart, and added in their order at the end: any number of cores gives equal bytes


def in_threads(pool: Executor, work: Callable[[Any], None], memories: Sequence[Any]) -> None:
    """Do work in a thread for each memory, and wait for all.

    NumPy's functions let other threads run while they compute; SciPy's BLAS does not. What is done about numbers that
    overflow belongs to the context.
    """
    for done in [pool.submit(copy_context().run, work, memory) for memory in memories]:
        done.result()


class Chunked(Engine):
    """Trains by the whole set at once."""

    def __init__(
        self,
        network: Network,
        parameters: Parameters,
        data: Arrays,
        *,
        loss: Loss,
        optimizer: Optimizer,
    ) -> None:
        super().__init__(network, parameters, data, loss=loss, optimizer=optimizer)
        n = len(data.labels)
        chunks = [slice(start, min(start + CHUNK, n)) for start in range(0, n, CHUNK)]
        self._lanes = [lane for k in range(LANES) if (lane := chunks[k::LANES])]
        self._sums = [
            tuple(tuple(np.empty_like(p) for p in layer) for layer in parameters)
            for _ in self._lanes
        ]
        self._workers = min(available_cores(), len(self._lanes))
        self._passes = [
            Pass(network, loss, min(CHUNK, n), data.precision) for _ in range(self._workers)
        ]

    def epoch(
        self, order: Rows, size: int, rates: list[float], masks: np.random.Generator
    ) -> Array:
        n = len(self.data.labels)
        last = self.network[-1]
        assert isinstance(last, Dense)
        logits = np.empty((n, last.fan_out), self.data.precision)

        lanes = iter(zip(self._lanes, self._sums, strict=True))

        def work(memory: Pass) -> None:
            for chunks, sums in lanes:  # of which each takes the next as soon as it is free
                self._run(memory, chunks, sums, logits, masks)

        with ThreadPoolExecutor(self._workers) as pool:
            in_threads(pool, work, self._passes)
        gradients = tuple(
            tuple(sum(arrays[1:], start=arrays[0].copy()) for arrays in zip(*layers, strict=True))
            for layers in zip(*self._sums, strict=True)
        )
        self.parameters, self.state = self.optimizer.update(
            self.parameters, gradients, self.state, rates[0]
        )
        return logits

    def _run(
        self,
        memory: Pass,
        chunks: Sequence[slice],
        sums: Parameters,
        logits: Array,
        masks: np.random.Generator,
    ) -> None:
        """Add up the gradients of some chunks."""
        for rows in chunks:
            z = logits[rows]
            memory.forward(self.data, rows, self.parameters, z, masks)
            dlogits = memory.loss_gradient(z, self.data.labels[rows], len(logits))
            for i, x, dy in memory.backward(self.parameters, dlogits):
                dW, db = sums[i]
                if rows is chunks[0]:
                    np.matmul(x.T, dy, out=dW)
                    memory.sum(dy, db)
                else:
                    dW += x.T @ dy
                    db += memory.sum(dy, np.empty_like(db))

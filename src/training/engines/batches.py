"""Batches over memory that is made once; a large batch goes through in chunks, on every core.

The first layers of an order group are one matrix, so that they take one product. The later layers
of all networks stand on a leading axis. docs/engines.md draws it.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from src.nn.layers import Activation, Array, Dense, Dropout
from src.nn.losses import Labels, Loss
from src.nn.network import Network
from src.support.threads import available_cores
from src.training.batching import Rows
from src.training.engines.base import Engine, OrderGroup
from src.training.engines.blas import add_product
from src.training.engines.memory import Weights
from src.training.optimizers import State, clip_factor

CHUNK = 1000  # rows at most: few enough for the cache, enough for BLAS
# Arithmetic that is worth a thread of its own. A batch with less stays in one piece.
CHUNK_FLOPS = 100e6
# Partial sums of the gradients. Chunk c belongs to sum c modulo their number, and they are added in
# their order. So any number of cores gives equal bytes.
PARTS = 8


def supports_batches(network: Network) -> bool:
    """Tell whether the network is dense layers with activations and dropout between them."""
    known = all(isinstance(layer, Dense | Activation | Dropout) for layer in network)
    return known and isinstance(network[0], Dense) and isinstance(network[-1], Dense)


class Batches(Engine):
    """Trains by batches in place. Supports what ``supports_batches`` says, and any optimizer."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        members = [group.members for group in self.groups]
        make = partial(Weights, self.network, members, self.dtype)
        self._weights, self._gradients, self._scratch = make(), make(), make()
        self._buffers = [make() for _ in range(self.optimizers[0].buffer_count)]
        self._weights.load(self.parameters)
        for i, buffer in enumerate(self._buffers):
            buffer.load([state.buffer(i) for state in self.states])
        self._decays = np.array([optimizer.weight_decay for optimizer in self.optimizers])

        flops = 6 * self._weights.flat.size * self.batch_size
        parts = max(1, min(PARTS, int(flops / CHUNK_FLOPS)))
        self._chunk = min(CHUNK, -(-self.batch_size // parts))
        chunks = -(-self.batch_size // self._chunk)
        self._sums = [self._gradients, *(make() for _ in range(min(PARTS, chunks) - 1))]
        self.workers = min(available_cores(), len(self._sums)) if chunks > 1 else 1
        self._passes: list[dict[int, _Pass]] = [{} for _ in range(self.workers)]
        # In one chunk, vanilla SGD is a product that adds to the weights where they are.
        self._direct = chunks == 1 and self.optimizers[0].is_vanilla

    def epoch(
        self,
        orders: Sequence[Rows],
        rates: npt.NDArray[np.float64],
        masks: Sequence[np.random.Generator],
    ) -> list[Array]:
        labels = self.labels(orders)
        logits = np.empty((*labels.shape, self._weights.biases[-1].shape[-1]), self.dtype)
        everything = _Samples(orders, labels, logits)
        updates = self.states[0].updates
        with ThreadPoolExecutor(self.workers) as pool:
            for step, lr in enumerate(rates):
                batch = everything.part(step * self.batch_size, self.batch_size)
                batch.masks = self._masks(batch.n, masks)
                updates += 1
                if self._direct:
                    self._descend(batch, lr)
                else:
                    self._add_up(batch, pool)
                    self._step(lr, updates)
        self.parameters = self._weights.networks()
        buffers = [buffer.networks() for buffer in self._buffers]
        self.states = [
            State.of(updates, parameters, [networks[j] for networks in buffers])
            for j, parameters in enumerate(self.parameters)
        ]
        return list(logits)

    def _masks(self, n: int, rngs: Sequence[np.random.Generator]) -> dict[int, Array]:
        """Return the masks (k, n, units) of a batch by the place of their layer."""
        return {
            i: np.stack([layer.mask((n,), rng, self.dtype) for rng in rngs])
            for i, layer in enumerate(self.network)
            if isinstance(layer, Dropout)
        }

    def _pass(self, worker: int, n: int) -> "_Pass":
        """Return a worker's memory for n samples."""
        known = self._passes[worker]
        if n not in known:
            known[n] = _Pass(self.network, self.groups, self._weights, n)
        return known[n]

    def _descend(self, batch: "_Samples", lr: npt.NDArray[np.float64]) -> None:
        """Make an update of vanilla SGD: W ← (1 − lr λ) W − xᵀ (lr dz)."""
        weights, steps, memory = self._weights, self._gradients, self._pass(0, batch.n)
        kept = weights.per_matrix(1 - lr * self._decays) if self._decays.any() else None
        memory.forward(batch)
        memory.loss_gradient(batch, self.loss, weights.column(lr / batch.n))
        for i, xs, dzs, dz in memory.backward(batch):
            weights.biases[i] -= np.matmul(memory.ones, dz, out=steps.biases[i])
            left = kept[i] if kept else [1.0] * len(xs)
            for W, step, x, d, share in zip(
                weights.matrices[i], steps.matrices[i], xs, dzs, left, strict=True
            ):
                _subtract_product(W, x, d, share, step)

    def _add_up(self, batch: "_Samples", pool: Executor) -> None:
        """Compute the gradients of a batch, in chunks that all cores share."""
        chunks = [batch.part(start, self._chunk) for start in range(0, batch.n, self._chunk)]
        used = self._sums[: len(chunks)]
        parts = iter(enumerate(used))

        def work(worker: int) -> None:
            for q, sums in parts:  # each worker takes the next as soon as it is free
                for chunk in chunks[q :: len(used)]:
                    memory = self._pass(worker, chunk.n)
                    memory.forward(chunk)
                    memory.loss_gradient(chunk, self.loss, 1 / batch.n)
                    memory.add_gradients(chunk, sums, first=chunk is chunks[q])

        if len(used) == 1:
            work(0)
        else:
            # NumPy's settings for numbers that overflow belong to the context.
            tasks = [
                pool.submit(copy_context().run, work, worker) for worker in range(self.workers)
            ]
            for task in tasks:
                task.result()
        for sums in used[1:]:
            self._gradients.flat += sums.flat

    def _step(self, lr: npt.NDArray[np.float64], updates: int) -> None:
        """Clip the gradients, add the penalty's, and move the weights."""
        weights, gradients, optimizer = self._weights, self._gradients, self.optimizers[0]
        if optimizer.clip_norm is not None:
            length = np.sqrt(gradients.squared_lengths())
            factors = clip_factor(length, optimizer.clip_norm)
            for g, factor in zip(gradients.pieces, gradients.per_piece(factors), strict=True):
                g *= factor
        if self._decays.any():
            decays = weights.per_piece(self._decays)[: weights.weight_pieces]
            for g, p, decay in zip(gradients.pieces, weights.pieces, decays, strict=False):
                g += p * decay
        for p, g, rate, scratch, *buffers in zip(
            weights.pieces,
            gradients.pieces,
            weights.per_piece(lr),
            self._scratch.pieces,
            *(buffer.pieces for buffer in self._buffers),
            strict=True,
        ):
            optimizer.step(p, g, tuple(buffers), rate, updates, scratch)


def _subtract_product(W: Array, x: Array, d: Array, left: float | Array, scratch: Array) -> None:
    """Set W to left · W − xᵀ d."""
    if not isinstance(left, float):  # a number per network
        W *= left
        left = 1.0
    if W.ndim == 2:
        add_product(-1, x, d, left, W)
    else:
        W -= np.matmul(x.swapaxes(1, 2), d, out=scratch)


@dataclass
class _Samples:
    """Some samples in their order, and where their logits belong."""

    rows: Sequence[Rows]  # of each group
    labels: Labels  # (k, n)
    logits: Array  # (k, n, classes)
    masks: dict[int, Array] = field(default_factory=dict)

    @property
    def n(self) -> int:
        return len(self.labels[0])

    def part(self, start: int, size: int) -> "_Samples":
        """Return up to ``size`` of the samples."""
        end = min(start + size, self.n)
        return _Samples(
            [_part(rows, start, end) for rows in self.rows],
            self.labels[:, start:end],
            self.logits[:, start:end],
            {i: mask[:, start:end] for i, mask in self.masks.items()},
        )


def _part(rows: Rows, start: int, end: int) -> Rows:
    if isinstance(rows, slice):
        return slice(rows.start + start, rows.start + end)
    return rows[start:end]


class _Pass:
    """The memory of one pass of n samples, forward and backward, through all networks."""

    def __init__(
        self, network: Network, groups: Sequence[OrderGroup], weights: Weights, n: int
    ) -> None:
        k, dtype = weights.k, weights.flat.dtype
        self.network, self.groups, self.weights = network, groups, weights
        ends = np.cumsum([group.members for group in groups]).tolist()
        self.members = [
            slice(end - group.members, end) for end, group in zip(ends, groups, strict=True)
        ]
        self.ones = np.ones((1, n), dtype)
        # Of each layer: its output y, ∂L/∂x of its input, and the slopes of an activation.
        self.y: list[Array] = []
        self.dx: list[Array] = []
        self.slopes: list[Array] = []
        for layer in network:
            units = self.y[-1].shape[-1] if self.y else 0
            fresh = partial(np.empty, (k, n, units), dtype)
            self.dx.append(fresh() if isinstance(layer, Dense) else self.dx[-1])
            self.slopes.append(fresh() if isinstance(layer, Activation) else self.ones)
            if isinstance(layer, Dense):
                self.y.append(np.empty((k, n, layer.fan_out), dtype))
            elif isinstance(layer, Activation) and layer.derivative_from_y:
                self.y.append(self.y[-1])  # y stands where x was
            else:
                self.y.append(fresh())
        self.dlogits = np.empty_like(self.y[-1])
        fan_in, units = network[0].parameter_shapes[0]
        self.samples = [np.empty((n, fan_in), dtype) for _ in groups]
        # z or dz of the first layer as the columns of its matrix; of one network, z itself.
        self.wide = [
            self.y[0][own].swapaxes(0, 1)
            if group.members == 1
            else np.empty((n, group.members, units), dtype)
            for group, own in zip(groups, self.members, strict=True)
        ]

    def forward(self, samples: _Samples) -> None:
        """Carry samples through the networks and write their logits."""
        self.x = [
            group.data.rows(rows, out)
            for group, rows, out in zip(self.groups, samples.rows, self.samples, strict=True)
        ]
        dense = 0
        for i, (layer, y) in enumerate(zip(self.network, self.y, strict=True)):
            if i == 0:
                self._first_layer(y)
            elif isinstance(layer, Dense):
                dense += 1
                (W,) = self.weights.matrices[dense]
                np.matmul(self.y[i - 1], W, out=y)
                np.add(y, self.weights.biases[dense], out=y)
            elif isinstance(layer, Activation):
                layer.apply_into(self.y[i - 1], y)
            else:
                np.multiply(self.y[i - 1], samples.masks[i], out=y)
        samples.logits[...] = y

    def _first_layer(self, z: Array) -> None:
        for x, W, wide, own in zip(
            self.x, self.weights.matrices[0], self.wide, self.members, strict=True
        ):
            np.matmul(x, W, out=wide.reshape(len(x), -1))
            np.add(wide.swapaxes(0, 1), self.weights.biases[0][own], out=z[own])

    def loss_gradient(self, samples: _Samples, loss: Loss, factors: float | Array) -> None:
        """Compute each sample's ∂L/∂logits, multiplied by ``factors``."""
        loss.gradient_into(self.y[-1], samples.labels, factors, self.dlogits)

    def backward(
        self, samples: _Samples
    ) -> Iterator[tuple[int, Sequence[Array], Sequence[Array], Array]]:
        """Yield of each dense layer, the last one first: its number, x and dz by matrix, and dz.

        Its weights may be changed before the next layer is asked for.
        """
        dz, dense = self.dlogits, len(self.weights.biases)
        for i in range(len(self.network) - 1, 0, -1):
            layer, dx = self.network[i], self.dx[i]
            if isinstance(layer, Dense):
                dense -= 1
                x, (W,) = self.y[i - 1], self.weights.matrices[dense]
                np.matmul(dz, W.swapaxes(-1, -2), out=dx)
                yield dense, *(([x], [dz]) if W.ndim == 3 else (x, dz)), dz
                dz = dx
            elif isinstance(layer, Activation):
                layer.derivative_into(self.y[i - 1], self.y[i], self.slopes[i])
                np.multiply(dz, self.slopes[i], out=dz)
            else:
                np.multiply(dz, samples.masks[i], out=dz)
        yield 0, self.x, [self._columns(dz, q) for q in range(len(self.x))], dz

    def _columns(self, dz: Array, q: int) -> Array:
        """Return the first layers' dz of a group's networks as the columns of one matrix."""
        own, wide = dz[self.members[q]], self.wide[q]
        if len(own) > 1:
            wide[...] = own.swapaxes(0, 1)
        columns: Array = wide.reshape(len(wide), -1) if len(own) > 1 else own[0]
        return columns

    def add_gradients(self, samples: _Samples, sums: Weights, *, first: bool) -> None:
        """Set sums of gradients to those of these samples, or if not the ``first`` add them."""
        for i, xs, dzs, dz in self.backward(samples):
            products = [(sums.biases[i], self.ones, dz)]  # a sum is a product with ones
            products += [
                (total, x.swapaxes(-1, -2), d)
                for total, x, d in zip(sums.matrices[i], xs, dzs, strict=True)
            ]
            for total, x, d in products:
                if first:
                    np.matmul(x, d, out=total)
                else:
                    total += x @ d

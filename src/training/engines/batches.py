"""Batches over memory that is made once; a large batch goes through in chunks, on every core.

The first layers of an order group are one matrix, so that they take one product. The later layers
of all networks stand on a leading axis. docs/engines.md draws it.
"""

from collections.abc import Callable, Iterator, Sequence
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
from src.training.batching import Rows, part
from src.training.engines.base import Engine, OrderGroup
from src.training.engines.blas import add_product
from src.training.engines.memory import Weights
from src.training.optimizers import State, clip_factor

CHUNK = 1000  # rows at most: few enough for the cache, enough for BLAS
# Arithmetic and rows that are worth a thread of its own. A batch with less stays in one piece: with
# few rows, a gradient as large as the weights costs more than what it saves.
CHUNK_FLOPS = 100e6
CHUNK_ROWS = 128
SHARED = 250_000  # numbers in an update that is worth a thread of its own
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
        self._any_decays = bool(self._decays.any())
        self._dropouts = [
            (i, layer) for i, layer in enumerate(self.network) if isinstance(layer, Dropout)
        ]

        flops = 6 * self._weights.flat.size * self.batch_size
        parts = max(1, min(PARTS, int(flops / CHUNK_FLOPS), self.batch_size // CHUNK_ROWS))
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
        everything = _Samples(orders, _joined(labels), _joined(logits))
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
                    self._step(lr, updates, pool)
        self.parameters = self._weights.networks()
        buffers = [buffer.networks() for buffer in self._buffers]
        self.states = [
            State.of(updates, parameters, [networks[j] for networks in buffers])
            for j, parameters in enumerate(self.parameters)
        ]
        return list(logits)

    def _masks(self, n: int, rngs: Sequence[np.random.Generator]) -> dict[int, Array]:
        """Return the masks (..., n, units) of a batch by the place of their layer."""
        return {
            i: _joined([layer.mask((n,), rng, self.dtype) for rng in rngs])
            for i, layer in self._dropouts
        }

    def _pass(self, worker: int, n: int) -> "_Pass":
        """Return a worker's memory for n samples."""
        known = self._passes[worker]
        if n not in known:
            known[n] = _Pass(self.network, self.groups, self.members(), self._weights, n)
        return known[n]

    def _descend(self, batch: "_Samples", lr: npt.NDArray[np.float64]) -> None:
        """Make an update of vanilla SGD: W ← (1 − lr λ) W − xᵀ (lr dz)."""
        weights, steps, memory = self._weights, self._gradients, self._pass(0, batch.n)
        kept = weights.per_matrix(1 - lr * self._decays) if self._any_decays else None
        memory.forward(batch)
        memory.loss_gradient(batch, self.loss, weights.column(lr / batch.n))
        for i, xs, dzs, dz in memory.backward(batch):
            weights.biases[i] -= np.matmul(memory.ones, dz, out=steps.biases[i])
            for q, (x, d) in enumerate(zip(xs, dzs, strict=True)):
                left = kept[i][q] if kept else 1.0
                _subtract_product(weights.matrices[i][q], x, d, left, steps.matrices[i][q])

    def _add_up(self, batch: "_Samples", pool: Executor) -> None:
        """Compute the gradients of a batch, in chunks that all cores share."""
        if batch.n <= self._chunk:
            self._add_chunks(0, [batch], self._gradients, batch.n)
            return
        chunks = [batch.part(start, self._chunk) for start in range(0, batch.n, self._chunk)]
        used = self._sums[: len(chunks)]

        def compute(worker: int, q: int) -> None:
            self._add_chunks(worker, chunks[q :: len(used)], used[q], batch.n)

        def add(worker: int, i: int) -> None:
            for sums in used[1:]:
                self._gradients.pieces[i] += sums.pieces[i]

        self._share(pool, self.workers, len(used), compute)
        self._share_update(pool, add)

    def _share_update(self, pool: Executor, do: Callable[[int, int], None]) -> None:
        """Let the workers do something to each of the ``pieces``, if that is worth a thread."""
        workers = self.workers if self._weights.flat.size >= SHARED else 1
        self._share(pool, workers, len(self._weights.pieces), do)

    def _share(
        self, pool: Executor, workers: int, count: int, do: Callable[[int, int], None]
    ) -> None:
        """Let the workers do so many things: ``do(worker, number)``, in any order."""
        numbers = iter(range(count))

        def work(worker: int) -> None:
            for number in numbers:  # each worker takes the next as soon as it is free
                do(worker, number)

        if workers == 1:
            work(0)
            return
        # NumPy's settings for numbers that overflow belong to the context.
        tasks = [pool.submit(copy_context().run, work, worker) for worker in range(workers)]
        for task in tasks:
            task.result()

    def _add_chunks(
        self, worker: int, chunks: Sequence["_Samples"], sums: Weights, batch_size: int
    ) -> None:
        """Set sums to the gradients of some chunks of a batch."""
        for c, chunk in enumerate(chunks):
            memory = self._pass(worker, chunk.n)
            memory.forward(chunk)
            memory.loss_gradient(chunk, self.loss, 1 / batch_size)
            memory.add_gradients(chunk, sums, first=c == 0)

    def _step(self, lr: npt.NDArray[np.float64], updates: int, pool: Executor) -> None:
        """Clip the gradients, add the penalty's, and move the weights, piece by piece."""
        weights, gradients, optimizer = self._weights, self._gradients, self.optimizers[0]
        rates = weights.per_piece(lr)
        decays = weights.per_piece(self._decays) if self._any_decays else []
        factors: list[float | Array] = []
        if optimizer.clip_norm is not None:
            length = np.sqrt(gradients.squared_lengths())
            factors = gradients.per_piece(clip_factor(length, optimizer.clip_norm))

        def move(worker: int, i: int) -> None:
            p, g, scratch = weights.pieces[i], gradients.pieces[i], self._scratch.pieces[i]
            if factors:
                g *= factors[i]
            if decays and i < weights.weight_pieces:
                g += np.multiply(p, decays[i], out=scratch)
            buffers = tuple(buffer.pieces[i] for buffer in self._buffers)
            optimizer.step(p, g, buffers, rates[i], updates, scratch)

        self._share_update(pool, move)


def _subtract_product(W: Array, x: Array, d: Array, left: float | Array, scratch: Array) -> None:
    """Set W to left · W − xᵀ d."""
    if not isinstance(left, float):  # a number per network
        W *= left
        left = 1.0
    if W.ndim == 2:
        add_product(-1, x, d, left, W)
    else:
        W -= np.matmul(x.swapaxes(1, 2), d, out=scratch)


def _joined(arrays: Any) -> Any:
    """Return the networks' arrays on a leading axis; the array of a single network as it is."""
    return arrays[0] if len(arrays) == 1 else np.asarray(arrays)


@dataclass(slots=True)
class _Samples:
    """Some samples in their order, and where their logits belong."""

    rows: Sequence[Rows]  # of each group
    labels: Labels  # (..., n)
    logits: Array  # (..., n, classes)
    masks: dict[int, Array] = field(default_factory=dict)

    @property
    def n(self) -> int:
        n: int = self.labels.shape[-1]
        return n

    def part(self, start: int, size: int) -> "_Samples":
        """Return up to ``size`` of the samples."""
        end = min(start + size, self.n)
        return _Samples(
            [part(rows, start, end) for rows in self.rows],
            self.labels[..., start:end],
            self.logits[..., start:end, :],
            {i: mask[..., start:end, :] for i, mask in self.masks.items()},
        )


@dataclass(slots=True)
class _Step:
    """What a layer after the first reads and writes in a pass."""

    place: int  # in the network
    activation: Activation | None
    dense: int | None  # its number among the dense layers
    W: Array  # of a dense layer
    b: Array
    x: Array
    y: Array  # may be x itself
    dx: Array
    slope: Array  # of an activation


class _Pass:
    """The memory of one pass of n samples, forward and backward, through all networks.

    The arrays of several networks have the networks on a leading axis.
    """

    def __init__(
        self,
        network: Network,
        groups: Sequence[OrderGroup],
        members: Sequence[slice],  # where each group's networks stand in the stack
        weights: Weights,
        n: int,
    ) -> None:
        self.groups, self.members, self.weights = groups, members, weights
        dtype = weights.flat.dtype
        fresh: Callable[..., Array] = partial(np.empty, dtype=dtype)
        self.ones = np.ones((1, n), dtype)
        fan_in, units = network[0].parameter_shapes[0]
        self.samples = [fresh((n, fan_in)) for _ in groups]
        # z or dz of the first layer as the columns of its matrix.
        self.wide = [fresh((n, group.members, units)) for group in groups]
        y: Array = fresh((*weights.leading, n, units))
        self.z = y
        dx: Array = y
        dense = 0
        self.steps: list[_Step] = []
        for place, layer in enumerate(network[1:], 1):
            x: Array = y
            slope: Array = self.ones  # of a layer that has none, as W and b
            W, b = slope, slope
            activation = layer if isinstance(layer, Activation) else None
            if isinstance(layer, Dense):
                dense += 1
                (W,), b = weights.matrices[dense], weights.biases[dense]
                y, dx = fresh((*weights.leading, n, layer.fan_out)), fresh(x.shape)
            elif activation:
                slope = fresh(x.shape)
                y = x if activation.derivative_from_y else fresh(x.shape)
            else:
                y = fresh(x.shape)
            number = dense if isinstance(layer, Dense) else None
            self.steps.append(_Step(place, activation, number, W, b, x, y, dx, slope))
        self.logits, self.dlogits = y, np.empty_like(y)

    def forward(self, samples: _Samples) -> None:
        """Carry samples through the networks and write their logits."""
        self.x = [
            group.data.rows(rows, out)
            for group, rows, out in zip(self.groups, samples.rows, self.samples, strict=True)
        ]
        self._first_layer()
        for step in self.steps:
            if step.activation:
                step.activation.apply_into(step.x, step.y)
            elif step.dense:
                np.matmul(step.x, step.W, out=step.y)
                np.add(step.y, step.b, out=step.y)
            else:
                np.multiply(step.x, samples.masks[step.place], out=step.y)
        samples.logits[...] = self.logits

    def _first_layer(self) -> None:
        matrices, b, z = self.weights.matrices[0], self.weights.biases[0], self.z
        if self.weights.k == 1:
            np.matmul(self.x[0], matrices[0], out=z)
            np.add(z, b, out=z)
            return
        for x, W, wide, own in zip(self.x, matrices, self.wide, self.members, strict=True):
            np.matmul(x, W, out=wide.reshape(len(x), -1))
            np.add(wide.swapaxes(0, 1), b[own], out=z[own])

    def loss_gradient(self, samples: _Samples, loss: Loss, factors: float | Array) -> None:
        """Compute each sample's ∂L/∂logits, multiplied by ``factors``."""
        loss.gradient_into(self.logits, samples.labels, factors, self.dlogits)

    def backward(
        self, samples: _Samples
    ) -> Iterator[tuple[int, Sequence[Array], Sequence[Array], Array]]:
        """Yield of each dense layer, the last one first: its number, x and dz by matrix, and dz.

        Its weights may be changed before the next layer is asked for.
        """
        dz = self.dlogits
        for step in reversed(self.steps):
            if step.activation:
                step.activation.derivative_into(step.x, step.y, step.slope)
                np.multiply(dz, step.slope, out=dz)
            elif step.dense:
                np.matmul(dz, step.W.swapaxes(-1, -2), out=step.dx)
                yield step.dense, [step.x], [dz], dz
                dz = step.dx
            else:
                np.multiply(dz, samples.masks[step.place], out=dz)
        yield 0, self.x, self._columns(dz), dz

    def _columns(self, dz: Array) -> list[Array]:
        """Return the first layers' dz of each group's networks as the columns of one matrix."""
        if self.weights.k == 1:
            return [dz]
        for wide, own in zip(self.wide, self.members, strict=True):
            wide[...] = dz[own].swapaxes(0, 1)
        return [wide.reshape(len(wide), -1) for wide in self.wide]

    def add_gradients(self, samples: _Samples, sums: Weights, *, first: bool) -> None:
        """Set sums of gradients to those of these samples, or if not the ``first`` add them."""
        for i, xs, dzs, dz in self.backward(samples):
            _add_product(sums.biases[i], self.ones, dz, first)  # a sum is a product with ones
            for total, x, d in zip(sums.matrices[i], xs, dzs, strict=True):
                _add_product(total, x.swapaxes(-1, -2), d, first)


def _add_product(total: Array, x: Array, d: Array, first: bool) -> None:
    """Set ``total`` to x d, or if this is not the ``first`` add it."""
    if not first:
        total += x @ d
    elif x.shape[-1] == 1:  # of a single sample: NumPy's products of vectors are slow
        np.multiply(x, d, out=total)
    else:
        np.matmul(x, d, out=total)

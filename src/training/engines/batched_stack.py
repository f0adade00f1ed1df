"""Batches, many networks: the first layers of all that see the same samples are one product, the others one call each."""

from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from src.nn.layers import Activation, Array, Dropout
from src.nn.losses import Loss, SoftmaxCrossEntropy
from src.nn.network import Network, Parameters, backward, forward
from src.support.threads import available_cores
from src.training.batching import Rows, batches
from src.training.engines.chunked import CHUNK, LANES, in_threads
from src.training.engines.inplace import Softmax, curve
from src.training.engines.stack import Stack
from src.training.optimizers import SGD, Optimizer, State, clipped


def serves_batches(network: Network, optimizer: Optimizer) -> bool:
    """Tell whether this is descent without memory through dense layers and activations."""
    plain = type(optimizer) is SGD and not optimizer.momentum and optimizer.clip_norm is None
    return plain and not any(isinstance(layer, Dropout) for layer in network)


class PlainStack(Stack):
    """The plain engine's own code, which takes a stack for a network with one more axis. Serves all but dropout."""

    def epoch(self, orders: Sequence[Rows], rates: npt.NDArray[np.float64]) -> list[Array]:
        dtype = self.parameters[0][0][0].dtype
        parameters: Parameters = tuple(
            tuple(np.stack(arrays) for arrays in zip(*layers, strict=True))
            for layers in zip(*self.parameters, strict=True)
        )
        memories = zip(*(state.memory for state in self.states), strict=True)
        memory = tuple(
            tuple(
                tuple(np.stack(of) for of in zip(*arrays, strict=True))
                for arrays in zip(*layers, strict=True)
            )
            for layers in memories
        )
        state = State(self.states[0].updates, memory)
        decay = np.array([optimizer.weight_decay for optimizer in self.optimizers], dtype)[
            :, None, None
        ]
        # The decays differ, so they are added here: after clipping, as the optimizer would.
        rule = replace(self.optimizers[0], weight_decay=0.0, clip_norm=None)
        clip_norm = self.optimizers[0].clip_norm
        members = [lane.members for lane in self.lanes]
        passes = []
        for step, rows in enumerate(
            zip(*(batches(order, self.size) for order in orders), strict=True)
        ):
            xs = [lane.data.rows(own) for lane, own in zip(self.lanes, rows, strict=True)]
            seen = [lane.data.labels[own] for lane, own in zip(self.lanes, rows, strict=True)]
            x = xs[0] if len(xs) == 1 else np.repeat(np.stack(xs), members, axis=0)
            labels = seen[0] if len(xs) == 1 else np.repeat(np.stack(seen), members, axis=0)

            values = forward(self.network, parameters, x)
            gradients = backward(
                self.network, parameters, values, self.loss.gradient(values[-1], labels)
            )
            if clip_norm is not None:
                gradients = clipped(gradients, clip_norm)
            if decay.any():
                gradients = tuple(
                    tuple(
                        g + decay * p if i == 0 else g
                        for i, (g, p) in enumerate(zip(layer, own, strict=True))
                    )
                    for layer, own in zip(gradients, parameters, strict=True)
                )
            lr = rates[step].astype(dtype)[:, None, None]
            parameters, state = rule.update(parameters, gradients, state, lr)
            passes.append(values[-1])
        for k in range(len(self.parameters)):
            self.parameters[k] = tuple(tuple(p[k].copy() for p in layer) for layer in parameters)
            own = tuple(
                tuple(tuple(m[k].copy() for m in of) for of in layer) for layer in state.memory
            )
            self.states[k] = State(state.updates, own)
        return list(np.concatenate(passes, axis=-2))


class BatchedStack(Stack):
    """Trains by batches in place; a large batch goes through in chunks, on every core. Serves what ``serves_batches`` says."""

    def prepare(self) -> None:
        parameters = self.parameters
        self._decay = np.array([optimizer.weight_decay for optimizer in self.optimizers])
        first, *others = self.dense
        # (in, members, units), so that all networks of a lane are the columns of one matrix
        self._weights = _Weights(
            [np.stack([parameters[j][first][0] for j in own], axis=1) for own in self.members],
            [np.stack([p[i][0] for p in parameters]) for i in others],
            [np.stack([p[i][1] for p in parameters]) for i in self.dense],
        )
        chunks = min(LANES, -(-self.size // CHUNK))
        self._sums = [self._weights.like() for _ in range(chunks)]
        self._workers = min(available_cores(), chunks)
        rows = min(self.size, CHUNK)
        self._passes = [
            _Pass(self._weights, self.columns, self.activation, self.loss, rows)
            for _ in range(self._workers)
        ]

    def epoch(self, orders: Sequence[Rows], rates: npt.NDArray[np.float64]) -> list[Array]:
        labels = np.stack(
            [lane.data.labels[order] for lane, order in zip(self.lanes, orders, strict=True)]
        )
        labels = np.repeat(labels, [lane.members for lane in self.lanes], axis=0)
        last = self._weights.biases[-1]
        logits = np.empty((*labels.shape, last.shape[-1]), last.dtype)
        start = 0
        with ThreadPoolExecutor(self._workers) as pool:
            for rows, lr in zip(
                zip(*(batches(order, self.size) for order in orders), strict=True),
                rates,
                strict=True,
            ):
                end = min(start + self.size, labels.shape[1])
                lr = lr.astype(last.dtype)
                steps = self._steps(pool, rows, labels[:, start:end], logits[:, start:end], lr)
                if self._decay.any():
                    self._weights.shrink(1 - lr * self._decay.astype(lr.dtype))
                for p, step in zip(self._weights.arrays(), steps.arrays(), strict=True):
                    p -= step
                start = end
        self._unstack(len(rates))
        return list(logits)

    def _steps(
        self,
        pool: Executor,
        rows: Sequence[Rows],
        labels: npt.NDArray[np.int64],
        logits: Array,
        lr: Array,
    ) -> "_Weights":
        """Return lr times the gradients of a batch, of which each lane has its own rows, and write its logits."""
        n = labels.shape[1]
        pieces = list(zip(*(batches(own, CHUNK) for own in rows), strict=True))
        used = self._sums[: len(pieces)]
        lanes = iter(enumerate(used))

        def work(memory: _Pass) -> None:
            for q, sums in lanes:  # of which each takes the next as soon as it is free
                for chunk in range(q, len(pieces), len(used)):
                    place = slice(chunk * CHUNK, min((chunk + 1) * CHUNK, n))
                    xs = [
                        lane.data.rows(own)
                        for lane, own in zip(self.lanes, pieces[chunk], strict=True)
                    ]
                    z = memory.forward(xs, self._weights)
                    logits[:, place] = z
                    dlogits = memory.loss_gradient(z, labels[:, place], lr / n)
                    memory.backward(xs, self._weights, dlogits, sums, chunk == q)

        if len(used) == 1:
            work(self._passes[0])
        else:
            in_threads(pool, work, self._passes)
        for part in used[1:]:
            for total, array in zip(used[0].arrays(), part.arrays(), strict=True):
                total += array
        return used[0]

    def _unstack(self, updates: int) -> None:
        """Give each network its parameters again, in memory of their own."""
        weights = self._weights
        for lane, own in enumerate(self.members):
            for j in own:
                arrays: list[tuple[Array, ...]] = [()] * len(self.network)
                W1 = weights.first[lane][:, j - own.start]
                arrays[self.dense[0]] = (W1.copy(), weights.biases[0][j].copy())
                for i, W, b in zip(self.dense[1:], weights.others, weights.biases[1:], strict=True):
                    arrays[i] = (W[j].copy(), b[j].copy())
                self.parameters[j] = tuple(arrays)
                self.states[j] = State(self.states[j].updates + updates, self.states[j].memory)


@dataclass(frozen=True)
class _Weights:
    """The parameters of all networks, or their gradients."""

    first: list[
        Array
    ]  # of each lane, (in, members, units): its networks' first layers are the columns of one matrix
    others: list[Array]  # (k, in, out)
    biases: list[Array]  # (k, 1, units), those of the first layer included

    def arrays(self) -> list[Array]:
        return [*self.first, *self.others, *self.biases]

    def shrink(self, kept: Array) -> None:
        """Leave the part ``kept (k,)`` of each network's weights."""
        ends = np.cumsum([W.shape[1] for W in self.first])
        for W, of_lane in zip(self.first, np.split(kept, ends[:-1]), strict=True):
            wide = W.reshape(len(W), -1)
            wide *= np.repeat(of_lane, W.shape[2])
        for W in self.others:
            W *= kept[:, None, None]

    def like(self) -> "_Weights":
        """Return memory of the same shapes."""
        return _Weights(
            *(
                [np.empty_like(array) for array in arrays]
                for arrays in (self.first, self.others, self.biases)
            )
        )


class _Pass:
    """The memory of one pass of up to ``rows`` samples forward and backward through all networks."""

    def __init__(
        self,
        weights: _Weights,
        columns: Sequence[slice],
        activation: Activation,
        loss: Loss,
        rows: int,
    ) -> None:
        self.activation, self.loss, self.columns = activation, loss, columns
        k, units, dtype = (
            len(weights.biases[0]),
            [b.shape[-1] for b in weights.biases],
            weights.biases[0].dtype,
        )
        self.wide = [
            np.empty((rows, *W.shape[1:]), dtype) for W in weights.first
        ]  # z or dz, in the order of W's columns
        self.z, self.d = ([np.empty((k, rows, n), dtype) for n in units] for _ in range(2))
        self.curves = [curve(activation, (k, rows, n), dtype) for n in units[:-1]]
        # An activation with a twin makes y where its z was.
        self.y = [
            z if twin else np.empty_like(z) for z, twin in zip(self.z, self.curves, strict=False)
        ]
        self.ones = np.ones((1, rows), dtype)
        self.softmax = Softmax(units[-1], k * rows, dtype)

    def forward(self, xs: list[Array], weights: _Weights) -> Array:
        """Return the logits (k, rows, classes) of the samples of each lane."""
        n = len(xs[0])
        z = _part(self.z[0], n)
        for x, W, columns, wide in zip(xs, weights.first, self.columns, self.wide, strict=True):
            np.matmul(x, W.reshape(len(W), -1), out=wide[:n].reshape(n, -1))
            np.add(wide[:n].swapaxes(0, 1), weights.biases[0][columns], out=z[columns])
        for i, (W, b) in enumerate(zip(weights.others, weights.biases[1:], strict=True)):
            y, twin = _part(self.y[i], n), self.curves[i]
            if twin:
                twin.apply(y)
            else:
                y[...] = self.activation.apply(z)
            z = np.matmul(y, W, out=_part(self.z[i + 1], n))
            z += b
        return z

    def backward(
        self, xs: list[Array], weights: _Weights, dlogits: Array, sums: _Weights, first: bool
    ) -> None:
        """Set, or if not the ``first`` add to, the gradients of a batch of which this is a part."""
        dz, n = dlogits, dlogits.shape[1]
        ones = self.ones[:, :n]
        for i in range(len(weights.others) - 1, -1, -1):
            y, W, twin = _part(self.y[i], n), weights.others[i], self.curves[i]
            _put(sums.others[i], y.swapaxes(1, 2), dz, first)
            _put(sums.biases[i + 1], ones, dz, first)
            dy = np.matmul(dz, W.swapaxes(1, 2), out=_part(self.d[i], n))
            if twin:
                twin.multiply(dy, y)
            else:
                dy *= self.activation.derivative(_part(self.z[i], n), y)
            dz = dy
        _put(sums.biases[0], ones, dz, first)
        for x, total, columns, wide in zip(xs, sums.first, self.columns, self.wide, strict=True):
            wide[:n] = dz[columns].swapaxes(0, 1)
            _put(total.reshape(len(total), -1), x.T, wide[:n].reshape(n, -1), first)

    def loss_gradient(self, logits: Array, labels: npt.NDArray[np.int64], factors: Array) -> Array:
        """Return for each sample the gradient of its own loss, times its network's factor (k,)."""
        k, n, classes = logits.shape
        if type(self.loss) is not SoftmaxCrossEntropy:
            gradient: Array = self.loss.gradient(logits, labels) * (n * factors[:, None, None])
            return gradient
        p, smoothing = _part(self.d[-1], n), self.loss.smoothing
        self.softmax(logits.reshape(-1, classes).T, np.repeat(factors, n), p.reshape(-1, classes).T)
        p[np.arange(k)[:, None], np.arange(n), labels] -= (1 - smoothing) * factors[:, None]
        if smoothing:
            p -= (smoothing / classes) * factors[:, None, None]
        return p


def _part(memory: Array, rows: int) -> Array:
    """Return memory (k, up to rows, units) for fewer rows, in a row."""
    k, most, units = memory.shape
    return (
        memory if rows == most else memory.reshape(-1)[: k * rows * units].reshape(k, rows, units)
    )


def _put(total: Array, x: Array, y: Array, first: bool) -> None:
    """Set a sum to a first product, or add the next."""
    if first:
        np.matmul(x, y, out=total)
    else:
        total += x @ y

"""Batches, many networks: the first layers of all that see the same samples are one product, the others one call each."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from src.batching import Rows, batches
from src.engines.chunked import CHUNK
from src.engines.inplace import add_product, curve
from src.engines.stack import Stack
from src.nn.layers import Array, Dropout
from src.nn.losses import SoftmaxCrossEntropy
from src.nn.network import Network, Parameters, backward, forward
from src.optimizers import SGD, Optimizer, State, clipped


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
            tuple(tuple(np.stack(of) for of in zip(*arrays, strict=True)) for arrays in zip(*layers, strict=True))
            for layers in memories
        )
        state = State(self.states[0].updates, memory)
        decay = np.array([optimizer.weight_decay for optimizer in self.optimizers], dtype)[:, None, None]
        # The decays differ, so they are added here: after clipping, as the optimizer would.
        rule = replace(self.optimizers[0], weight_decay=0.0, clip_norm=None)
        clip_norm = self.optimizers[0].clip_norm
        members = [lane.members for lane in self.lanes]
        passes = []
        for step, rows in enumerate(zip(*(batches(order, self.size) for order in orders), strict=True)):
            xs = [lane.data.rows(own) for lane, own in zip(self.lanes, rows, strict=True)]
            seen = [lane.data.labels[own] for lane, own in zip(self.lanes, rows, strict=True)]
            x = xs[0] if len(xs) == 1 else np.repeat(np.stack(xs), members, axis=0)
            labels = seen[0] if len(xs) == 1 else np.repeat(np.stack(seen), members, axis=0)

            values = forward(self.network, parameters, x)
            gradients = backward(self.network, parameters, values, self.loss.gradient(values[-1], labels))
            if clip_norm is not None:
                gradients = clipped(gradients, clip_norm)
            if decay.any():
                gradients = tuple(
                    tuple(g + decay * p if i == 0 else g for i, (g, p) in enumerate(zip(layer, own, strict=True)))
                    for layer, own in zip(gradients, parameters, strict=True)
                )
            lr = rates[step].astype(dtype)[:, None, None]
            parameters, state = rule.update(parameters, gradients, state, lr)
            passes.append(values[-1])
        for k in range(len(self.parameters)):
            self.parameters[k] = tuple(tuple(p[k].copy() for p in layer) for layer in parameters)
            own = tuple(tuple(tuple(m[k].copy() for m in of) for of in layer) for layer in state.memory)
            self.states[k] = State(state.updates, own)
        return list(np.concatenate(passes, axis=-2))


class BatchedStack(Stack):
    """Trains by batches in place; a large batch goes through in chunks. Serves what ``serves_batches`` says."""

    def prepare(self) -> None:
        self._rows = min(self.size, CHUNK)
        self._decay = np.array([optimizer.weight_decay for optimizer in self.optimizers])
        parameters = self.parameters
        dtype, k = parameters[0][0][0].dtype, len(parameters)
        first, *others = self.dense
        # (in, members, units), so that all networks of a lane are the columns of one matrix
        self._first = [np.stack([parameters[j][first][0] for j in own], axis=1) for own in self.members]
        self._weights = [np.stack([p[i][0] for p in parameters]) for i in others]
        self._biases = [np.stack([p[i][1] for p in parameters]) for i in self.dense]
        units = [b.shape[-1] for b in self._biases]
        self._z = [np.empty((k, self._rows, n), dtype) for n in units]
        self._y = [np.empty((k, self._rows, n), dtype) for n in units[:-1]]
        self._d = [np.empty((k, self._rows, n), dtype) for n in units]
        self._column = np.empty((k, self._rows, 1), dtype)
        self._first_sums = [np.empty_like(W) for W in self._first]
        self._sums = [np.empty_like(W) for W in self._weights]
        self._bias_sums = [np.empty_like(b) for b in self._biases]
        self._curves = [curve(self.activation, (k, self._rows, n), dtype) for n in units[:-1]]

    def epoch(self, orders: Sequence[Rows], rates: npt.NDArray[np.float64]) -> list[Array]:
        size, dtype = self.size, self._biases[0].dtype
        labels = np.stack([lane.data.labels[order] for lane, order in zip(self.lanes, orders, strict=True)])
        labels = np.repeat(labels, [lane.members for lane in self.lanes], axis=0)
        n = labels.shape[1]
        logits = np.empty((len(labels), n, self._biases[-1].shape[-1]), dtype)
        pieces = list(zip(*(batches(order, min(size, self._rows)) for order in orders), strict=True))
        step, start = 0, 0
        for rows in pieces:
            end = min(start + self._rows, n)
            begin = start % size == 0
            ends = end == n or end % size == 0
            batch = min(size, n - start + start % size)
            xs = [lane.data.rows(own) for lane, own in zip(self.lanes, rows, strict=True)]
            self._forward(xs, logits[:, start:end])
            self._backward(xs, logits[:, start:end], labels[:, start:end], batch, begin)
            if ends:
                self._update(rates[step].astype(dtype))
                step += 1
            start = end
        self._unstack(step)
        return list(logits)

    def _forward(self, xs: list[Array], logits: Array) -> None:
        n = logits.shape[1]
        z = self._z[0][:, :n]
        for x, W, columns in zip(xs, self._first, self.columns, strict=True):
            product = (x @ W.reshape(len(W), -1)).reshape(n, *W.shape[1:])
            np.add(product.transpose(1, 0, 2), self._biases[0][columns], out=z[columns])
        for i, W in enumerate(self._weights):
            y, twin = self._y[i][:, :n], self._curves[i]
            if twin:
                y[...] = z
                twin.apply(y)
            else:
                y[...] = self.activation.apply(z)
            z = self._z[i + 1][:, :n]
            np.matmul(y, W, out=z)
            z += self._biases[i + 1]
        logits[...] = z

    def _backward(self, xs: list[Array], logits: Array, labels: npt.NDArray[np.int64], batch: int, first: bool) -> None:
        """Set, or add to, the gradients of a batch of which this is a part."""
        n = logits.shape[1]
        dz = self._loss_gradient(logits, labels, batch)
        for i in range(len(self._weights) - 1, -1, -1):
            y, W, twin = self._y[i][:, :n], self._weights[i], self._curves[i]
            _put(self._sums[i], y.swapaxes(1, 2) @ dz, first)
            _put(self._bias_sums[i + 1], dz.sum(axis=1, keepdims=True), first)
            dy = np.matmul(dz, W.swapaxes(1, 2), out=self._d[i][:, :n])
            if twin:
                twin.multiply(dy, y)
            else:
                dy *= self.activation.derivative(self._z[i][:, :n], y)
            dz = dy
        _put(self._bias_sums[0], dz.sum(axis=1, keepdims=True), first)
        for x, total, columns in zip(xs, self._first_sums, self.columns, strict=True):
            d = np.ascontiguousarray(dz[columns].transpose(1, 0, 2)).reshape(n, -1)
            add_product(1, x, d, 0 if first else 1, total.reshape(len(total), -1))

    def _loss_gradient(self, logits: Array, labels: npt.NDArray[np.int64], batch: int) -> Array:
        k, n, classes = logits.shape
        if type(self.loss) is not SoftmaxCrossEntropy:
            gradient: Array = self.loss.gradient(logits, labels)
            return gradient if n == batch else gradient * (n / batch)
        p, column, smoothing = self._d[-1][:, :n], self._column[:, :n], self.loss.smoothing
        np.subtract(logits, np.maximum.reduce(logits, axis=2, keepdims=True, out=column), out=p)
        np.exp(p, out=p)
        np.add.reduce(p, axis=2, keepdims=True, out=column)
        column *= batch
        np.divide(p, column, out=p)
        p[np.arange(k)[:, None], np.arange(n), labels] -= (1 - smoothing) / batch
        if smoothing:
            p -= smoothing / classes / batch
        return p

    def _update(self, lr: Array) -> None:
        shrink = 1 - lr * self._decay.astype(lr.dtype)
        decays = bool(self._decay.any())
        for W, g, columns in zip(self._first, self._first_sums, self.columns, strict=True):
            if decays:
                W *= shrink[columns, None]
            g *= lr[columns, None]
            W -= g
        for W, g in zip(self._weights, self._sums, strict=True):
            if decays:
                W *= shrink[:, None, None]
            g *= lr[:, None, None]
            W -= g
        for b, g in zip(self._biases, self._bias_sums, strict=True):
            g *= lr[:, None, None]
            b -= g

    def _unstack(self, updates: int) -> None:
        """Give each network its parameters again, in memory of its own."""
        for lane, own in enumerate(self.members):
            for j in own:
                arrays: list[tuple[Array, ...]] = [()] * len(self.network)
                W1 = self._first[lane][:, j - own.start]
                arrays[self.dense[0]] = (W1.copy(), self._biases[0][j].copy())
                for i, W, b in zip(self.dense[1:], self._weights, self._biases[1:], strict=True):
                    arrays[i] = (W[j].copy(), b[j].copy())
                self.parameters[j] = tuple(arrays)
                self.states[j] = State(self.states[j].updates + updates, self.states[j].memory)


def _put(total: Array, part: Any, first: bool) -> None:
    """Set a sum to its first part, or add the next."""
    if first:
        total[...] = part
    else:
        total += part

"""Single samples, many networks: the deferred updates of ``src.engines.deferred``, with the networks as the last axis.

With the networks last, every operation on the few units of a layer is one call over memory in a row, which a processor
does for sixteen networks in hardly more time than for one. ``z (units, k)``, ``W (in + 1, out, k)``.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from src.batching import Rows, batches
from src.engines.inplace import add_product, curve
from src.engines.stack import Stack
from src.nn.layers import Activation, Array, Sigmoid
from src.nn.losses import Loss, SoftmaxCrossEntropy
from src.optimizers import State

_BLOCK = 64  # samples a block where all networks share one order
_SHORT_BLOCK = 16  # where they don't: the products of samples with each other must be had for each order


class DeferredStack(Stack):
    """Trains by single samples. Serves what ``serves_samples`` says."""

    def prepare(self) -> None:
        first, *others = self.dense
        # Each lane's first layer is a matrix of its own, (in, units · members); the other layers hold all networks.
        self._first = [np.stack([self.parameters[j][first][0] for j in own], axis=-1) for own in self.members]
        self._bias = np.stack([p[first][1][0] for p in self.parameters], axis=-1)
        self._rest = [np.stack([np.concatenate(p[i]) for p in self.parameters], axis=-1) for i in others]
        length = _BLOCK if len(self.lanes) == 1 else _SHORT_BLOCK
        self._block = _Block(self.activation, self.loss, self._bias, self._rest, length)

    def epoch(self, orders: Sequence[Rows], rates: npt.NDArray[np.float64]) -> list[Array]:
        dtype = self._bias.dtype
        labels = np.stack([lane.data.labels[order] for lane, order in zip(self.lanes, orders, strict=True)])
        n, k = labels.shape[1], self._bias.shape[1]
        classes = (self._rest[-1] if self._rest else self._bias).shape[-2]
        logits = np.empty((n, classes, k), dtype)
        rates = rates.astype(dtype)
        members = [lane.members for lane in self.lanes]
        block = self._block
        start = 0
        for pieces in zip(*(batches(order, block.length) for order in orders), strict=True):
            xs = [lane.data.rows(rows) for lane, rows in zip(self.lanes, pieces, strict=True)]
            end = start + len(xs[0])
            of_each = np.repeat(labels[:, start:end], members, axis=0).T  # (samples, k)
            block.run(xs, self._first, self.columns, of_each, rates[start:end], logits[start:end])
            start = end
        self._unstack(n)
        return [np.ascontiguousarray(logits[:, :, j]) for j in range(k)]

    def _unstack(self, updates: int) -> None:
        """Give each network its parameters again, in memory of its own."""
        for lane, own in enumerate(self.members):
            for j in own:
                arrays: list[tuple[Array, ...]] = [()] * len(self.network)
                W = self._first[lane][:, :, j - own.start]
                arrays[self.dense[0]] = (W.copy(), self._bias[None, :, j].copy())
                for i, joined in zip(self.dense[1:], self._rest, strict=True):
                    arrays[i] = (joined[:-1, :, j].copy(), joined[-1:, :, j].copy())
                self.parameters[j] = tuple(arrays)
                self.states[j] = State(self.states[j].updates + updates, self.states[j].memory)


class _Block:
    """The memory for the samples of a block, and views of it made once."""

    def __init__(self, activation: Activation, loss: Loss, bias: Array, rest: list[Array], length: int) -> None:
        k, dtype = bias.shape[1], bias.dtype
        units = [bias.shape[0], *(W.shape[1] for W in rest)]
        self.bias, self.rest, self.length = bias, rest, length
        self.z1, self.d1 = (np.empty((length, units[0], k), dtype) for _ in range(2))
        self.gram = np.empty((length, length, k), dtype)  # the products of samples with each other, and 1
        self.late = np.empty((length, units[0], k), dtype)
        self.put_off = np.empty((units[0], k), dtype)
        self.y_and_1 = [np.ones((n + 1, k), dtype) for n in units[:-1]]
        self.products = [np.empty_like(W) for W in rest]
        self.z, self.d = ([np.empty((n, k), dtype) for n in units] for _ in range(2))
        self.curves = [
            twin for n in units[:-1] if (twin := curve(activation, (n, k), dtype))
        ]  # it has one: see serves_samples
        self.one = np.empty((1, k), dtype)
        self.networks = np.arange(k)
        self.softmax = isinstance(loss, SoftmaxCrossEntropy)
        smoothing = loss.smoothing if isinstance(loss, SoftmaxCrossEntropy) else 0.0
        self.at_label, self.elsewhere = dtype.type(1 - smoothing), dtype.type(smoothing / units[-1])

    def run(
        self,
        xs: list[Array],
        first: list[Array],
        slices: list[slice],
        labels: npt.NDArray[np.int64],
        rates: Array,
        logits: Array,
    ) -> None:
        """Train on a block: x (K, in) of each lane, labels (K, k), rates (K, k); write the logits (K, classes, k)."""
        n = len(labels)
        shared = len(xs) == 1
        for x, W, columns in zip(xs, first, slices, strict=True):
            self.z1[:n, :, columns] = (x @ W.reshape(len(W), -1)).reshape(n, *W.shape[1:])
            self.gram[:n, :n, columns] = (x @ x.T + 1)[:, :, None]
        self.z1[:n] += self.bias
        one_gram = np.ascontiguousarray(self.gram[:n, :n, 0])
        flat = self.d1.reshape(self.length, -1)
        last = len(self.rest)
        dz = self.put_off
        for t in range(n):
            z = self.z1[t]
            if t and shared:
                np.dot(one_gram[t, :t], flat[:t], out=self.put_off.reshape(-1))
                z -= self.put_off
            elif t:
                np.multiply(self.d1[:t], self.gram[t, :t, None], out=self.late[:t])
                z -= np.add.reduce(self.late[:t], axis=0, out=self.put_off)
            for i in range(last):
                y = self.y_and_1[i]
                y[:-1] = z
                self.curves[i].apply(y[:-1])
                np.multiply(y[:, None], self.rest[i], out=self.products[i])
                z = np.add.reduce(self.products[i], axis=0, out=self.z[i + 1])
            logits[t] = z
            dz = self._loss_gradient(z, labels[t], rates[t], self.d[last] if last else self.d1[t])
            for i in reversed(range(last)):
                y, W, product = self.y_and_1[i], self.rest[i], self.products[i]
                np.multiply(W[:-1], dz, out=product[:-1])
                dy = np.add.reduce(product[:-1], axis=1, out=self.d[i] if i else self.d1[t])
                np.multiply(y[:, None], dz, out=product)
                W -= product
                self.curves[i].multiply(dy, y[:-1])
                dz = dy
        for x, W, columns in zip(xs, first, slices, strict=True):
            d = np.ascontiguousarray(self.d1[:n, :, columns]).reshape(n, -1)
            add_product(-1, x, d, 1, W.reshape(len(W), -1))
        self.bias -= self.d1[:n].sum(axis=0)

    def _loss_gradient(self, z: Array, labels: npt.NDArray[np.int64], lr: Array, out: Array) -> Array:
        """Return lr · ∂L/∂z of each network."""
        if self.softmax:
            np.subtract(z, np.maximum.reduce(z, axis=0, keepdims=True, out=self.one), out=out)
            np.exp(out, out=out)
            np.add.reduce(out, axis=0, keepdims=True, out=self.one)
            np.divide(lr, self.one, out=self.one)
            np.multiply(out, self.one, out=out)
        else:
            out[...] = Sigmoid().apply(z)
            np.multiply(out, lr, out=out)
        if self.elsewhere:
            out -= lr * self.elsewhere
        out[labels, self.networks] -= lr * self.at_label
        return out

"""Single samples, many networks: the deferred updates of ``src.training.engines.deferred``, with the networks as the last axis.

With the networks last, every operation on the few units of a layer is one call over memory in a row, which a processor
does for sixteen networks in hardly more time than for one. ``z (units, k)``, ``W (in + 1, out, k)``.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from src.nn.layers import Array, Sigmoid
from src.nn.losses import SoftmaxCrossEntropy
from src.training.batching import Rows, batches
from src.training.engines.deferred import put_targets, what_is_left
from src.training.engines.inplace import Curve, Softmax, add_product, curve
from src.training.engines.stack import Lane, Stack
from src.training.optimizers import State

_BLOCK = 32  # samples: more of them cost more in products of samples with each other than they save


class DeferredStack(Stack):
    """Trains by single samples. Serves what ``serves_samples`` says."""

    def prepare(self) -> None:
        first, *others = self.dense
        k = len(self.parameters)
        W1 = [np.stack([self.parameters[j][first][0] for j in own], axis=1) for own in self.members]
        b1 = np.concatenate([p[first][1] for p in self.parameters])
        dtype = b1.dtype
        self._decay = np.array([optimizer.weight_decay for optimizer in self.optimizers], dtype)
        self._decays = bool(self._decay.any())
        self._first = _FirstLayers(self.lanes, self.columns, W1, b1, alike=not self._decays)
        self._later = []
        for i in others:
            W = np.stack([np.concatenate(p[i]) for p in self.parameters], axis=-1)
            twin = curve(self.activation, (len(W) - 1, k), dtype)
            assert twin  # see serves_samples
            self._later.append(_LaterLayer(W, twin))
        classes = self.parameters[0][self.dense[-1]][1].size
        self._logits, self._targets = (np.empty((_BLOCK, classes, k), dtype) for _ in range(2))
        self._softmax, self._dlogits = Softmax(classes, k, dtype), np.empty((classes, k), dtype)

    def epoch(self, orders: Sequence[Rows], rates: npt.NDArray[np.float64]) -> list[Array]:
        labels = np.stack(
            [lane.data.labels[order] for lane, order in zip(self.lanes, orders, strict=True)],
            axis=1,
        )
        labels = np.repeat(labels, [lane.members for lane in self.lanes], axis=1)
        logits = np.empty((len(labels), *self._logits.shape[1:]), self._logits.dtype)
        rates = rates.astype(logits.dtype)
        start = 0
        for rows in zip(*(batches(order, _BLOCK) for order in orders), strict=True):
            end = min(start + _BLOCK, len(labels))
            self._run(rows, labels[start:end], rates[start:end])
            logits[start:end] = self._logits[: end - start]
            start = end
        self._unstack(len(labels))
        return [np.ascontiguousarray(logits[:, :, j]) for j in range(logits.shape[2])]

    def _run(self, rows: Sequence[Rows], labels: npt.NDArray[np.int64], rates: Array) -> None:
        """Train on a block: rows of each lane, labels (K, k), rates (K, k)."""
        first, later = self._first, self._later
        kept = 1 - rates * self._decay if self._decays else None
        first.begin(rows, len(labels), kept)
        put_targets(self._targets[: len(labels)], self.loss, labels, rates)
        for t, lr in enumerate(rates):
            logits = self._logits[t]
            z = [*(layer.y for layer in later), logits]  # each y is made where its z was
            first.forward(t, z[0])
            for layer, out in zip(later, z[1:], strict=True):
                layer.forward(out)
            dz = self._loss_gradient(logits, self._targets[t], lr)
            for layer in reversed(later):
                dz = layer.backward(dz, None if kept is None else kept[t])
            first.put_off(t, dz)
        first.end(len(labels))

    def _loss_gradient(self, logits: Array, target: Array, lr: Array) -> Array:
        """Return lr · p + target, of shape (classes, k)."""
        dlogits = self._dlogits
        if isinstance(self.loss, SoftmaxCrossEntropy):
            self._softmax(logits, lr, dlogits)
        else:
            np.multiply(Sigmoid().apply(logits), lr, out=dlogits)
        return np.add(dlogits, target, out=dlogits)

    def _unstack(self, updates: int) -> None:
        """Give each network its parameters again, in memory of their own."""
        for j, W1_b1 in enumerate(self._first.parameters()):
            arrays: list[tuple[Array, ...]] = [()] * len(self.network)
            arrays[self.dense[0]] = W1_b1
            for i, layer in zip(self.dense[1:], self._later, strict=True):
                arrays[i] = (layer.W[:-1, :, j].copy(), layer.W[-1:, :, j].copy())
            self.parameters[j] = tuple(arrays)
            self.states[j] = State(self.states[j].updates + updates, self.states[j].memory)


class _FirstLayers:
    """The first layers of all networks, whose updates are put off: one matrix (in, members, units) for each lane.

    Where all see one order, and are ``alike`` in what an update leaves of the weights, they share the products of samples.
    """

    def __init__(
        self, lanes: Sequence[Lane], columns: Sequence[slice], W: list[Array], b: Array, alike: bool
    ) -> None:
        (k, units), dtype, n = b.shape, b.dtype, len(lanes)
        self.lanes, self.columns, self.W, self.b = lanes, columns, W, b
        self.wide = [w.reshape(len(w), -1) for w in W]
        self.x = np.empty((n, _BLOCK, len(W[0])), dtype)
        self.z1_or_d1 = [
            np.empty((_BLOCK, *w.shape[1:]), dtype) for w in W
        ]  # in the order of W's columns
        self.products = np.empty((n, _BLOCK, _BLOCK), dtype)
        # Of each network, row t is z of sample t, and d once it is known; and −(X[t] · X[:t] + 1), 1.
        self.z_or_d = np.empty((k, _BLOCK, units), dtype)
        of_each = np.repeat(np.arange(n), [lane.members for lane in lanes])
        self.of_each = of_each[:1] if n == 1 and alike else of_each
        self.factors = np.empty((len(self.of_each), _BLOCK, _BLOCK), dtype)
        self.diagonals = self.factors.reshape(-1, _BLOCK * _BLOCK)[:, :: _BLOCK + 1]
        each = np.broadcast_to(self.factors, (k, _BLOCK, _BLOCK))
        self.samples = [(each[:, t, None, : t + 1], self.z_or_d[:, : t + 1]) for t in range(_BLOCK)]
        self.d = [self.z_or_d[:, t].T for t in range(_BLOCK)]
        self.product = np.empty((k, 1, units), dtype)
        self.z = self.product[:, 0].T

    def begin(self, rows: Sequence[Rows], n: int, kept: Array | None) -> None:
        """Compute what is had at once for a block of n samples, of which each lane has its own rows.

        ``kept (n, k)``, where there is weight decay, is the part of the weights that each update leaves.
        """
        z_or_d = self.z_or_d[:, :n]
        for q, (lane, own, columns) in enumerate(zip(self.lanes, rows, self.columns, strict=True)):
            x, z1 = self.x[q, :n], self.z1_or_d1[q][:n]
            lane.data.rows(own, out=x)
            np.matmul(x, self.wide[q], out=z1.reshape(n, -1))
            np.matmul(x, x.T, out=self.products[q, :n, :n])
            z_or_d[columns] = z1.swapaxes(0, 1)
        products = self.products[self.of_each]
        self.left = None if kept is None else what_is_left(kept.T)
        if self.left is not None:
            products[:, :n, :n] *= self.left[:, :n, 1:]
            z_or_d *= self.left[:, :n, :1]
        z_or_d += self.b[:, None]
        np.subtract(-1, products, out=self.factors)
        self.diagonals[...] = 1

    def forward(self, t: int, z: Array) -> None:
        """Write z (units, k) of sample t."""
        factors, z_and_d = self.samples[t]
        np.matmul(factors, z_and_d, out=self.product)
        z[...] = self.z

    def put_off(self, t: int, d: Array) -> None:
        """Keep d (units, k) of sample t."""
        self.d[t][...] = d

    def end(self, n: int) -> None:
        """Make the updates of a block."""
        d = self.z_or_d[:, :n]
        self.b -= d.sum(axis=1)
        if self.left is not None:
            d *= self.left[:, n, 1:, None]
        for q, columns in enumerate(self.columns):
            d1 = self.z1_or_d1[q][:n]
            d1[...] = d[columns].swapaxes(0, 1)
            if self.left is not None:
                self.W[q] *= self.left[columns, n, :1]
            add_product(-1, self.x[q, :n], d1.reshape(n, -1), 1, self.wide[q])

    def parameters(self) -> list[tuple[Array, Array]]:
        """Return W and b of each network, in memory of their own."""
        weights = [W[:, j].copy() for W in self.W for j in range(W.shape[1])]
        return list(zip(weights, self.b[:, None].copy(), strict=True))


class _LaterLayer:
    """A layer of all networks and the activation before it."""

    def __init__(self, W: Array, twin: Curve) -> None:
        rows, units, k = W.shape
        y_and_1 = np.ones((rows, 1, k), W.dtype)
        self.y, self.y_and_1, self.twin = y_and_1[:-1, 0], y_and_1, twin
        # Both of what dz is multiplied by: the weights, and y as often as it has weights. So these are one call.
        both, products = (np.empty((2, rows, units, k), W.dtype) for _ in range(2))
        both[0] = W
        self.W, self.repeated = both
        self.both, self.products = both.reshape(2 * rows, -1), products.reshape(2 * rows, -1)
        self.product, self.update = products
        # Sums are products with ones, which are quicker.
        self.summands, self.ones = products[0].reshape(rows, -1), np.ones(rows, W.dtype)
        self.dy_summands, self.dy_ones = products[0, :-1], np.ones((1, units), W.dtype)
        self.dy = np.empty((rows - 1, 1, k), W.dtype)
        self.dx = self.dy[:, 0]

    def forward(self, z: Array) -> None:
        """Turn what is in ``y`` from the z of the layer before into y, and write z (units, k)."""
        self.twin.apply(self.y)
        np.copyto(self.repeated, self.y_and_1)
        np.multiply(self.repeated, self.W, out=self.product)
        self.ones.dot(self.summands, z.reshape(-1))

    def backward(self, dz: Array, kept: Array | None) -> Array:
        """Return dz of the layer before, and make the update, which leaves the ``kept (k,)`` part of the weights."""
        np.multiply(self.both, dz.reshape(-1), out=self.products)
        np.matmul(self.dy_ones, self.dy_summands, out=self.dy)
        if kept is not None:
            self.W[:-1] *= kept
        np.subtract(self.W, self.update, out=self.W)
        self.twin.multiply(self.dx, self.y)
        return self.dx

"""Single samples, many networks: deferred updates with the networks as the last axis.

See ``src.training.engines.deferred`` for the method. With the networks last, every operation on the
few units of a layer is one call over contiguous memory, which takes hardly more time for sixteen
networks than for one. ``z (units, k)``, ``W (in + 1, out, k)``.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from src.nn.layers import Activation, Array, Dense, Identity
from src.nn.losses import CrossEntropy, Labels
from src.training.batching import Rows, batches
from src.training.engines.base import Engine, OrderGroup
from src.training.engines.blas import add_product
from src.training.engines.response import ANY_UPDATE, Responses
from src.training.optimizers import Optimizer, State

_BLOCK = 32  # samples: more cost more in products of samples with each other than they save
_NUMBERS = 32_768  # of the first layers' weights: so many go through the cache at once


class DeferredStack(Engine):
    """Trains by single samples. Supports what ``supports_deferral`` says."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.dense = [i for i, layer in enumerate(self.network) if isinstance(layer, Dense)]
        first, *others = self.dense
        k, members, optimizer = len(self.parameters), self.members(), self.optimizers[0]
        # The parameters of all networks, and each of their buffers.
        trees = [self.parameters]
        trees += [[s.buffer(i) for s in self.states] for i in range(optimizer.buffer_count)]
        W1 = [
            np.array([np.stack([p[first][0] for p in tree[own]], axis=1) for tree in trees])
            for own in members
        ]
        b1 = np.array([np.concatenate([p[first][1] for p in tree]) for tree in trees])
        self._first = _FirstLayers(self.groups, members, W1, b1, self.optimizers)
        activation = self.network[1] if others else Identity()
        assert isinstance(activation, Activation)
        later = [
            np.array([np.stack([np.concatenate(p[i]) for p in tree], axis=-1) for tree in trees])
            for i in others
        ]
        self._later = [_LaterLayer(arrays, activation, self.optimizers) for arrays in later]
        classes = self.parameters[0][self.dense[-1]][1].size
        self._logits = np.empty((_BLOCK, classes, k), self.dtype)
        self._dlogits = np.empty((classes, k), self.dtype)
        if isinstance(self.loss, CrossEntropy):
            self._targets = self.loss.targets(classes, self.dtype)

    def epoch(
        self,
        orders: Sequence[Rows],
        rates: npt.NDArray[np.float64],
        masks: Sequence[np.random.Generator],
    ) -> list[Array]:
        labels = np.ascontiguousarray(self.labels(orders).T)
        logits = np.empty((len(labels), *self._logits.shape[1:]), self.dtype)
        start = 0
        for rows in zip(*(batches(order, _BLOCK) for order in orders), strict=True):
            these = slice(start, start := min(start + _BLOCK, len(labels)))
            self._run(rows, labels[these], rates[these])
            logits[these] = self._logits[: len(labels[these])]
        self._unstack(len(labels))
        return [np.ascontiguousarray(logits[:, :, j]) for j in range(logits.shape[2])]

    def _run(self, rows: Sequence[Rows], labels: Labels, rates: npt.NDArray[np.float64]) -> None:
        """Train on a block: rows of each group, labels (K, k), rates (K, k)."""
        first, later = self._first, self._later
        first.begin(rows, rates)
        lr = rates.astype(self.dtype)
        is_vanilla = self.optimizers[0].is_vanilla
        gradient = self._loss_gradient(labels, lr if is_vanilla else np.ones_like(lr))
        for t in range(len(labels)):
            logits = self._logits[t]
            z = [*(layer.z for layer in later), logits]
            first.forward(t, z[0])
            for layer, out in zip(later, z[1:], strict=True):
                layer.forward(out)
            dz = gradient(t, logits)
            for layer in reversed(later):
                dz = layer.backward(dz)
                layer.step(lr[t])
            first.defer(t, dz)
        first.end(len(labels))

    def _loss_gradient(self, labels: Labels, scales: Array) -> Callable[[int, Array], Array]:
        """Return what computes scale · ∂L/∂logits (classes, k) of sample t; scales (K, k)."""
        loss, dlogits = self.loss, self._dlogits
        if not isinstance(loss, CrossEntropy):

            def gradient(t: int, logits: Array) -> Array:
                factors, out = scales[t, :, None, None], dlogits.T[:, None]
                loss.gradient_into(logits.T[:, None], labels[t, :, None], factors, out)
                return dlogits

            return gradient
        targets = self._targets[labels] * -scales[..., None]
        by_class = np.ascontiguousarray(targets.swapaxes(1, 2))

        def difference(t: int, logits: Array) -> Array:
            loss.outputs_into(logits, scales[t], dlogits)
            np.add(dlogits, by_class[t], out=dlogits)
            return dlogits

        return difference

    def _unstack(self, updates: int) -> None:
        """Give each network its parameters and buffers, in memory of their own."""
        for j, firsts in enumerate(self._first.networks()):
            trees = []
            for i, W1_b1 in enumerate(firsts):
                arrays: list[tuple[Array, ...]] = [()] * len(self.network)
                arrays[self.dense[0]] = W1_b1
                for place, layer in zip(self.dense[1:], self._later, strict=True):
                    W = (layer.W, *layer.buffers)[i]
                    arrays[place] = (W[:-1, :, j].copy(), W[-1:, :, j].copy())
                trees.append(tuple(arrays))
            parameters, *buffers = trees
            self.parameters[j] = parameters
            self.states[j] = State.of(self.states[j].updates + updates, parameters, buffers)


class _FirstLayers:
    """The first layers, whose updates are deferred: arrays (m, in, members, units) per order group.

    They are the weights, and their buffers. If there is one order, and vanilla SGD without decay,
    the networks share the products of samples.
    """

    def __init__(
        self,
        groups: Sequence[OrderGroup],
        columns: Sequence[slice],
        W: list[Array],
        b: Array,  # (m, k, units)
        optimizers: Sequence[Optimizer],
    ) -> None:
        (m, k, units), dtype, n = b.shape, b.dtype, len(groups)
        self.groups, self.columns, self.W, self.b = groups, columns, W, b
        self.wide = [w.reshape(m, w.shape[1], -1) for w in W]
        self.memory = np.empty((n, _BLOCK, W[0].shape[1]), dtype)
        self.x = list(self.memory)  # of each group, the samples of a block
        self.z1_or_d1 = [
            np.empty((m, _BLOCK, *w.shape[2:]), dtype) for w in W
        ]  # in the order of W's columns
        decays = np.array([[optimizer.weight_decay] for optimizer in optimizers])
        self.responds = bool(decays.any()) or not optimizers[0].is_vanilla
        self.of_biases = self.of_weights = Responses(optimizers[0], 0.0, dtype)
        if decays.any():
            self.of_weights = Responses(optimizers[0], decays, dtype)
        self.products = np.empty((n, _BLOCK, _BLOCK), dtype)
        # Of each network, row t is z of sample t, later d; of each order −(X[t] · X[:t] + 1), 1.
        self.z_or_d = np.empty((k, _BLOCK, units), dtype)
        of_each = np.repeat(np.arange(n), [group.members for group in groups])
        self.of_each = of_each[:1] if n == 1 and not self.responds else of_each
        self.factors = np.empty((len(self.of_each), _BLOCK, _BLOCK), dtype)
        self.diagonals = self.factors.reshape(-1, _BLOCK * _BLOCK)[:, :: _BLOCK + 1]
        each = np.broadcast_to(self.factors, (k, _BLOCK, _BLOCK))
        self.samples = [(each[:, t, None, : t + 1], self.z_or_d[:, : t + 1]) for t in range(_BLOCK)]
        self.d = [self.z_or_d[:, t].T for t in range(_BLOCK)]
        self.product = np.empty((k, 1, units), dtype)
        self.z = self.product[:, 0].T

    def begin(self, rows: Sequence[Rows], rates: npt.NDArray[np.float64]) -> None:
        """Compute what the samples of a block have in common; each group has its own rows.

        ``rates (K, k)`` are the learning rates of the updates.
        """
        n = len(rates)
        if self.responds:
            self.weights, self.biases = self.of_weights.of(rates.T), self.of_biases.of(rates.T)
        for q, (group, own, columns) in enumerate(
            zip(self.groups, rows, self.columns, strict=True)
        ):
            x = self.x[q] = group.data.rows(own, out=self.memory[q, :n])
            z1, z = self.z1_or_d1[q][:, :n], self.z_or_d[columns, :n]
            np.matmul(x, self.wide[q], out=z1.reshape(len(z1), n, -1))
            np.matmul(x, x.T, out=self.products[q, :n, :n])
            if self.responds:
                np.einsum("kti,itku->ktu", self.weights.start[columns, :n, 0], z1, out=z)
                z += np.einsum(
                    "kti,iku->ktu", self.biases.start[columns, :n, 0], self.b[:, columns]
                )
            else:
                np.add(z1[0].swapaxes(0, 1), self.b[0, columns, None], out=z)
        products = self.products[self.of_each, :n, :n]
        if self.responds:
            products *= self.weights.gradient[:, :n, 0]
            products += self.biases.gradient[:, :n, 0]
            np.negative(products, out=self.factors[:, :n, :n])
        else:
            np.subtract(-1, products, out=self.factors[:, :n, :n])
        self.diagonals[...] = 1

    def forward(self, t: int, z: Array) -> None:
        """Write z (units, k) of sample t."""
        factors, z_and_d = self.samples[t]
        np.matmul(factors, z_and_d, out=self.product)
        z[...] = self.z

    def defer(self, t: int, d: Array) -> None:
        """Keep d (units, k) of sample t."""
        self.d[t][...] = d

    def end(self, n: int) -> None:
        """Make the deferred updates of a block."""
        d = self.z_or_d[:, :n]
        if self.responds:
            start, gradient = self.biases.start[:, n], self.biases.gradient[:, n]
            self.b = np.einsum("kij,jku->iku", start, self.b)
            self.b -= np.einsum("kis,ksu->iku", gradient, d)
        else:
            self.b[0] -= d.sum(axis=1)
        for q, columns in enumerate(self.columns):
            x, d1 = self.x[q], self.z1_or_d1[q][:, :n]
            d1[...] = d[columns].swapaxes(0, 1)
            if self.responds:
                d1 *= self.weights.gradient[columns, n].transpose(1, 2, 0)[..., None]
                _mix(self.W[q], self.weights.start[columns, n])
            for wide, own in zip(self.wide[q], d1, strict=True):
                add_product(-1, x, own.reshape(n, -1), 1, wide)

    def networks(self) -> list[list[tuple[Array, Array]]]:
        """Return W and b of each network and each of their buffers, in memory of their own."""
        weights = [W[:, :, j] for W in self.W for j in range(W.shape[2])]
        biases = self.b.swapaxes(0, 1)[:, :, None]
        return [
            [(W.copy(), b.copy()) for W, b in zip(*of_network, strict=True)]
            for of_network in zip(weights, biases, strict=True)
        ]


def _mix(W: Array, start: Array) -> None:
    """Set W[i] to the sum of start[:, i, j] · W[j]: W (m, in, k, units), start (k, m, m)."""
    m, fan_in, k, units = W.shape
    count = max(1, _NUMBERS // (k * units))
    for first in range(0, fan_in, count):
        rows = W[:, first : first + count]
        rows[...] = [
            sum(start[:, i, j, None] * rows[j] for j in range(m) if start[:, i, j].any())
            for i in range(m)
        ]


class _LaterLayer:
    """A layer of all networks and the activation before it."""

    def __init__(
        self, arrays: Array, activation: Activation, optimizers: Sequence[Optimizer]
    ) -> None:
        W, *buffers = arrays  # (in + 1, out, k) each
        self.buffers = tuple(buffers)
        rows, units, k = W.shape
        self.optimizer, self.is_vanilla = optimizers[0], optimizers[0].is_vanilla
        self.decay = np.array([optimizer.weight_decay for optimizer in optimizers], W.dtype)
        self.decays = bool(self.decay.any())
        y_and_1 = np.ones((rows, 1, k), W.dtype)
        self.y, self.y_and_1, self.activation = y_and_1[:-1, 0], y_and_1, activation
        self.z = self.y if activation.derivative_from_y else np.empty_like(self.y)
        self.slope = np.empty_like(self.y)
        # dz is multiplied by the weights, and by y once per weight. Side by side that is one call.
        both, products = (np.empty((2, rows, units, k), W.dtype) for _ in range(2))
        both[0] = W
        self.W, self.repeated = both
        self.both, self.products = both.reshape(2 * rows, -1), products.reshape(2 * rows, -1)
        self.product, self.update = products
        # Sums are products with ones, which are faster.
        self.summands, self.ones = products[0].reshape(rows, -1), np.ones(rows, W.dtype)
        self.dy_summands, self.dy_ones = products[0, :-1], np.ones((1, units), W.dtype)
        self.dy = np.empty((rows - 1, 1, k), W.dtype)
        self.dx = self.dy[:, 0]

    def forward(self, z: Array) -> None:
        """Compute y from the z that the layer before has written, and write z (units, k)."""
        self.activation.apply_into(self.z, self.y)
        np.copyto(self.repeated, self.y_and_1)
        np.multiply(self.repeated, self.W, out=self.product)
        self.ones.dot(self.summands, z.reshape(-1))

    def backward(self, dz: Array) -> Array:
        """Return dz of the layer before; ``step`` then makes the update."""
        np.multiply(self.both, dz.reshape(-1), out=self.products)
        np.matmul(self.dy_ones, self.dy_summands, out=self.dy)
        self.activation.derivative_into(self.z, self.y, self.slope)
        return np.multiply(self.dx, self.slope, out=self.dx)

    def step(self, lr: Array) -> None:
        """Make an update at the learning rates (k,). That of vanilla SGD already contains them."""
        W, decay = self.W, self.decay
        if self.is_vanilla:
            if self.decays:
                W[:-1] *= 1 - lr * decay
            np.subtract(W, self.update, out=W)
            return
        if self.decays:
            self.update[:-1] += np.multiply(W[:-1], decay, out=self.product[:-1])
        self.optimizer.step(W, self.update, self.buffers, lr, ANY_UPDATE, self.product)

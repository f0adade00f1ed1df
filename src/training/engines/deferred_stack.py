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
from src.training.engines.deferred import what_is_left
from src.training.optimizers import State

_BLOCK = 32  # samples: more cost more in products of samples with each other than they save


class DeferredStack(Engine):
    """Trains by single samples. Supports what ``supports_deferral`` says."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.dense = [i for i, layer in enumerate(self.network) if isinstance(layer, Dense)]
        first, *others = self.dense
        k, members = len(self.parameters), self.members()
        self._decay = np.array([o.weight_decay for o in self.optimizers], self.dtype)
        self._decays = bool(self._decay.any())
        W1 = [np.stack([p[first][0] for p in self.parameters[own]], axis=1) for own in members]
        b1 = np.concatenate([p[first][1] for p in self.parameters])
        self._first = _FirstLayers(self.groups, members, W1, b1, alike=not self._decays)
        activation = self.network[1] if others else Identity()
        assert isinstance(activation, Activation)
        later = [np.stack([np.concatenate(p[i]) for p in self.parameters], axis=-1) for i in others]
        self._later = [_LaterLayer(W, activation) for W in later]
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
        own_rates = rates.astype(self.dtype)
        start = 0
        for rows in zip(*(batches(order, _BLOCK) for order in orders), strict=True):
            these = slice(start, start := min(start + _BLOCK, len(labels)))
            self._run(rows, labels[these], own_rates[these])
            logits[these] = self._logits[: len(labels[these])]
        self._unstack(len(labels))
        return [np.ascontiguousarray(logits[:, :, j]) for j in range(logits.shape[2])]

    def _run(self, rows: Sequence[Rows], labels: Labels, rates: Array) -> None:
        """Train on a block: rows of each group, labels (K, k), rates (K, k)."""
        first, later = self._first, self._later
        kept = 1 - rates * self._decay if self._decays else None
        first.begin(rows, len(labels), kept)
        gradient = self._loss_gradient(labels, rates)
        for t in range(len(labels)):
            logits = self._logits[t]
            z = [*(layer.z for layer in later), logits]
            first.forward(t, z[0])
            for layer, out in zip(later, z[1:], strict=True):
                layer.forward(out)
            dz = gradient(t, logits)
            for layer in reversed(later):
                dz = layer.backward(dz, None if kept is None else kept[t])
            first.defer(t, dz)
        first.end(len(labels))

    def _loss_gradient(self, labels: Labels, rates: Array) -> Callable[[int, Array], Array]:
        """Return what computes lr · ∂L/∂logits (classes, k) of sample t."""
        loss, dlogits = self.loss, self._dlogits
        if not isinstance(loss, CrossEntropy):

            def gradient(t: int, logits: Array) -> Array:
                factors, out = rates[t, :, None, None], dlogits.T[:, None]
                loss.gradient_into(logits.T[:, None], labels[t, :, None], factors, out)
                return dlogits

            return gradient
        targets = self._targets[labels] * -rates[..., None]
        by_class = np.ascontiguousarray(targets.swapaxes(1, 2))

        def difference(t: int, logits: Array) -> Array:
            loss.outputs_into(logits, rates[t], dlogits)
            np.add(dlogits, by_class[t], out=dlogits)
            return dlogits

        return difference

    def _unstack(self, updates: int) -> None:
        """Give each network its parameters, in memory of their own."""
        for j, W1_b1 in enumerate(self._first.parameters()):
            arrays: list[tuple[Array, ...]] = [()] * len(self.network)
            arrays[self.dense[0]] = W1_b1
            for i, layer in zip(self.dense[1:], self._later, strict=True):
                arrays[i] = (layer.W[:-1, :, j].copy(), layer.W[-1:, :, j].copy())
            self.parameters[j] = tuple(arrays)
            self.states[j] = State(self.states[j].updates + updates, self.states[j].buffers)


class _FirstLayers:
    """The first layers, whose updates are deferred: a matrix (in, members, units) per order group.

    If there is one order, and the networks are ``alike`` in what an update leaves of the weights,
    they share the products of samples.
    """

    def __init__(
        self,
        groups: Sequence[OrderGroup],
        columns: Sequence[slice],
        W: list[Array],
        b: Array,
        alike: bool,
    ) -> None:
        (k, units), dtype, n = b.shape, b.dtype, len(groups)
        self.groups, self.columns, self.W, self.b = groups, columns, W, b
        self.wide = [w.reshape(len(w), -1) for w in W]
        self.memory = np.empty((n, _BLOCK, len(W[0])), dtype)
        self.x = list(self.memory)  # of each group, the samples of a block
        self.z1_or_d1 = [
            np.empty((_BLOCK, *w.shape[1:]), dtype) for w in W
        ]  # in the order of W's columns
        self.products = np.empty((n, _BLOCK, _BLOCK), dtype)
        # Of each network, row t is z of sample t, later d; of each order −(X[t] · X[:t] + 1), 1.
        self.z_or_d = np.empty((k, _BLOCK, units), dtype)
        of_each = np.repeat(np.arange(n), [group.members for group in groups])
        self.of_each = of_each[:1] if n == 1 and alike else of_each
        self.factors = np.empty((len(self.of_each), _BLOCK, _BLOCK), dtype)
        self.diagonals = self.factors.reshape(-1, _BLOCK * _BLOCK)[:, :: _BLOCK + 1]
        each = np.broadcast_to(self.factors, (k, _BLOCK, _BLOCK))
        self.samples = [(each[:, t, None, : t + 1], self.z_or_d[:, : t + 1]) for t in range(_BLOCK)]
        self.d = [self.z_or_d[:, t].T for t in range(_BLOCK)]
        self.product = np.empty((k, 1, units), dtype)
        self.z = self.product[:, 0].T

    def begin(self, rows: Sequence[Rows], n: int, kept: Array | None) -> None:
        """Compute what n samples of a block have in common; each group has its own rows.

        ``kept (n, k)`` is the share of the weights that each update leaves; None without decay.
        """
        z_or_d = self.z_or_d[:, :n]
        for q, (group, own, columns) in enumerate(
            zip(self.groups, rows, self.columns, strict=True)
        ):
            x = self.x[q] = group.data.rows(own, out=self.memory[q, :n])
            z1 = self.z1_or_d1[q][:n]
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

    def defer(self, t: int, d: Array) -> None:
        """Keep d (units, k) of sample t."""
        self.d[t][...] = d

    def end(self, n: int) -> None:
        """Make the deferred updates of a block."""
        d = self.z_or_d[:, :n]
        self.b -= d.sum(axis=1)
        if self.left is not None:
            d *= self.left[:, n, 1:, None]
        for q, columns in enumerate(self.columns):
            d1 = self.z1_or_d1[q][:n]
            d1[...] = d[columns].swapaxes(0, 1)
            if self.left is not None:
                self.W[q] *= self.left[columns, n, :1]
            add_product(-1, self.x[q], d1.reshape(n, -1), 1, self.wide[q])

    def parameters(self) -> list[tuple[Array, Array]]:
        """Return W and b of each network, in memory of their own."""
        weights = [W[:, j].copy() for W in self.W for j in range(W.shape[1])]
        return list(zip(weights, self.b[:, None].copy(), strict=True))


class _LaterLayer:
    """A layer of all networks and the activation before it."""

    def __init__(self, W: Array, activation: Activation) -> None:
        rows, units, k = W.shape
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

    def backward(self, dz: Array, kept: Array | None) -> Array:
        """Return dz of the layer before, and make the update.

        It leaves the share ``kept (k,)`` of the weights.
        """
        np.multiply(self.both, dz.reshape(-1), out=self.products)
        np.matmul(self.dy_ones, self.dy_summands, out=self.dy)
        if kept is not None:
            self.W[:-1] *= kept
        np.subtract(self.W, self.update, out=self.W)
        self.activation.derivative_into(self.z, self.y, self.slope)
        return np.multiply(self.dx, self.slope, out=self.dx)

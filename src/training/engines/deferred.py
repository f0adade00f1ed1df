"""Single samples at the price of blocks: the first layer's updates are deferred, and none is lost.

Within a block of samples X (K, in), the updates of the first layer before sample t have rank t: its
weights would be W − Σ x[s]ᵀ d[s] over the samples s before t, with d[s] = lr · ∂L/∂z of sample s.
So the layer's output for sample t is z = X[t] W + b − Σ (X[t] · X[s] + 1) d[s]: a row of the
products G = X Xᵀ + 1, which are computed for all samples at once, times the few d so far. After
the block the updates are made in one product: W −= Xᵀ D, b −= Σ d. Nothing is approximated.

With weight decay λ an update first leaves 1 − lr·λ of the weights. Of d[s], sample t finds what the
updates between them left: X[t] · X[s] is multiplied by the product of these factors, and X[t] W by
the product over all updates before t.

With momentum d[s] is the gradient itself. What the updates before t make of it, of W and of the
buffer V is linear, too: see ``src.training.engines.response``.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.linalg.blas import dger, sger

from src.nn.layers import Activation, Array, Dense, Identity
from src.nn.losses import CrossEntropy, Labels, Loss
from src.nn.network import Network, Parameters
from src.training.batching import Rows, batches
from src.training.engines.base import Engine
from src.training.engines.blas import add_product
from src.training.engines.response import ANY_UPDATE, Responses
from src.training.optimizers import Optimizer, State

_BLOCK = 64  # samples: more cost more in G than they save in the products


def supports_deferral(network: Network, optimizer: Optimizer) -> bool:
    """Tell whether updates are linear, through dense layers with one activation between them."""
    between = network[1::2]
    alternating = all(isinstance(layer, Dense) for layer in network[::2]) and len(network) % 2
    one_activation = all(isinstance(layer, Activation) and layer == between[0] for layer in between)
    is_linear = optimizer.linear(np.zeros(1), 0.0) is not None
    return is_linear and bool(alternating) and one_activation


class Deferred(Engine):
    """Trains one network by single samples. Supports what ``supports_deferral`` says."""

    def epoch(
        self,
        orders: Sequence[Rows],
        rates: npt.NDArray[np.float64],
        masks: Sequence[np.random.Generator],
    ) -> list[Array]:
        (order,), (group,), (state,) = orders, self.groups, self.states
        labels, lr, optimizer = group.data.labels[order], rates[:, 0], self.optimizers[0]
        buffers = [state.buffer(i) for i in range(optimizer.buffer_count)]
        trees = [[layer for layer in tree if layer] for tree in [self.parameters[0], *buffers]]
        activation = self.network[1] if len(self.network) > 1 else Identity()
        assert isinstance(activation, Activation)
        block = _Block(activation, self.loss, optimizer, trees)
        logits = np.empty((len(labels), len(block.logits)), self.dtype)
        start = 0
        for rows in batches(order, _BLOCK):
            x = group.data.rows(rows)
            these = slice(start, start := start + len(x))
            block.run(x, labels[these], lr[these], logits[these])
        parameters, *buffers = map(self._in_form, block.trees())
        self.parameters = [parameters]
        self.states = [State.of(state.updates + len(labels), parameters, buffers)]
        return [logits]

    def _in_form(self, dense: Sequence[tuple[Array, ...]]) -> Parameters:
        """Return arrays of the dense layers in the form of the parameters."""
        found = iter(dense)
        return tuple(next(found) if layer.parameter_shapes else () for layer in self.network)


class _FirstLayer:
    """The layer whose updates are deferred.

    W and b stand in one array each with their buffers: ``W (m, in, units)``, ``b (m, units)``.
    """

    def __init__(self, optimizer: Optimizer, layers: Sequence[tuple[Array, ...]]) -> None:
        self.W, self.b = np.stack([W for W, _ in layers]), np.concatenate([b for _, b in layers])
        self.spare, dtype = np.empty_like(self.W), self.W.dtype
        # Vanilla SGD leaves the sum of all updates, and has no need of a response.
        self.responds = bool(optimizer.weight_decay) or not optimizer.is_vanilla
        self.of_biases = self.of_weights = Responses(optimizer, 0.0, dtype)
        if optimizer.weight_decay:
            self.of_weights = Responses(optimizer, optimizer.weight_decay, dtype)

    def begin(self, x: Array, rates: npt.NDArray[np.float64], z: Array, factors: Array) -> None:
        """Compute what all samples of a block x (K, in) have in common.

        Writes z (K, units) as it is without the block's updates, and factors (K, K): sample t finds
        z[t] + Σ factors[t, s] d[s] over the samples s before it.
        """
        products = x @ x.T
        if not self.responds:
            np.matmul(x, self.W[0], out=z)
            z += self.b
            np.subtract(-1, products, out=factors)
            return
        n = len(x)
        self.weights, self.biases = self.of_weights.of(rates), self.of_biases.of(rates)
        np.matmul(self.biases.start[:n, 0], self.b, out=z)
        for W, factors_of_W in zip(self.W, self.weights.start[:n, 0].T, strict=True):
            z += factors_of_W[:, None] * (x @ W)
        products *= self.weights.gradient[:n, 0]
        products += self.biases.gradient[:n, 0]
        np.negative(products, out=factors)

    def end(self, x: Array, d: Array) -> None:
        """Make the deferred updates of a block, of which d (K, units) is known now."""
        if not self.responds:
            self.b -= d.sum(axis=0)
            add_product(-1, x, d, 1, self.W[0])
            return
        n, m = len(x), len(self.W)
        start, gradient = self.weights.start[n], self.weights.gradient[n]
        left = float(start[0, 0])
        if m > 1:
            np.matmul(start, self.W.reshape(m, -1), out=self.spare.reshape(m, -1))
            self.W, self.spare, left = self.spare, self.W, 1.0
        for W, factors in zip(self.W, gradient, strict=True):
            add_product(-1, x, factors[:, None] * d, left, W)
        self.b = self.biases.start[n] @ self.b - self.biases.gradient[n] @ d


class _Block:
    """Copies of the parameters, the memory for the samples of a block, and views made once.

    With so few numbers a call takes longer than what it computes, and making a view takes as long
    as using it. So the number of calls per sample counts. In the later layers the bias is one more
    weight, of one more input that is always 1: V (out, in + 1) is the transpose of W over b, so
    that BLAS finds rows of some length. All V stand in one array, and so do their buffers.
    """

    def __init__(
        self,
        activation: Activation,
        loss: Loss,
        optimizer: Optimizer,
        trees: Sequence[Sequence[tuple[Array, ...]]],  # the parameters, and each of their buffers
    ) -> None:
        dtype, units = trees[0][0][0].dtype, [b.size for _, b in trees[0]]
        self.optimizer = optimizer
        self.first = _FirstLayer(optimizer, [tree[0] for tree in trees])
        self.shapes = [(out, fan_in + 1) for fan_in, out in pairwise(units)]
        self.later, *buffers = [self._flat(tree[1:]) for tree in trees]
        self.buffers = tuple(buffers)
        self.V = self._views(self.later)
        # Vanilla SGD subtracts gradients from V at once; others add them up, then make a step.
        self.gradients, self.scratch = np.zeros_like(self.later), np.empty_like(self.later)
        self.decays = self._flat(
            [(np.full_like(W, optimizer.weight_decay), np.zeros_like(b)) for W, b in trees[0][1:]]
        )
        self.sign, totals = -1.0, self.V
        if not optimizer.is_vanilla:
            self.sign, totals = 1.0, self._views(self.gradients)
        # Row t is z of the first layer, later d. With the rows before it, z takes one product.
        self.z1_or_d1 = np.empty((_BLOCK, units[0]), dtype)
        self.factors = np.empty((_BLOCK, _BLOCK), dtype)  # row t: −(X[t] · X[:t] + 1), 1
        self.diagonal = self.factors.reshape(-1)[:: _BLOCK + 1]
        self.dlogits = np.empty((_BLOCK, units[-1]), dtype)  # the loss's gradient, times its scale
        self.samples = [
            (self.factors[t, : t + 1], self.z1_or_d1[: t + 1], self.dlogits[t])
            for t in range(_BLOCK)
        ]
        # The y of all hidden layers stand in one array, each layer's 1 behind its y, and so do
        # their z and slopes: one call computes all slopes.
        ends = np.cumsum(np.add(units[:-1], 1))
        joined = [np.ones(sum(units[:-1]) + len(self.V), dtype) for _ in range(3)]
        self.y, self.slopes, self.z = joined
        if activation.derivative_from_y:
            self.z = self.y
        y_and_1, slopes, z_and_1 = (
            np.split(of_all, ends[:-1]) if self.V else []
            for of_all in (self.y, self.slopes, self.z)
        )
        self.logits = np.empty(units[-1], dtype)
        z = [*(z[:-1] for z in z_and_1), self.logits]
        self.z1 = z[0]
        y = [y[:-1] for y in y_and_1]
        self.forward = list(zip(z[:-1], y, y_and_1, self.V, z[1:], strict=True))
        dy = [np.empty_like(y) for y in y_and_1]
        self.backward = [
            (V, total.T, V[:, :-1], y, dy_and_1, dy_and_1[:-1], slope[:-1])
            for V, total, y, dy_and_1, slope in zip(
                self.V, totals, y_and_1, dy, slopes, strict=True
            )
        ][::-1]
        self.apply, self.derivative = activation.calls(dtype)
        self.loss = loss
        if isinstance(loss, CrossEntropy):
            self.add_outputs = loss.add_outputs(self.logits)
            self.targets = loss.targets(len(self.logits), dtype)
        self.ger = sger if dtype == np.float32 else dger

    def run(self, x: Array, labels: Labels, rates: npt.NDArray[np.float64], logits: Array) -> None:
        """Train on a block of samples x (up to K, in), in order, each at its own rate.

        Writes the logits of each sample.
        """
        n, is_vanilla = len(x), self.optimizer.is_vanilla
        self.first.begin(x, rates, self.z1_or_d1[:n], self.factors[:n, :n])
        self.diagonal[...] = 1
        scales = rates if is_vanilla else np.ones_like(rates)
        gradient = self._loss_gradient(labels, scales.astype(x.dtype))
        decay = self.optimizer.weight_decay if is_vanilla else 0.0
        # Names of this function's own are found faster.
        multiply, apply, derivative, ger = np.multiply, self.apply, self.derivative, self.ger
        z1, z1_or_d1, own_logits, sign = self.z1, self.z1_or_d1, self.logits, self.sign
        z_of_all, y_of_all, slopes = self.z, self.y, self.slopes
        forward, backward = self.forward, self.backward
        for t, (lr, scale, (factors, z_and_d, dz)) in enumerate(
            zip(rates.tolist(), scales.tolist(), self.samples[:n], strict=True)
        ):
            factors.dot(z_and_d, z1)
            for z, y, y_and_1, V, z_after in forward:
                apply(z, out=y)
                V.dot(y_and_1, z_after)
            logits[t] = own_logits
            gradient(scale, dz)
            derivative(z_of_all, y_of_all, slopes)
            for V, total, weights, y_and_1, dy_and_1, dy, slope in backward:
                dz.dot(V, dy_and_1)
                if decay:
                    multiply(weights, 1 - lr * decay, out=weights)
                # V −= dz yᵀ, or gradient += dz yᵀ; of BLAS's own functions, arguments by position
                # are faster.
                ger(sign, y_and_1, dz, 1, 1, total, 1, 1, 1)
                dz = multiply(dy, slope, out=dy)
            z1_or_d1[t] = dz
            if not is_vanilla:
                self._step(lr)
        self.first.end(x, self.z1_or_d1[:n])

    def _step(self, lr: float) -> None:
        """Move the later layers by what ``gradients`` holds, and use it up."""
        gradients, optimizer = self.gradients, self.optimizer
        if optimizer.weight_decay:
            gradients += np.multiply(self.later, self.decays, out=self.scratch)
        optimizer.step(self.later, gradients, self.buffers, lr, ANY_UPDATE, self.scratch)
        gradients.fill(0)

    def _loss_gradient(self, labels: Labels, scales: Array) -> Callable[[float, Array], object]:
        """Return what adds scale · ∂L/∂logits of the next sample, given what ``dlogits`` holds."""
        loss, logits, n = self.loss, self.logits, len(labels)
        if isinstance(loss, CrossEntropy):
            np.multiply(self.targets[labels], -scales[:, None], out=self.dlogits[:n])
            return self.add_outputs
        waiting = iter(labels[:, None])

        def gradient(scale: float, out: Array) -> None:
            loss.gradient_into(logits[None], next(waiting), scale, out[None])

        return gradient

    def _flat(self, layers: Sequence[tuple[Array, ...]]) -> Array:
        """Return a copy of the later layers' arrays as one array."""
        each = [np.concatenate(layer).T.ravel() for layer in layers]
        return np.concatenate([np.empty(0, self.first.W.dtype), *each])

    def _views(self, flat: Array) -> list[Array]:
        """Return the later layers' V in a flat array."""
        parts = np.split(flat, np.cumsum([out * wide for out, wide in self.shapes])[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=False)]

    def trees(self) -> list[list[tuple[Array, ...]]]:
        """Return W and b of each dense layer, and each of their buffers, in memory of their own."""
        of_later = [
            [(V[:, :-1].T.copy(), V[:, -1:].T.copy()) for V in self._views(flat)]
            for flat in [self.later, *self.buffers]
        ]
        firsts = zip(self.first.W, self.first.b, strict=True)
        return [
            [(W.copy(), b[None].copy()), *later]
            for (W, b), later in zip(firsts, of_later, strict=True)
        ]

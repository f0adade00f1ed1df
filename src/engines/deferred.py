"""Single samples at the price of blocks: the first layer's updates are put off, and each sample still sees them all.

Within a block of samples X (K, in), the updates that the first layer would have had before sample t are of rank t: its
weights would be W − Σ x[s]ᵀ d[s] over the samples s before it, with d[s] = lr · ∂L/∂z of sample s. So what sample t makes
of them is z = X[t] W + b − Σ (X[t] · X[s] + 1) d[s]: a row of the products G = X Xᵀ + 1, which are had all at once, times
the few d so far. After the block the updates are made, all in one product: W −= Xᵀ D, b −= Σ d. Nothing is approximated.
"""

import numpy as np
from scipy.special import expit

from src.batching import Rows, batches
from src.engines.base import Arrays, Engine
from src.engines.inplace import add_product
from src.nn.layers import Activation, Array, Dense, Identity, LeakyReLU, ReLU, Sigmoid, Tanh
from src.nn.losses import Loss, SigmoidCrossEntropy, SoftmaxCrossEntropy
from src.nn.network import Network, Parameters
from src.optimizers import SGD, Optimizer, State

_BLOCK = 64  # samples: more of them cost more in G than they save in the products


def serves_samples(network: Network, loss: Loss, optimizer: Optimizer) -> bool:
    """Tell whether this is descent without memory through layers whose derivative can be had from y."""
    descent = type(optimizer) is SGD and not (optimizer.momentum or optimizer.weight_decay or optimizer.clip_norm)
    known = (Dense, ReLU, LeakyReLU, Sigmoid, Tanh, Identity)
    return (
        descent
        and type(loss) in (SoftmaxCrossEntropy, SigmoidCrossEntropy)
        and all(type(step) in known for step in network)
    )


# Of each activation y = f(z) into memory for y, and dy ← dy · f'(z) given y and some memory. For so few numbers a call
# takes longer than what it computes, so the sigmoid is one call here where batches take four that are faster for each.
def _relu(activation: Activation, z: Array, y: Array, scratch: Array) -> None:
    np.maximum(z, 0, out=y)


def _relu_slope(activation: Activation, dy: Array, y: Array, scratch: Array) -> None:
    np.multiply(dy, np.greater(y, 0, out=scratch), out=dy)


def _leaky_relu(activation: Activation, z: Array, y: Array, scratch: Array) -> None:
    y[:] = activation.apply(z)


def _any_slope(activation: Activation, dy: Array, y: Array, scratch: Array) -> None:
    np.multiply(dy, activation.derivative(y, y), out=dy)  # of those here, none asks for z


def _sigmoid(activation: Activation, z: Array, y: Array, scratch: Array) -> None:
    expit(z, out=y)


def _sigmoid_slope(activation: Activation, dy: Array, y: Array, scratch: Array) -> None:
    np.subtract(1, y, out=scratch)
    np.multiply(scratch, y, out=scratch)
    np.multiply(dy, scratch, out=dy)


def _tanh(activation: Activation, z: Array, y: Array, scratch: Array) -> None:
    np.tanh(z, out=y)


_TWINS = {
    ReLU: (_relu, _relu_slope),
    LeakyReLU: (_leaky_relu, _any_slope),
    Sigmoid: (_sigmoid, _sigmoid_slope),
    Tanh: (_tanh, _any_slope),
    Identity: (_leaky_relu, _any_slope),
}


class Deferred(Engine):
    """Trains by single samples."""

    def __init__(
        self, network: Network, parameters: Parameters, data: Arrays, *, loss: Loss, optimizer: Optimizer
    ) -> None:
        super().__init__(network, parameters, data, loss=loss, optimizer=optimizer)
        self._dense = [layer for layer in network if isinstance(layer, Dense)]
        self._activation = next((layer for layer in network if isinstance(layer, Activation)), Identity())

    def epoch(self, order: Rows, size: int, rates: list[float], masks: np.random.Generator) -> Array:
        dtype = self.data.precision
        arrays = [[p.copy() for p in layer] for layer in self.parameters if layer]
        labels = self.data.labels[order]
        logits = np.empty((len(labels), self._dense[-1].fan_out), dtype)
        first = arrays[0]
        # Of the other layers the bias is one more row of weights, for one more input that is always 1.
        rest = [np.concatenate([W, b]) for W, b in arrays[1:]]
        block = _Block(self._activation, self.loss, self._dense, rest, dtype)
        start = 0
        for rows in batches(order, _BLOCK):
            x = self.data.rows(rows)
            end = start + len(x)
            block.run(x, first[0], first[1], labels[start:end].tolist(), rates[start:end], logits[start:end])
            start = end
        for (W, b), joined in zip(arrays[1:], rest, strict=True):
            W[...], b[...] = joined[:-1], joined[-1:]
        trained = iter(arrays)
        self.parameters = tuple(tuple(next(trained)) if layer else () for layer in self.parameters)
        self.state = State(self.state.updates + len(labels), self.state.memory)
        return logits


class _Block:
    """The memory for the samples of a block, and views of it made once: to make one takes as long as to use it."""

    def __init__(
        self, activation: Activation, loss: Loss, dense: list[Dense], rest: list[Array], dtype: np.dtype
    ) -> None:
        units = [layer.fan_out for layer in dense]
        self.activation, self.rest = activation, rest
        self.products = np.empty((_BLOCK, _BLOCK), dtype)
        self.z1, self.d1 = np.empty((_BLOCK, units[0]), dtype), np.empty((_BLOCK, units[0]), dtype)
        self.weights = [W[:-1] for W in rest]
        self.updates = [np.empty_like(W) for W in rest]
        self.y_and_1 = [np.ones(n + 1, dtype) for n in units[:-1]]
        self.y = [y[:-1] for y in self.y_and_1]
        self.columns = [y[:, None] for y in self.y_and_1]
        self.z = [np.empty(n, dtype) for n in units]
        self.d = [np.empty(n, dtype) for n in units]
        self.slope = [np.empty(n, dtype) for n in units]
        self.ones = np.ones(units[-1], dtype)
        self.softmax = isinstance(loss, SoftmaxCrossEntropy)
        smoothing = loss.smoothing if isinstance(loss, SoftmaxCrossEntropy) else 0.0
        self.at_label, self.elsewhere = 1 - smoothing, smoothing / units[-1]
        self.before = [(self.products[t, :t], self.d1[:t], self.z1[t], self.d1[t]) for t in range(_BLOCK)]

    def run(self, x: Array, W1: Array, b1: Array, labels: list[int], rates: list[float], logits: Array) -> None:
        """Train on a block of samples x (up to K, in), in order, each at its own rate; write the ``logits`` of each."""
        n = len(x)
        np.matmul(x, W1, out=self.z1[:n])
        self.z1[:n] += b1
        np.matmul(x, x.T, out=self.products[:n, :n])
        self.products[:n, :n] += 1
        apply, multiply = _TWINS[type(self.activation)]
        deep = range(1, len(self.rest) + 1)
        last = len(self.rest)
        weights, joined, updates, y, y_and_1, columns = (
            self.weights,
            self.rest,
            self.updates,
            self.y,
            self.y_and_1,
            self.columns,
        )
        dot, subtract, times, exp = np.dot, np.subtract, np.multiply, np.exp
        for t in range(n):
            products, d_before, z, d = self.before[t]
            lr = rates[t]
            if t:
                dot(products, d_before, out=self.z[0])
                subtract(z, self.z[0], out=z)
            for i in deep:
                apply(self.activation, z, y[i - 1], self.slope[i - 1])
                z = dot(y_and_1[i - 1], joined[i - 1], out=self.z[i])
            logits[t] = z
            # lr · ∂L/∂logits, over memory of its own
            dz = self.d[last] if last else d
            if self.softmax:
                subtract(z, np.maximum.reduce(z), out=dz)
                exp(dz, out=dz)
                times(dz, lr / dot(dz, self.ones), out=dz)
            else:
                expit(z, out=dz)
                times(dz, lr, out=dz)
            if self.elsewhere:
                dz -= lr * self.elsewhere
            dz[labels[t]] -= lr * self.at_label
            for i in reversed(deep):
                dy = d if i == 1 else self.d[i - 1]
                dot(weights[i - 1], dz, out=dy)
                times(columns[i - 1], dz, out=updates[i - 1])
                subtract(joined[i - 1], updates[i - 1], out=joined[i - 1])
                multiply(self.activation, dy, y[i - 1], self.slope[i - 1])
                dz = dy
        add_product(-1, x, self.d1[:n], 1, W1)
        b1 -= self.d1[:n].sum(axis=0)

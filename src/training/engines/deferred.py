"""Single samples at the price of blocks: the first layer's updates are put off, and each sample still sees them all.

Within a block of samples X (K, in), the updates that the first layer would have had before sample t are of rank t: its
weights would be W − Σ x[s]ᵀ d[s] over the samples s before it, with d[s] = lr · ∂L/∂z of sample s. So what sample t makes
of them is z = X[t] W + b − Σ (X[t] · X[s] + 1) d[s]: a row of the products G = X Xᵀ + 1, which are had all at once, times
the few d so far. After the block the updates are made, all in one product: W −= Xᵀ D, b −= Σ d. Nothing is approximated.

With weight decay λ an update first leaves 1 − lr·λ of the weights. So of d[s], sample t finds what the updates between them
left: X[t] · X[s] is multiplied by the product of these factors, and X[t] W by that of all updates before t.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg.blas import daxpy, ddot, dger, saxpy, sdot, sger
from scipy.special import expit

from src.nn.layers import Activation, Array, Dense, Identity, LeakyReLU, ReLU, Sigmoid, Tanh
from src.nn.losses import Loss, SigmoidCrossEntropy, SoftmaxCrossEntropy
from src.nn.network import Network, Parameters
from src.training.batching import Rows, batches
from src.training.engines.base import Arrays, Engine
from src.training.engines.inplace import add_product
from src.training.optimizers import SGD, Optimizer, State

_BLOCK = 64  # samples: more of them cost more in G than they save in the products
_KNOWN = (Dense, ReLU, LeakyReLU, Sigmoid, Tanh, Identity)


def serves_samples(network: Network, loss: Loss, optimizer: Optimizer) -> bool:
    """Tell whether this is descent without memory through layers whose derivative can be had from y."""
    descent = type(optimizer) is SGD and not optimizer.momentum and optimizer.clip_norm is None
    return (
        descent
        and type(loss) in (SoftmaxCrossEntropy, SigmoidCrossEntropy)
        and all(type(layer) in _KNOWN for layer in network)
    )


def what_is_left(kept: Array) -> Array:
    """Return of each block (..., K + 1, K + 1): in row t and column s what updates s to t − 1 leave of the weights.

    Update u leaves ``kept[..., u]``. A product of these and no quotient, since one of them may be 0.
    """
    K = kept.shape[-1]
    factors: Array = np.ones((*kept.shape[:-1], K + 1, K + 1), kept.dtype)
    np.copyto(factors[..., 1:, :], kept[..., None], where=np.tri(K, K + 1, dtype=bool))
    left: Array = np.cumprod(factors, axis=-2)
    return left


def put_targets(out: Array, loss: Loss, labels: npt.NDArray[np.int64], lr: Array) -> None:
    """Write −lr · t, of the gradient lr · (p − t), to ``out (K, classes, ...)`` for labels and rates (K, ...)."""
    smoothing = loss.smoothing if isinstance(loss, SoftmaxCrossEntropy) else 0.0
    classes = np.arange(out.shape[1]).reshape(-1, *(1 for _ in labels.shape[1:]))
    t = (labels[:, None] == classes) * (1 - smoothing) + smoothing / len(classes)
    np.multiply(t, -lr[:, None], out=out)


class Deferred(Engine):
    """Trains by single samples."""

    def __init__(
        self,
        network: Network,
        parameters: Parameters,
        data: Arrays,
        *,
        loss: Loss,
        optimizer: Optimizer,
    ) -> None:
        super().__init__(network, parameters, data, loss=loss, optimizer=optimizer)
        self._activation = next(
            (layer for layer in network if isinstance(layer, Activation)), Identity()
        )

    def epoch(
        self, order: Rows, size: int, rates: list[float], masks: np.random.Generator
    ) -> Array:
        labels = self.data.labels[order]
        dense = [layer for layer in self.parameters if layer]
        block = _Block(self._activation, self.loss, dense, self.optimizer.weight_decay)
        logits = np.empty((len(labels), len(block.logits)), self.data.precision)
        start = 0
        for rows in batches(order, _BLOCK):
            x = self.data.rows(rows)
            end = start + len(x)
            block.run(x, labels[start:end], rates[start:end], logits[start:end])
            start = end
        trained = iter(block.parameters())
        self.parameters = tuple(next(trained) if layer else () for layer in self.parameters)
        self.state = State(self.state.updates + len(labels), self.state.memory)
        return logits


class _Block:
    """Copies of the parameters, the memory for the samples of a block, and views of it made once.

    With so few numbers a call takes longer than what it computes, and to make a view as long as to use it: what counts
    is how many there are for a sample. In the later layers the bias is one more weight, of one more input that is always
    1: V (out, in + 1) is the transpose of W over b, so that BLAS finds rows of some length.
    """

    def __init__(
        self, activation: Activation, loss: Loss, dense: list[tuple[Array, ...]], decay: float
    ) -> None:
        (W1, b1), *rest = dense
        dtype, units = W1.dtype, [b.size for _, b in dense]
        self.decay = decay
        self.W1, self.b1 = W1.copy(), b1.copy()
        self.V = [np.concatenate([W, b]).T.copy() for W, b in rest]
        # Row t is z of the first layer, and d once it is known; with the rows before, its update put off is one product.
        self.z1_or_d1 = np.empty((_BLOCK, units[0]), dtype)
        self.factors = np.empty((_BLOCK, _BLOCK), dtype)  # row t: −(X[t] · X[:t] + 1), 1
        self.diagonal = self.factors.reshape(-1)[:: _BLOCK + 1]
        self.targets = np.empty((_BLOCK, units[-1]), dtype)  # lr · −t of the loss's gradient p − t
        self.samples = [
            (self.factors[t, : t + 1], self.z1_or_d1[: t + 1], self.targets[t])
            for t in range(_BLOCK)
        ]
        # The values of all hidden layers stand in a row, each layer's 1 behind them: their slopes are had in one call.
        ends = np.cumsum(np.add(units[:-1], 1))
        self.values, self.slopes = (np.ones(sum(units[:-1]) + len(rest), dtype) for _ in range(2))
        y_and_1, slopes = (
            np.split(joined, ends[:-1]) if rest else [] for joined in (self.values, self.slopes)
        )
        self.logits, self.scores, self.ones = (np.ones(units[-1], dtype) for _ in range(3))
        z = [*(y[:-1] for y in y_and_1), self.logits]  # each y is made where its z was
        self.z1 = z[0]
        self.forward = list(zip(z[:-1], y_and_1, self.V, z[1:], strict=True))
        dy = [np.empty_like(y) for y in y_and_1]
        self.backward = [
            (V, V.T, V[:, :-1], y, dy_and_1, dy_and_1[:-1], slope[:-1])
            for V, y, dy_and_1, slope in zip(self.V, y_and_1, dy, slopes, strict=True)
        ][::-1]
        self.apply, self.slope = _in_place(activation, dtype)
        self.axpy, self.inner, self.ger = (
            (saxpy, sdot, sger) if dtype == np.float32 else (daxpy, ddot, dger)
        )
        self.loss, self.softmax = loss, isinstance(loss, SoftmaxCrossEntropy)

    def run(
        self, x: Array, labels: npt.NDArray[np.int64], rates: list[float], logits: Array
    ) -> None:
        """Train on a block of samples x (up to K, in), in order, each at its own rate; write the ``logits`` of each."""
        n, lr = len(x), np.array(rates)
        left = what_is_left(1 - lr * self.decay).astype(x.dtype) if self.decay else None
        self._prepare(x, labels, lr, left)
        # Of BLAS's own functions the arguments go by position, which is quicker: ger adds −1 · y dzᵀ to V where it is.
        multiply, apply, ger = np.multiply, self.apply, self.ger
        for t, (factors, z_and_d, dz) in enumerate(self.samples[:n]):
            factors.dot(z_and_d, self.z1)
            for y, y_and_1, V, z in self.forward:
                apply(y, out=y)
                V.dot(y_and_1, z)
            logits[t] = self.logits
            self._loss_gradient(rates[t], dz)
            self.slope(self.values, self.slopes)
            for V, VT, weights, y_and_1, dy_and_1, dy, slope in self.backward:
                dz.dot(V, dy_and_1)
                if self.decay:
                    multiply(weights, 1 - rates[t] * self.decay, out=weights)
                ger(-1.0, y_and_1, dz, 1, 1, VT, 1, 1, 1)
                dz = multiply(dy, slope, out=dy)
            self.z1_or_d1[t] = dz
        d1 = self.z1_or_d1[:n]
        self.b1 -= d1.sum(axis=0)
        if left is None:
            add_product(-1, x, d1, 1, self.W1)
        else:
            d1 *= left[n, 1:, None]
            add_product(-1, x, d1, left[n, 0], self.W1)

    def _prepare(
        self,
        x: Array,
        labels: npt.NDArray[np.int64],
        lr: npt.NDArray[np.float64],
        left: Array | None,
    ) -> None:
        """Compute what is had for all samples of a block at once."""
        n = len(x)
        z1, factors = self.z1_or_d1[:n], self.factors[:n, :n]
        products = x @ x.T
        np.matmul(x, self.W1, out=z1)
        if left is not None:
            products *= left[:n, 1:]
            z1 *= left[:n, :1]
        z1 += self.b1
        np.subtract(-1, products, out=factors)
        self.diagonal[...] = 1
        put_targets(self.targets[:n], self.loss, labels, lr)

    def _loss_gradient(self, lr: float, out: Array) -> None:
        """Add lr · p to ``out``, which holds what is taken from it."""
        scores = self.scores
        if self.softmax:
            np.exp(self.logits, out=scores)
            total = self.inner(scores, self.ones)
            if (
                not 1e-30 < total < 1e30
            ):  # where it is, no exponential that counts was too great or too small
                np.exp(self.logits - self.logits.max(), out=scores)
                total = self.inner(scores, self.ones)
            lr /= total
        else:
            expit(self.logits, out=scores)
        self.axpy(scores, out, len(out), lr)

    def parameters(self) -> list[tuple[Array, ...]]:
        """Return W and b of each dense layer, in memory of their own."""
        return [(self.W1, self.b1), *((V[:, :-1].T.copy(), V[:, -1:].T.copy()) for V in self.V)]


def _in_place(
    activation: Activation, dtype: npt.DTypeLike
) -> tuple[Callable[..., Any], Callable[[Array, Array], Any]]:
    """Return a call that makes y = f(z) where z was, and one that writes f'(z), given y, into memory.

    Batches have others, which are several calls where these are one, and quicker for each number.
    """
    zero, one = (
        np.zeros((), dtype),
        np.ones((), dtype),
    )  # a Python number takes as long to become one as the call

    def leaky_relu(z: Array, out: Array) -> None:
        out[:] = activation.apply(z)

    def leaky_relu_slope(y: Array, out: Array) -> None:
        out[:] = activation.derivative(y, y)  # y has the sign of z

    def sigmoid_slope(y: Array, out: Array) -> None:
        np.subtract(one, y, out)
        np.multiply(out, y, out)

    def tanh_slope(y: Array, out: Array) -> None:
        np.multiply(y, y, out)
        np.subtract(one, out, out)

    def nothing(y: Array, out: Array) -> None:
        """Leave y as it is, and the slopes at the 1 that they are from the beginning."""

    calls: dict[type, tuple[Callable[..., Any], Callable[[Array, Array], Any]]] = {
        ReLU: (partial(np.maximum, zero), np.sign),
        LeakyReLU: (leaky_relu, leaky_relu_slope),
        Sigmoid: (expit, sigmoid_slope),
        Tanh: (np.tanh, tanh_slope),
        Identity: (nothing, nothing),
    }
    return calls[type(activation)]

"""Single samples at the price of blocks: the first layer's updates are deferred, and none is lost.

Within a block of samples X (K, in), the updates of the first layer before sample t have rank t: its
weights would be W − Σ x[s]ᵀ d[s] over the samples s before t, with d[s] = lr · ∂L/∂z of sample s.
So the layer's output for sample t is z = X[t] W + b − Σ (X[t] · X[s] + 1) d[s]: a row of the
products G = X Xᵀ + 1, which are computed for all samples at once, times the few d so far. After
the block the updates are made in one product: W −= Xᵀ D, b −= Σ d. Nothing is approximated.

With weight decay λ an update first leaves 1 − lr·λ of the weights. Of d[s], sample t finds what the
updates between them left: X[t] · X[s] is multiplied by the product of these factors, and X[t] W by
the product over all updates before t.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.linalg.blas import dger, sger

from src.nn.layers import Activation, Array, Dense, Identity
from src.nn.losses import CrossEntropy, Labels, Loss
from src.nn.network import Network
from src.training.batching import Rows, batches
from src.training.engines.base import Engine
from src.training.engines.blas import add_product
from src.training.optimizers import Optimizer, State

_BLOCK = 64  # samples: more cost more in G than they save in the products


def supports_deferral(network: Network, optimizer: Optimizer) -> bool:
    """Tell whether this is vanilla SGD through dense layers with one activation between them."""
    between = network[1::2]
    alternating = all(isinstance(layer, Dense) for layer in network[::2]) and len(network) % 2
    one_activation = all(isinstance(layer, Activation) and layer == between[0] for layer in between)
    return optimizer.is_vanilla and bool(alternating) and one_activation


def what_is_left(kept: Array) -> Array:
    """Return of each block what updates s to t − 1 leave of the weights, at [..., t, s].

    Update u leaves the share ``kept[..., u]``; the result is (..., K + 1, K + 1). It is a product
    of shares and never a quotient, because a share may be 0.
    """
    K = kept.shape[-1]
    factors: Array = np.ones((*kept.shape[:-1], K + 1, K + 1), kept.dtype)
    np.copyto(factors[..., 1:, :], kept[..., None], where=np.tri(K, K + 1, dtype=bool))
    left: Array = np.cumprod(factors, axis=-2)
    return left


class Deferred(Engine):
    """Trains one network by single samples. Supports what ``supports_deferral`` says."""

    def epoch(
        self,
        orders: Sequence[Rows],
        rates: npt.NDArray[np.float64],
        masks: Sequence[np.random.Generator],
    ) -> list[Array]:
        (order,), (group,), (parameters,) = orders, self.groups, self.parameters
        labels, lr = group.data.labels[order], rates[:, 0]
        dense = [layer for layer in parameters if layer]
        activation = self.network[1] if len(self.network) > 1 else Identity()
        assert isinstance(activation, Activation)
        block = _Block(activation, self.loss, dense, self.optimizers[0].weight_decay)
        logits = np.empty((len(labels), len(block.logits)), self.dtype)
        start = 0
        for rows in batches(order, _BLOCK):
            x = group.data.rows(rows)
            these = slice(start, start := start + len(x))
            block.run(x, labels[these], lr[these], logits[these])
        trained = iter(block.parameters())
        self.parameters = [tuple(next(trained) if layer else () for layer in parameters)]
        self.states = [State(self.states[0].updates + len(labels), self.states[0].buffers)]
        return [logits]


class _Block:
    """Copies of the parameters, the memory for the samples of a block, and views made once.

    With so few numbers a call takes longer than what it computes, and making a view takes as long
    as using it. So the number of calls per sample counts. In the later layers the bias is one more
    weight, of one more input that is always 1: V (out, in + 1) is the transpose of W over b, so
    that BLAS finds rows of some length.
    """

    def __init__(
        self, activation: Activation, loss: Loss, dense: list[tuple[Array, ...]], decay: float
    ) -> None:
        (W1, b1), *rest = dense
        dtype, units = W1.dtype, [b.size for _, b in dense]
        self.decay = decay
        self.W1, self.b1 = W1.copy(), b1.copy()
        self.V = [np.concatenate([W, b]).T.copy() for W, b in rest]
        # Row t is z of the first layer, later d. With the rows before it, z takes one product.
        self.z1_or_d1 = np.empty((_BLOCK, units[0]), dtype)
        self.factors = np.empty((_BLOCK, _BLOCK), dtype)  # row t: −(X[t] · X[:t] + 1), 1
        self.diagonal = self.factors.reshape(-1)[:: _BLOCK + 1]
        self.dlogits = np.empty((_BLOCK, units[-1]), dtype)  # lr times the loss's gradient
        self.samples = [
            (self.factors[t, : t + 1], self.z1_or_d1[: t + 1], self.dlogits[t])
            for t in range(_BLOCK)
        ]
        # The y of all hidden layers stand in one array, each layer's 1 behind its y, and so do
        # their z and slopes: one call computes all slopes.
        ends = np.cumsum(np.add(units[:-1], 1))
        joined = [np.ones(sum(units[:-1]) + len(rest), dtype) for _ in range(3)]
        self.y, self.slopes, self.z = joined
        if activation.derivative_from_y:
            self.z = self.y
        y_and_1, slopes, z_and_1 = (
            np.split(of_all, ends[:-1]) if rest else [] for of_all in (self.y, self.slopes, self.z)
        )
        self.logits = np.empty(units[-1], dtype)
        z = [*(z[:-1] for z in z_and_1), self.logits]
        self.z1 = z[0]
        y = [y[:-1] for y in y_and_1]
        self.forward = list(zip(z[:-1], y, y_and_1, self.V, z[1:], strict=True))
        dy = [np.empty_like(y) for y in y_and_1]
        self.backward = [
            (V, V.T, V[:, :-1], y, dy_and_1, dy_and_1[:-1], slope[:-1])
            for V, y, dy_and_1, slope in zip(self.V, y_and_1, dy, slopes, strict=True)
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
        n = len(x)
        left = what_is_left(1 - rates * self.decay).astype(x.dtype) if self.decay else None
        self._prepare(x, left)
        gradient = self._loss_gradient(labels, rates.astype(x.dtype))
        # Names of this function's own are found faster.
        multiply, apply, derivative, ger = np.multiply, self.apply, self.derivative, self.ger
        z1, z1_or_d1, own_logits, decay = self.z1, self.z1_or_d1, self.logits, self.decay
        z_of_all, y_of_all, slopes = self.z, self.y, self.slopes
        forward, backward = self.forward, self.backward
        for t, (lr, (factors, z_and_d, dz)) in enumerate(
            zip(rates.tolist(), self.samples[:n], strict=True)
        ):
            factors.dot(z_and_d, z1)
            for z, y, y_and_1, V, z_after in forward:
                apply(z, out=y)
                V.dot(y_and_1, z_after)
            logits[t] = own_logits
            gradient(lr, dz)
            derivative(z_of_all, y_of_all, slopes)
            for V, VT, weights, y_and_1, dy_and_1, dy, slope in backward:
                dz.dot(V, dy_and_1)
                if decay:
                    multiply(weights, 1 - lr * decay, out=weights)
                # V −= dz yᵀ; of BLAS's own functions, arguments by position are faster.
                ger(-1.0, y_and_1, dz, 1, 1, VT, 1, 1, 1)
                dz = multiply(dy, slope, out=dy)
            z1_or_d1[t] = dz
        d1 = self.z1_or_d1[:n]
        self.b1 -= d1.sum(axis=0)
        if left is None:
            add_product(-1, x, d1, 1, self.W1)
        else:
            d1 *= left[n, 1:, None]
            add_product(-1, x, d1, left[n, 0], self.W1)

    def _prepare(self, x: Array, left: Array | None) -> None:
        """Compute what all samples of a block have in common."""
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

    def _loss_gradient(self, labels: Labels, rates: Array) -> Callable[[float, Array], object]:
        """Return what adds lr · ∂L/∂logits of the next sample, given what ``dlogits`` holds."""
        loss, logits, n = self.loss, self.logits, len(labels)
        if isinstance(loss, CrossEntropy):
            np.multiply(self.targets[labels], -rates[:, None], out=self.dlogits[:n])
            return self.add_outputs
        waiting = iter(labels[:, None])

        def gradient(lr: float, out: Array) -> None:
            loss.gradient_into(logits[None], next(waiting), lr, out[None])

        return gradient

    def parameters(self) -> list[tuple[Array, ...]]:
        """Return W and b of each dense layer, in memory of their own."""
        return [(self.W1, self.b1), *((V[:, :-1].T.copy(), V[:, -1:].T.copy()) for V in self.V)]

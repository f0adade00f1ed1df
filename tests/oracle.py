"""A second implementation of the mathematics, for comparison: slow, in double precision.

It shares no code with the project. Each formula is written from the literature, one sample and one
layer at a time, with NumPy and math only.
A network here is a list of ``(W (in, out), b (out,))``.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]
Labels = npt.NDArray[np.integer]
Layers = list[tuple[Float, Float]]


# ─── Activations ───


def sigmoid(x: Float) -> Float:
    return 1 / (1 + np.exp(-x))


def _gelu_inner(x: Float) -> Float:
    """Return 2u for u = √(2/π) (x + 0.044715 x³); GELU's factor (1 + tanh u) / 2 is σ(2u)."""
    return 2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)


def _gelu_slope(x: Float) -> Float:
    s = sigmoid(_gelu_inner(x))
    inner_slope = 2 * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
    return s + x * s * (1 - s) * inner_slope


ACTIVATIONS: dict[str, Callable[[Float], Float]] = {
    "relu": lambda x: np.where(x > 0, x, 0.0),
    "sigmoid": sigmoid,
    "tanh": lambda x: (np.exp(x) - np.exp(-x)) / (np.exp(x) + np.exp(-x)),
    "identity": lambda x: x,
    "leaky relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "leaky relu 0.3": lambda x: np.where(x > 0, x, 0.3 * x),
    "gelu": lambda x: x * sigmoid(_gelu_inner(x)),
}

# The derivative of each, from x alone. At a corner it is that of the left side.
SLOPES: dict[str, Callable[[Float], Float]] = {
    "relu": lambda x: np.where(x > 0, 1.0, 0.0),
    "sigmoid": lambda x: np.exp(-x) / (1 + np.exp(-x)) ** 2,
    "tanh": lambda x: 1 / np.cosh(x) ** 2,
    "identity": lambda x: np.ones_like(x),
    "leaky relu": lambda x: np.where(x > 0, 1.0, 0.01),
    "leaky relu 0.3": lambda x: np.where(x > 0, 1.0, 0.3),
    "gelu": _gelu_slope,
}


# ─── Losses, each the mean over the samples ───


def targets(labels: Labels, classes: int, smoothing: float = 0.0) -> Float:
    """Return the targets (n, classes): 1 − ε + ε / classes at the label, ε / classes elsewhere."""
    rows = [
        [float(k == label) * (1 - smoothing) + smoothing / classes for k in range(classes)]
        for label in labels.tolist()
    ]
    return np.array(rows)


def softmax(logits: Float) -> Float:
    """Return the softmax over the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: Float = powers / powers.sum(axis=-1, keepdims=True)
    return result


def mean_cross_entropy(logits: Float, labels: Labels) -> float:
    """Return the mean of −log softmax at the label, in Python's own arithmetic."""
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        total -= row[label] - _log_sum(row)
    return total / len(logits)


def mean_smoothed_cross_entropy(logits: Float, labels: Labels, smoothing: float) -> float:
    """Return the mean of −Σ t log softmax, for smoothed targets t."""
    total = 0.0
    expected = targets(labels, logits.shape[-1], smoothing)
    for row, target in zip(logits.tolist(), expected.tolist(), strict=True):
        log_sum = _log_sum(row)
        total -= math.fsum(t * (z - log_sum) for t, z in zip(target, row, strict=True))
    return total / len(logits)


def mean_sigmoid_cross_entropy(logits: Float, labels: Labels) -> float:
    """Return the mean of Σ −log(probability of the right answer), each class a yes or a no."""
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        for k, z in enumerate(row):
            right = z if k == label else -z
            # −log σ(z) is log(1 + e^−z); far to the left it is −z.
            total += math.log1p(math.exp(-right)) if right > -700 else -right
    return total / len(logits)


def mean_squared_error(outputs: Float, labels: Labels) -> float:
    """Return the mean of half the squared distance between outputs and targets."""
    total = 0.0
    expected = targets(labels, outputs.shape[-1])
    for row, target in zip(outputs.tolist(), expected.tolist(), strict=True):
        total += 0.5 * math.fsum((a - t) ** 2 for a, t in zip(row, target, strict=True))
    return total / len(outputs)


def _log_sum(row: list[float]) -> float:
    top = max(row)
    return top + math.log(math.fsum(math.exp(z - top) for z in row))


# ─── Training ───


@dataclass(frozen=True)
class Rules:
    """What is trained and how. ``loss`` is softmax, sigmoid or squared."""

    activation: str = "relu"
    loss: str = "softmax"
    output: str = "identity"  # the output activation of the squared error
    smoothing: float = 0.0
    optimizer: str = "sgd"  # or momentum, nesterov, adam
    momentum: float = 0.9
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float | None = None


def logits(parameters: Layers, activation: str, x: Float) -> Float:
    """Return a network's logits (n, classes) for ``x (n, in)``."""
    for k, (W, b) in enumerate(parameters):
        x = np.einsum("ni,io->no", x, W) + b.reshape(-1)
        if k < len(parameters) - 1:
            x = ACTIVATIONS[activation](x)
    return x


def loss_value(rules: Rules, found: Float, labels: Labels) -> float:
    """Return the mean loss of logits (n, classes)."""
    if rules.loss == "softmax":
        return mean_smoothed_cross_entropy(found, labels, rules.smoothing)
    if rules.loss == "sigmoid":
        return mean_sigmoid_cross_entropy(found, labels)
    return mean_squared_error(ACTIVATIONS[rules.output](found), labels)


def loss_gradient(rules: Rules, z: Float, label: int) -> Float:
    """Return the gradient of one sample's loss with respect to its logits (classes,)."""
    smoothing = rules.smoothing if rules.loss == "softmax" else 0.0
    t = targets(np.array([label]), len(z), smoothing)[0]
    if rules.loss == "softmax":
        gradient: Float = softmax(z) - t
    elif rules.loss == "sigmoid":
        gradient = sigmoid(z) - t
    else:
        gradient = (ACTIVATIONS[rules.output](z) - t) * SLOPES[rules.output](z)
    return gradient


@dataclass
class Trained:
    """A network in training: its layers, and the optimizer's buffers of each array."""

    layers: Layers
    updates: int = 0
    buffers: list[list[list[Float]]] = field(default_factory=list)  # of each layer, of W and b
    # How near to 0, but not at 0, the input of an activation with a corner there has come.
    nearest_corner: float = math.inf

    def epoch(
        self,
        rules: Rules,
        x: Float,
        labels: Labels,
        batches: Sequence[Sequence[int]],
        rates: Sequence[float],
        masks: Sequence[Sequence[Float]] | None = None,
    ) -> Float:
        """Train on each batch of row numbers at its rate; return the logits of every row, in order.

        ``masks[u][l]`` holds the dropout factors (rows, units) of update u after hidden layer l.
        """
        passes = []
        for u, (batch, lr) in enumerate(zip(batches, rates, strict=True)):
            sums = [(np.zeros_like(W), np.zeros_like(b)) for W, b in self.layers]
            for i, row in enumerate(batch):
                of_sample = [mask[i] for mask in masks[u]] if masks else None
                z, gradients = self._sample(rules, x[row], int(labels[row]), of_sample)
                passes.append(z)
                for (dW, db), (gW, gb) in zip(sums, gradients, strict=True):
                    dW += gW
                    db += gb
            mean = [(dW / len(batch), db / len(batch)) for dW, db in sums]
            self._update(rules, mean, lr)
        return np.array(passes)

    def _sample(
        self, rules: Rules, x: Float, label: int, masks: Sequence[Float] | None
    ) -> tuple[Float, Layers]:
        """Return one sample's logits, and the gradient of its own loss for every layer."""
        inputs, sums = [x], []  # of each layer: what goes in, and x W + b
        for k, (W, b) in enumerate(self.layers):
            z = (inputs[-1][:, None] * W).sum(axis=0) + b
            sums.append(z)
            if k < len(self.layers) - 1:
                y = ACTIVATIONS[rules.activation](z)
                if "relu" in rules.activation and z.any():
                    self.nearest_corner = min(self.nearest_corner, abs(z[z != 0]).min())
                inputs.append(y * masks[k] if masks else y)
        dz = loss_gradient(rules, sums[-1], label)
        gradients: Layers = []
        for k in range(len(self.layers) - 1, -1, -1):
            gradients.insert(0, (np.outer(inputs[k], dz), dz))
            if k > 0:
                dy = (self.layers[k][0] * dz).sum(axis=1)
                if masks:
                    dy = dy * masks[k - 1]
                dz = dy * SLOPES[rules.activation](sums[k - 1])
        return sums[-1], gradients

    def _update(self, rules: Rules, gradients: Layers, lr: float) -> None:
        if rules.clip_norm is not None:
            squares = sum(float((g**2).sum()) for layer in gradients for g in layer)
            factor = min(1.0, rules.clip_norm / (math.sqrt(squares) + 1e-6))
            gradients = [(dW * factor, db * factor) for dW, db in gradients]
        self.updates += 1
        if not self.buffers:
            count = {"sgd": 0, "momentum": 1, "nesterov": 1, "adam": 2}[rules.optimizer]
            self.buffers = [
                [[np.zeros_like(p) for _ in range(count)] for p in layer] for layer in self.layers
            ]
        for k, ((W, b), (dW, db)) in enumerate(zip(self.layers, gradients, strict=True)):
            step_W = self._step(rules, dW + rules.weight_decay * W, self.buffers[k][0])
            step_b = self._step(rules, db, self.buffers[k][1])
            self.layers[k] = (W - lr * step_W, b - lr * step_b)

    def _step(self, rules: Rules, g: Float, buffers: list[Float]) -> Float:
        if rules.optimizer == "sgd":
            return g
        if rules.optimizer == "adam":
            m = rules.beta1 * buffers[0] + (1 - rules.beta1) * g
            v = rules.beta2 * buffers[1] + (1 - rules.beta2) * g**2
            buffers[:] = [m, v]
            m_hat = m / (1 - rules.beta1**self.updates)
            v_hat = v / (1 - rules.beta2**self.updates)
            return m_hat / (np.sqrt(v_hat) + rules.epsilon)
        velocity = rules.momentum * buffers[0] + g
        buffers[:] = [velocity]
        return g + rules.momentum * velocity if rules.optimizer == "nesterov" else velocity


def mask(rng: np.random.Generator, rows: int, units: int, rate: float) -> Float:
    """Return the dropout factors of a layer: 0 with probability ``rate``, else 1 / (1 − rate)."""
    drawn = rng.random((rows, units), dtype=np.float32)
    return np.array(
        [[0.0 if u < np.float32(rate) else 1 / (1 - rate) for u in row] for row in drawn]
    )


# ─── Schedules: the factor at time t, counted in epochs after the warm-up ───


def step_factor(t: float, *, every: int, factor: float) -> float:
    return float(factor ** math.floor(t / every))


def inverse_factor(t: float, *, power: float, rate: float) -> float:
    return float(1 / (1 + rate * t) ** power)


def cosine_factor(t: float, *, length: float, floor: float) -> float:
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * t / length))


def central_difference(
    f: Callable[[], float], array: npt.NDArray[Any], *, step: float = 1e-6
) -> Float:
    """Return ∂f/∂array by moving each entry a step both ways; the array stays as it was."""
    gradient = np.empty_like(array)
    for index in np.ndindex(array.shape):
        before = array[index]
        array[index] = before + step
        above = f()
        array[index] = before - step
        below = f()
        array[index] = before
        gradient[index] = (above - below) / (2 * step)
    return gradient

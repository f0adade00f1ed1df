"""Mini-batches over memory that is made once: forward, backward and update in place."""

from typing import Any

import numpy as np

from src.nn.layers import Activation, Array, Dense, Dropout
from src.nn.losses import Loss
from src.nn.network import Network, Parameters
from src.training.batching import Rows, batches
from src.training.engines.base import Arrays, Engine
from src.training.engines.inplace import Curve, LossGradient, Rule, add_product, clip, curve
from src.training.optimizers import SGD, Optimizer, State


class Pass:
    """The memory of one pass of up to ``rows`` samples forward and backward through a network."""

    def __init__(self, network: Network, loss: Loss, rows: int, dtype: np.dtype[Any]) -> None:
        self.network, self.ones = network, np.ones(rows, dtype)
        self.loss_gradient = LossGradient(loss, (rows, _last(network).fan_out), dtype)
        self._x = np.empty((rows, _first(network).fan_in), dtype)
        # The values between the layers; an activation with a twin writes over what it was given.
        self._curves: list[Curve | None] = []
        self._values: list[Array] = []
        self._gradients: list[Array] = []  # with respect to what goes into each layer
        units = 0
        for layer in network:
            twin = curve(layer, (rows, units), dtype) if isinstance(layer, Activation) else None
            self._curves.append(twin)
            self._gradients.append(np.empty((rows, units), dtype))
            units = layer.fan_out if isinstance(layer, Dense) else units
            self._values.append(self._values[-1] if twin else np.empty((rows, units), dtype))

    def forward(
        self,
        data: Arrays,
        rows: Rows,
        parameters: Parameters,
        logits: Array,
        masks: np.random.Generator,
    ) -> None:
        """Carry some samples through the network and write their ``logits``."""
        n = len(logits)
        self._seen = [self._gather(data, rows, n)]
        self._masks: dict[int, Array] = {}
        last = len(self.network) - 1
        for i, (layer, p) in enumerate(zip(self.network, parameters, strict=True)):
            x, y, twin = (
                self._seen[-1],
                self._values[i][:n] if i < last else logits,
                self._curves[i],
            )
            if isinstance(layer, Dense):
                np.matmul(x, p[0], out=y)
                np.add(y, p[1], out=y)
            elif twin:
                twin.apply(y)
            elif isinstance(layer, Dropout):
                self._masks[i] = layer.mask((n,), masks, y.dtype)
                np.multiply(x, self._masks[i], out=y)
            else:
                y[...] = layer.forward(p, x)
            self._seen.append(y)

    def backward(self, parameters: Parameters, dlogits: Array) -> "list[tuple[int, Array, Array]]":
        """Return for each dense layer, the last one first, its place, its input x and its ∂L/∂y."""
        n = len(dlogits)
        dy, found = dlogits, []
        for i in range(len(self.network) - 1, -1, -1):
            layer, x, y, twin = self.network[i], self._seen[i], self._seen[i + 1], self._curves[i]
            if isinstance(layer, Dense):
                found.append((i, x, dy))
                if i > 0:
                    dy = np.matmul(dy, parameters[i][0].T, out=self._gradients[i][:n])
            elif twin:
                twin.multiply(dy, y)
            elif isinstance(layer, Dropout):
                np.multiply(dy, self._masks[i], out=dy)
            else:
                dy = layer.input_gradient(parameters[i], x, y, dy)
        return found

    def sum(self, dy: Array, out: Array) -> Array:
        """Return the sum over the samples, in ``out (1, units)``: a product, which is quicker than a sum."""
        return np.matmul(self.ones[None, : len(dy)], dy, out=out)

    def _gather(self, data: Arrays, rows: Rows, n: int) -> Array:
        if isinstance(rows, slice):
            return data.rows(rows) if data.is_seen_as_it_is else data.rows(rows, out=self._x[:n])
        if data.is_seen_as_it_is:
            return np.take(
                data.x, rows, axis=0, out=self._x[:n], mode="clip"
            )  # which needs no memory of its own
        return data.rows(rows, out=self._x[:n])


class Buffered(Engine):
    """Trains by batches in place."""

    def __init__(
        self,
        network: Network,
        parameters: Parameters,
        data: Arrays,
        *,
        loss: Loss,
        optimizer: Optimizer,
        rows: int,
    ) -> None:
        super().__init__(network, parameters, data, loss=loss, optimizer=optimizer)
        self._pass = Pass(network, loss, rows, data.precision)
        # Descent without memory is one product that adds to the weights where they are.
        self._plain = (
            type(optimizer) is SGD and not optimizer.momentum and optimizer.clip_norm is None
        )

    def epoch(
        self, order: Rows, size: int, rates: list[float], masks: np.random.Generator
    ) -> Array:
        parameters = tuple(tuple(p.copy() for p in layer) for layer in self.parameters)
        memory = tuple(
            tuple(tuple(m.copy() for m in of) for of in layer) for layer in self.state.memory
        )
        rules = [
            tuple(
                Rule(self.optimizer, p, m, decays=i == 0)
                for i, (p, m) in enumerate(zip(layer, layer_memory, strict=True))
            )
            for layer, layer_memory in zip(parameters, memory, strict=True)
        ]
        gradients = tuple(tuple(np.empty_like(p) for p in layer) for layer in parameters)
        labels = self.data.labels[order]
        logits = np.empty((len(labels), _last(self.network).fan_out), self.data.precision)
        updates = self.state.updates
        start = 0
        for rows, lr in zip(batches(order, size), rates, strict=True):
            updates += 1
            end = min(start + size, len(labels))
            z = logits[start:end]
            self._pass.forward(self.data, rows, parameters, z, masks)
            dlogits = self._pass.loss_gradient(z, labels[start:end], end - start)
            found = self._pass.backward(parameters, dlogits)
            if self._plain:
                for i, x, dy in found:
                    W, b = parameters[i]
                    add_product(-lr, x, dy, 1 - lr * self.optimizer.weight_decay, W)
                    b -= np.multiply(self._pass.sum(dy, gradients[i][1]), lr, out=gradients[i][1])
            else:
                for i, x, dy in found:
                    np.matmul(x.T, dy, out=gradients[i][0])
                    self._pass.sum(dy, gradients[i][1])
                clip(gradients, self.optimizer)
                for layer, layer_gradients in zip(rules, gradients, strict=True):
                    for rule, g in zip(layer, layer_gradients, strict=True):
                        rule.step(g, lr, updates)
            start = end
        self.parameters = parameters
        self.state = State(updates, tuple(tuple(rule.memory for rule in layer) for layer in rules))
        return logits


def _first(network: Network) -> Dense:
    return next(layer for layer in network if isinstance(layer, Dense))


def _last(network: Network) -> Dense:
    return next(layer for layer in reversed(network) if isinstance(layer, Dense))

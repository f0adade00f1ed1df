"""The algorithm as it is written in books: every other way of training an epoch is tested against this one."""

import numpy as np

from src.nn.layers import Array
from src.nn.network import backward, forward, with_masks
from src.training.batching import Rows, batches
from src.training.engines.base import Engine


class Plain(Engine):
    """Forward, loss, backward, update, batch after batch. Serves everything that the project has."""

    def epoch(
        self, order: Rows, size: int, rates: list[float], masks: np.random.Generator
    ) -> Array:
        passes = []
        for rows, lr in zip(batches(order, size), rates, strict=True):
            x, labels = self.data.rows(rows), self.data.labels[rows]
            parameters = with_masks(self.network, self.parameters, (len(labels),), masks)

            values = forward(self.network, parameters, x)
            gradients = backward(
                self.network, parameters, values, self.loss.gradient(values[-1], labels)
            )
            self.parameters, self.state = self.optimizer.update(
                self.parameters, gradients, self.state, lr
            )
            passes.append(values[-1])
        return np.concatenate(passes, axis=-2)

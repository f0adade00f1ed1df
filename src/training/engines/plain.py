"""The algorithm as books write it. Every other engine is tested against this one."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from src.nn.layers import Array
from src.nn.network import backward, forward, with_masks
from src.training.batching import Rows, batches
from src.training.engines.base import Engine, member, stack
from src.training.optimizers import State


class Plain(Engine):
    """Forward, loss, backward, update, batch after batch. Supports every combination.

    The networks stand side by side on a leading axis, so that the same code trains one and many.
    """

    def epoch(
        self,
        orders: Sequence[Rows],
        rates: npt.NDArray[np.float64],
        masks: Sequence[np.random.Generator],
    ) -> list[Array]:
        parameters = stack(self.parameters)
        state = State(self.states[0].updates, stack([s.buffers for s in self.states]))
        optimizer, decays = self.optimizers[0], [o.weight_decay for o in self.optimizers]
        passes = []
        each_group = (batches(order, self.batch_size) for order in orders)
        for rows, lr in zip(zip(*each_group, strict=True), rates, strict=True):
            x, labels = self._samples(rows), self.labels(rows)
            masked = with_masks(self.network, parameters, labels.shape[-1:], masks)

            values = forward(self.network, masked, x)
            dlogits = self.loss.gradient(values[-1], labels)
            gradients = backward(self.network, masked, values, dlogits)
            parameters, state = optimizer.update(
                parameters, gradients, state, self._column(lr), self._column(decays)
            )
            passes.append(values[-1])
        k = len(self.parameters)
        self.parameters = [member(parameters, j) for j in range(k)]
        self.states = [State(state.updates, member(state.buffers, j)) for j in range(k)]
        return list(np.concatenate(passes, axis=-2))

    def _samples(self, rows: Sequence[Rows]) -> Array:
        """Return what each network sees, (k, n, features)."""
        xs = [group.data.rows(own) for group, own in zip(self.groups, rows, strict=True)]
        return np.repeat(xs, [group.members for group in self.groups], axis=0)

    def _column(self, numbers: Sequence[float] | npt.NDArray[np.float64]) -> Array:
        """Return a number per network in the shape that meets its arrays, (k, 1, 1)."""
        return np.array(numbers, self.dtype)[:, None, None]

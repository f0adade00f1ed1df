"""What the updates of a block make of a state, for optimizers whose updates are linear.

The state of an array of parameters is the array itself and the optimizer's buffers of it. Where an
update is linear in the state and in the gradient, all updates of a block are, too: the state after
them follows from the state before the block and from the gradients, with factors that depend on
neither. Deferred updates rest on this.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from src.nn.layers import Array
from src.training.optimizers import Optimizer

ANY_UPDATE = 1  # the number of an update: one that is linear is the same at any number


@dataclass(frozen=True)
class Response:
    """The factors of a block of K updates, for states of m arrays.

    Array i of the state before update t, or for t = K after the last one, is the sum of
    ``start[..., t, i, j]`` · array j before the block, less the sum over the updates s < t of
    ``gradient[..., t, i, s]`` · d[s]. Here d[s] is the gradient of update s, for vanilla SGD
    multiplied by its learning rate. Where s ≥ t, ``gradient`` says nothing.
    """

    start: Array  # (..., K + 1, m, m)
    gradient: Array  # (..., K + 1, m, K)


class Responses:
    """The responses of an optimizer, block by block: equal learning rates have an equal one."""

    def __init__(
        self, optimizer: Optimizer, decay: float | npt.NDArray[np.float64], dtype: npt.DTypeLike
    ) -> None:
        self._optimizer, self._decay, self._dtype = optimizer, decay, dtype
        # Vanilla SGD's d contains the learning rates: without decay these do not count.
        self._rates_count = bool(np.any(decay)) or not optimizer.is_vanilla
        self._rates = np.empty(0)
        self._response: Response

    def of(self, rates: npt.NDArray[np.float64]) -> Response:
        """Return the response of a block whose updates have these learning rates (..., K)."""
        if rates.shape != self._rates.shape or (
            self._rates_count and not np.array_equal(rates, self._rates)
        ):
            linear = self._optimizer.linear(rates, self._decay)
            assert linear is not None
            A, B = linear
            start, gradient = _left(A) if self._optimizer.is_vanilla else _followed(A, B)
            self._response = Response(start.astype(self._dtype), gradient.astype(self._dtype))
            self._rates = rates
        return self._response


def _left(kept: Array) -> tuple[Array, Array]:
    """Return start and gradient where update u leaves the share ``kept[..., u, 0, 0]``.

    What updates s to t − 1 leave is a product of shares and never a quotient: a share may be 0.
    """
    kept = kept[..., 0, 0]
    K = kept.shape[-1]
    factors: Array = np.ones((*kept.shape[:-1], K + 1, K + 1), kept.dtype)
    np.copyto(factors[..., 1:, :], kept[..., None], where=np.tri(K, K + 1, dtype=bool))
    left: Array = np.cumprod(factors, axis=-2)[..., None, :]
    return left[..., :1], left[..., 1:]


def _followed(A: Array, B: Array) -> tuple[Array, Array]:
    """Return start and gradient where update u makes A[u] state − B[u] gradient of the state.

    The factors follow the same rule as the state, update by update: a row below them, which is 1
    for the gradient of the update and else 0, meets B.
    """
    *leading, K, m = B.shape
    updates = np.concatenate([A, B[..., None]], axis=-1)
    factors = np.zeros((*leading, K + 1, m + 1, m + K))
    factors[..., 0, :m, :m] = np.eye(m)
    factors[..., :K, m, m:] = np.eye(K)
    for u in range(K):
        before, after = factors[..., u, :, :], factors[..., u + 1, :m, :]
        np.matmul(updates[..., u, :, :], before, out=after)
    return factors[..., :m, :m], factors[..., :m, m:]

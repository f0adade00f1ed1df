"""Networks side by side against each of them alone."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from src.engines.base import Arrays
from src.engines.deferred_stack import DeferredStack
from src.engines.plain import Plain
from src.engines.stack import Lane
from src.nn.initializers import Random, Uniform, XavierNormal
from src.nn.layers import Activation, Identity, LeakyReLU, ReLU, Sigmoid, Tanh
from src.nn.losses import Loss, SigmoidCrossEntropy, SoftmaxCrossEntropy
from src.nn.network import MLP
from src.optimizers import SGD
from src.randomness import stream
from tests.test_engines import images

LANES = [[1], [4], [1, 1, 1], [3, 1, 2]]


def side_by_side(
    lanes: list[int],
    *,
    hidden: tuple[int, ...] = (6, 5),
    activation: Activation | None = None,
    loss: Loss | None = None,
    n: int = 150,
    epochs: int = 2,
    dtype: npt.DTypeLike = np.float64,
    within: float = 1e-11,
) -> None:
    """Train networks of their own start, rate and data, those of a lane in one order, and each again by the plain engine."""
    k = sum(lanes)
    network = MLP(12, hidden, 3, activation or ReLU()).layers
    drawn = Random(XavierNormal(), Uniform(-0.5, 0.5))
    starts = [drawn.initialize(network, stream(seed, "weights"), dtype) for seed in range(k)]
    data = [
        Arrays(np.roll(images(n, np.uint8), q, axis=0), np.arange(n) % 3, 1 / 255, dtype) for q in range(len(lanes))
    ]
    settings: dict[str, Any] = {"loss": loss or SoftmaxCrossEntropy()}
    optimizer = SGD()
    places = [Lane(own, members) for own, members in zip(data, lanes, strict=True)]
    states = [optimizer.start(p) for p in starts]
    stack = DeferredStack(network, starts, states, places, optimizers=[optimizer] * k, **settings)
    kept = [p.copy() for start in starts for layer in start for p in layer]
    of_each = [q for q, members in enumerate(lanes) for _ in range(members)]
    alone = [Plain(network, starts[j], data[of_each[j]], optimizer=optimizer, **settings) for j in range(k)]
    for epoch in range(1, epochs + 1):
        orders = [stream(q, "order", epoch).permutation(n) for q in range(len(lanes))]
        rates = np.random.default_rng(epoch).uniform(0.01, 0.1, (n, k))
        logits = stack.epoch(orders, 1, rates)
        for j, engine in enumerate(alone):
            expected = engine.epoch(orders[of_each[j]], 1, rates[:, j].tolist(), stream(0, "dropout", epoch))
            np.testing.assert_allclose(logits[j], expected, rtol=within, atol=within)
            for layer, other in zip(stack.parameters[j], engine.parameters, strict=True):
                for p, q in zip(layer, other, strict=True):
                    assert p.dtype == q.dtype == dtype
                    np.testing.assert_allclose(p, q, rtol=within, atol=within)
            assert stack.states[j].updates == engine.state.updates == n * epoch
    for p, before in zip((p for start in starts for layer in start for p in layer), kept, strict=True):
        np.testing.assert_array_equal(p, before)


@pytest.mark.parametrize("lanes", LANES, ids=str)
@pytest.mark.parametrize("activation", [ReLU(), LeakyReLU(0.1), Sigmoid(), Tanh(), Identity()], ids=str)
def test_single_samples(lanes: list[int], activation: Activation) -> None:
    side_by_side(lanes, activation=activation)


@pytest.mark.parametrize("lanes", LANES, ids=str)
@pytest.mark.parametrize("loss", [SoftmaxCrossEntropy(0.1), SigmoidCrossEntropy()], ids=str)
@pytest.mark.parametrize("hidden", [(), (4,), (4, 5, 6)])
def test_single_samples_by_any_loss_at_any_depth(lanes: list[int], loss: Loss, hidden: tuple[int, ...]) -> None:
    side_by_side(lanes, loss=loss, hidden=hidden)


def test_single_samples_in_single_precision() -> None:
    side_by_side([3, 1, 2], dtype=np.float32, within=2e-4)


@pytest.mark.parametrize("n", [1, 15, 16, 17, 63, 64, 65])
def test_blocks_that_are_not_full(n: int) -> None:
    side_by_side([4], n=n)
    side_by_side([1, 2], n=n)

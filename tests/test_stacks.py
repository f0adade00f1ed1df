"""Networks side by side against each of them alone."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from src.engines.base import Arrays
from src.engines.batched_stack import BatchedStack, PlainStack
from src.engines.deferred_stack import DeferredStack
from src.engines.plain import Plain
from src.engines.stack import Lane, Stack
from src.nn.initializers import Random, Uniform, XavierNormal
from src.nn.layers import GELU, Activation, Identity, LeakyReLU, ReLU, Sigmoid, Tanh
from src.nn.losses import Loss, SigmoidCrossEntropy, SoftmaxCrossEntropy, SquaredError
from src.nn.network import MLP
from src.optimizers import SGD, Adam, Optimizer
from src.randomness import stream
from tests.test_engines import images

LANES = [[1], [4], [1, 1, 1], [3, 1, 2]]


def side_by_side(
    kind: type[Stack],
    lanes: list[int],
    *,
    size: int = 1,
    hidden: tuple[int, ...] = (6, 5),
    activation: Activation | None = None,
    loss: Loss | None = None,
    optimizers: Sequence[Optimizer] = (SGD(),),
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
    rules = [optimizers[j % len(optimizers)] for j in range(k)]
    places = [Lane(own, members) for own, members in zip(data, lanes, strict=True)]
    states = [rule.start(p) for rule, p in zip(rules, starts, strict=True)]
    sized: dict[str, Any] = {"size": size} if kind is BatchedStack else {}
    stack: Stack = kind(network, starts, states, places, optimizers=rules, **settings, **sized)
    kept = [p.copy() for start in starts for layer in start for p in layer]
    of_each = [q for q, members in enumerate(lanes) for _ in range(members)]
    alone = [Plain(network, starts[j], data[of_each[j]], optimizer=rules[j], **settings) for j in range(k)]
    updates = -(-n // size)
    for epoch in range(1, epochs + 1):
        orders: list[Any] = [stream(q, "order", epoch).permutation(n) for q in range(len(lanes))]
        if size == n:
            orders = [slice(0, n)] * len(lanes)
        rates = np.random.default_rng(epoch).uniform(0.01, 0.1, (updates, k))
        logits = stack.epoch(orders, size, rates)
        for j, engine in enumerate(alone):
            expected = engine.epoch(orders[of_each[j]], size, rates[:, j].tolist(), stream(0, "dropout", epoch))
            np.testing.assert_allclose(logits[j], expected, rtol=within, atol=within)
            for layer, other in zip(stack.parameters[j], engine.parameters, strict=True):
                for p, q in zip(layer, other, strict=True):
                    assert p.dtype == q.dtype == dtype
                    np.testing.assert_allclose(p, q, rtol=within, atol=within)
            assert stack.states[j].updates == engine.state.updates == updates * epoch
            for memories, others in zip(stack.states[j].memory, engine.state.memory, strict=True):
                for of, same in zip(memories, others, strict=True):
                    for m, q in zip(of, same, strict=True):
                        np.testing.assert_allclose(m, q, rtol=within, atol=within)
    for p, before in zip((p for start in starts for layer in start for p in layer), kept, strict=True):
        np.testing.assert_array_equal(p, before)


@pytest.mark.parametrize("lanes", LANES, ids=str)
@pytest.mark.parametrize("activation", [ReLU(), LeakyReLU(0.1), Sigmoid(), Tanh(), Identity()], ids=str)
def test_single_samples(lanes: list[int], activation: Activation) -> None:
    side_by_side(DeferredStack, lanes, activation=activation)


@pytest.mark.parametrize("lanes", LANES, ids=str)
@pytest.mark.parametrize("loss", [SoftmaxCrossEntropy(0.1), SigmoidCrossEntropy()], ids=str)
@pytest.mark.parametrize("hidden", [(), (4,), (4, 5, 6)])
def test_single_samples_by_any_loss_at_any_depth(lanes: list[int], loss: Loss, hidden: tuple[int, ...]) -> None:
    side_by_side(DeferredStack, lanes, loss=loss, hidden=hidden)


def test_single_samples_in_single_precision() -> None:
    side_by_side(DeferredStack, [3, 1, 2], dtype=np.float32, within=2e-4)


@pytest.mark.parametrize("n", [1, 15, 16, 17, 63, 64, 65])
def test_blocks_that_are_not_full(n: int) -> None:
    side_by_side(DeferredStack, [4], n=n)
    side_by_side(DeferredStack, [1, 2], n=n)


@pytest.mark.parametrize("kind", [PlainStack, BatchedStack])
@pytest.mark.parametrize("lanes", LANES, ids=str)
@pytest.mark.parametrize("size", [1, 8, 7, 150])
@pytest.mark.parametrize("activation", [ReLU(), LeakyReLU(0.1), Sigmoid(), Tanh(), GELU(), Identity()], ids=str)
def test_batches(kind: type[Stack], lanes: list[int], size: int, activation: Activation) -> None:
    side_by_side(kind, lanes, size=size, activation=activation)


@pytest.mark.parametrize("kind", [PlainStack, BatchedStack])
@pytest.mark.parametrize("lanes", LANES, ids=str)
@pytest.mark.parametrize("loss", [SoftmaxCrossEntropy(0.1), SigmoidCrossEntropy(), SquaredError(Sigmoid())], ids=str)
@pytest.mark.parametrize("hidden", [(), (4,), (4, 5, 6)])
def test_batches_by_any_loss_at_any_depth(
    kind: type[Stack], lanes: list[int], loss: Loss, hidden: tuple[int, ...]
) -> None:
    side_by_side(kind, lanes, size=7, loss=loss, hidden=hidden)


@pytest.mark.parametrize("kind", [PlainStack, BatchedStack])
@pytest.mark.parametrize("lanes", LANES, ids=str)
@pytest.mark.parametrize("size", [7, 150])
def test_networks_with_penalties_of_their_own(kind: type[Stack], lanes: list[int], size: int) -> None:
    side_by_side(kind, lanes, size=size, optimizers=[SGD(weight_decay=decay) for decay in (0, 0.01, 0.3)])


@pytest.mark.parametrize("lanes", LANES, ids=str)
@pytest.mark.parametrize(
    "optimizer", [SGD(momentum=0.9), SGD(momentum=0.9, nesterov=True), SGD(clip_norm=0.1), Adam(clip_norm=0.2)], ids=str
)
def test_any_optimizer(lanes: list[int], optimizer: Optimizer) -> None:
    rules = [replace(optimizer, weight_decay=decay) for decay in (0.01, 0.0)]
    side_by_side(PlainStack, lanes, size=7, optimizers=rules)


@pytest.mark.parametrize("lanes", LANES, ids=str)
@pytest.mark.parametrize("size", [25, 50, 150])
def test_large_batches_go_through_in_chunks(lanes: list[int], size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.engines.batched_stack.CHUNK", 10 if size != 25 else 25)
    side_by_side(BatchedStack, lanes, size=size)

"""Every fast engine against the plain one, over everything that the project has."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from src.nn.initializers import Random, Uniform, XavierNormal
from src.nn.layers import GELU, Activation, Array, Identity, LeakyReLU, ReLU, Sigmoid, Tanh
from src.nn.losses import (
    Labels,
    Loss,
    SigmoidCrossEntropy,
    SoftmaxCrossEntropy,
    SquaredError,
    one_hot,
)
from src.nn.network import MLP
from src.support.randomness import stream
from src.training.batching import Batching, Full, Mini, Sample
from src.training.engines import batches, memory
from src.training.engines.base import Arrays, OrderGroup
from src.training.engines.batches import Batches
from src.training.engines.choice import choose
from src.training.engines.deferred import Deferred
from src.training.engines.deferred_stack import DeferredStack
from src.training.engines.plain import Plain
from src.training.optimizers import SGD, Adam, Buffers, Optimizer
from src.training.schedules import Constant, Cosine
from src.training.training_run import Epoch
from tests.test_training import follow

ACTIVATIONS = [ReLU(), LeakyReLU(0.1), Sigmoid(), Tanh(), GELU(), Identity()]
LOSSES = [
    SoftmaxCrossEntropy(),
    SoftmaxCrossEntropy(0.1),
    SigmoidCrossEntropy(),
    SquaredError(Identity()),
    SquaredError(Sigmoid()),
]
OPTIMIZERS = [
    SGD(), SGD(weight_decay=0.01), SGD(clip_norm=0.1), SGD(momentum=0.9),
    SGD(momentum=0.9, nesterov=True, weight_decay=0.01),
    Adam(), Adam(weight_decay=0.01, clip_norm=0.1),
]  # fmt: skip
BATCHINGS = [
    Full(),
    Mini(8),
    Mini(7, drop_last=True),
    Mini(7, shuffle=False),
    Mini(1),
    Sample(),
    Sample(shuffle=False),
]


def images(n: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    return np.random.default_rng(0).integers(0, 256, (n, 12)).astype(dtype)


USUAL: dict[str, Any] = {
    "loss": SoftmaxCrossEntropy(),
    "optimizer": SGD(),
    "schedule": Cosine(warmup=0.5),
}


def trained(
    engine: Any,
    *,
    hidden: tuple[int, ...] = (6, 5),
    activation: Activation | None = None,
    dropout: float = 0.0,
    n: int = 150,
    epochs: int = 3,
    pixels: npt.DTypeLike = np.uint8,
    dtype: npt.DTypeLike = np.float64,
    **settings: Any,
) -> list[Epoch]:
    network = MLP(12, hidden, 3, activation or ReLU(), dropout).layers
    parameters = Random(XavierNormal(), Uniform(-0.5, 0.5)).initialize(
        network, stream(0, "weights"), dtype
    )
    data = Arrays(images(n, pixels), np.arange(n) % 3, 1 / 255, dtype)
    settings = {**USUAL, "batching": Mini(8), **settings}
    return list(
        follow(
            network,
            parameters,
            {"train": data},
            lr=0.05,
            epochs=epochs,
            seed=0,
            engine=engine,
            **settings,
        )
    )


def assert_equal(fast: list[Epoch], plain: list[Epoch], within: float = 1e-11) -> None:
    for ours, theirs in zip(fast, plain, strict=True):
        np.testing.assert_allclose(
            ours.scores["train"].loss, theirs.scores["train"].loss, rtol=within
        )
        assert ours.scores["train"].accuracy == theirs.scores["train"].accuracy
        for layer, expected in zip(ours.parameters, theirs.parameters, strict=True):
            for p, q in zip(layer, expected, strict=True):
                assert p.dtype == q.dtype
                np.testing.assert_allclose(p, q, rtol=within, atol=within)


@pytest.mark.parametrize("batching", BATCHINGS, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_layers_and_losses(batching: Batching, activation: Activation, loss: Loss) -> None:
    settings: dict[str, Any] = {"batching": batching, "activation": activation, "loss": loss}
    assert_equal(trained("fast", **settings), trained("plain", **settings))


@pytest.mark.parametrize("batching", BATCHINGS, ids=str)
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_optimizers(batching: Batching, optimizer: Optimizer) -> None:
    settings: dict[str, Any] = {
        "batching": batching,
        "optimizer": optimizer,
        "activation": Sigmoid(),
    }
    assert_equal(trained("fast", **settings), trained("plain", **settings))


@pytest.mark.parametrize("batching", BATCHINGS, ids=str)
@pytest.mark.parametrize("hidden", [(), (1,), (9,), (4, 5, 6, 7)])
def test_any_depth(batching: Batching, hidden: tuple[int, ...]) -> None:
    assert_equal(
        trained("fast", batching=batching, hidden=hidden),
        trained("plain", batching=batching, hidden=hidden),
    )


@pytest.mark.parametrize("batching", BATCHINGS, ids=str)
def test_dropout_draws_the_same_masks(batching: Batching) -> None:
    settings: dict[str, Any] = {"batching": batching, "dropout": 0.3, "activation": Tanh()}
    assert_equal(trained("fast", **settings), trained("plain", **settings))


@pytest.mark.parametrize("batching", [Full(), Mini(8), Sample()], ids=str)
@pytest.mark.parametrize("pixels", [np.uint8, np.float32, np.float64])
def test_single_precision_and_pixels_of_any_kind(batching: Batching, pixels: npt.DTypeLike) -> None:
    settings: dict[str, Any] = {"batching": batching, "pixels": pixels, "dtype": np.float32}
    fast, plain = trained("fast", **settings), trained("plain", **settings)
    assert_equal(fast, plain, within=2e-5)


def test_more_samples_than_a_block_and_than_every_lane_of_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batches, "CHUNK", 10)
    for n in (9, 10, 11, 150, 157):
        assert_equal(trained("fast", batching=Full(), n=n), trained("plain", batching=Full(), n=n))
    for n in (63, 64, 65, 200):
        assert_equal(
            trained("fast", batching=Sample(), n=n), trained("plain", batching=Sample(), n=n)
        )


@pytest.mark.parametrize("size", [1, 8, 100])
@pytest.mark.parametrize("hidden", [(), (5, 4)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "logits",
    [
        (900, 901, 899),
        (-900, -902, -901),
        (50, 80, 60),
        (-90, -85, -80),
        (0, 900, -900),
        (0, -900, 1),
    ],
)
def test_logits_far_from_0(
    logits: tuple[float, ...],
    dtype: npt.DTypeLike,
    hidden: tuple[int, ...],
    size: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batches, "CHUNK", 10)
    monkeypatch.setattr(
        batches, "available_cores", lambda: 2
    )  # that no thread warns of what this one was told to ignore
    network = MLP(12, hidden, 3, Tanh()).layers
    drawn = Random(XavierNormal(), Uniform(-0.5, 0.5)).initialize(
        network, stream(0, "weights"), dtype
    )
    W, _ = drawn[-1]
    start = (*drawn[:-1], (W, np.array([logits], dtype)))
    data = Arrays(images(100, np.uint8), np.arange(100) % 3, 1 / 255, dtype)
    rates = np.linspace(0.01, 0.1, 100)[: -(-100 // size), None]
    settings: dict[str, Any] = {
        "loss": SoftmaxCrossEntropy(),
        "optimizers": [SGD()],
        "batch_size": size,
    }
    found = []
    for kind in (choose("fast", network, [SGD()], size), Plain):
        engine = kind(network, [start], [SGD().start(start)], [OrderGroup(data, 1)], **settings)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            engine.epoch([slice(0, 100)], rates, [stream(0, "dropout")])
        found.append(engine.parameters[0])
    within = 1e-11 if dtype == np.float64 else 1e-3  # a logit of 900 is rounded to 6e-5
    for layer, expected in zip(*found, strict=True):
        for p, q in zip(layer, expected, strict=True):
            np.testing.assert_allclose(p, q, rtol=within, atol=within)


@pytest.mark.parametrize("hidden", [(), (5, 4)])
@pytest.mark.parametrize("decay", [0.1, 20.0, 30.0])
def test_updates_that_leave_little_of_the_weights_nothing_or_less(
    decay: float, hidden: tuple[int, ...]
) -> None:
    settings: dict[str, Any] = {
        "optimizer": SGD(weight_decay=decay),
        "batching": Sample(),
        "hidden": hidden,
    }
    settings["schedule"] = Constant()  # at a rate of 1/20
    assert_equal(trained("fast", **settings), trained("plain", **settings))


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("optimizer", [SGD(), SGD(clip_norm=0.1, weight_decay=0.01), Adam()])
def test_any_number_of_cores_gives_equal_bytes(
    optimizer: Optimizer, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "CHUNK", 10)
    monkeypatch.setattr(batches, "SHARED", 1)
    monkeypatch.setattr(memory, "_BLOCK", 20)
    settings: dict[str, Any] = {"optimizer": optimizer, "batching": Full(), "dtype": np.float32}

    def weights(cores: int) -> list[bytes]:
        monkeypatch.setattr(batches, "available_cores", lambda: cores)
        last = trained("fast", **settings)[-1]
        return [p.tobytes() for layer in last.parameters for p in layer]

    assert weights(workers) == weights(4)


@pytest.mark.parametrize(
    ("hidden", "size", "chunks"),
    [(512, 256, 2), (512, 255, 1), (512, 1024, 8), (128, 256, 1), (128, 1000, 6), (2000, 100, 1)],
)
def test_a_batch_is_divided_where_each_chunk_has_rows_and_arithmetic_enough(
    hidden: int, size: int, chunks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "available_cores", lambda: 16)
    network = MLP(784, (hidden,), 10, ReLU()).layers
    start = Random(XavierNormal(), Uniform(-0.5, 0.5)).initialize(
        network, stream(0, "weights"), np.float32
    )
    data = Arrays(np.zeros((4, 784), np.uint8), np.zeros(4, np.int64), 1 / 255, np.float32)
    engine = Batches(
        network,
        [start],
        [SGD().start(start)],
        [OrderGroup(data, 1)],
        loss=SoftmaxCrossEntropy(),
        optimizers=[SGD()],
        batch_size=size,
    )
    assert engine.workers == chunks


@pytest.mark.parametrize("engine", ["fast", "plain"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("size", [149, 150])
def test_scores_of_a_shuffled_batch_of_all_samples_or_nearly_all(
    engine: str, dropout: float, size: int
) -> None:
    """Without a step, each sample's logits are those of the first weights, with its own label."""
    still: dict[str, Any] = {"schedule": Constant(), "optimizer": Still(), "dropout": dropout}
    shuffled = trained(engine, batching=Mini(size), epochs=1, **still)[0].scores["train"]
    in_order = trained("plain", batching=Mini(size, shuffle=False), epochs=1, **still)
    if not dropout:
        np.testing.assert_allclose(shuffled.loss, in_order[0].scores["train"].loss, rtol=1e-9)
        assert shuffled.accuracy == in_order[0].scores["train"].accuracy
    plain = trained("plain", batching=Mini(size), epochs=1, **still)
    np.testing.assert_allclose(shuffled.loss, plain[0].scores["train"].loss, rtol=1e-9)


@pytest.mark.parametrize("size", [149, 150, 151])
@pytest.mark.parametrize("optimizer", [SGD(), SGD(momentum=0.9), Adam()], ids=str)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_batch_of_about_all_samples(size: int, optimizer: Optimizer, dropout: float) -> None:
    """The estimator allows a batch greater than the set."""
    settings: dict[str, Any] = {"optimizer": optimizer, "dropout": dropout, "activation": Tanh()}
    settings["batching"] = Mini(size)
    fast = trained("fast", **settings)
    assert_equal(fast, trained("plain", **settings))


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("many", [1, 300])
def test_in_place_forms_are_the_plain_ones(
    activation: Activation, dtype: npt.DTypeLike, many: int
) -> None:
    x = np.tile(np.array([-100, -1.5, -1e-7, -0.0, 0.0, 1e-7, 0.3, 2, 100], dtype), many)
    expected = activation.apply(x)
    slopes = activation.derivative(x, expected)
    y = x.copy()
    activation.apply_into(y, y)  # where x was
    within = 4 * np.finfo(dtype).eps
    np.testing.assert_allclose(y, expected, rtol=within, atol=within)
    found = np.empty_like(x)
    activation.derivative_into(y if activation.derivative_from_y else x, expected, found)
    np.testing.assert_allclose(found, slopes, rtol=within, atol=within)
    if isinstance(activation, ReLU | LeakyReLU):
        np.testing.assert_array_equal(found, slopes)


@dataclass(frozen=True)
class Softplus(Activation):
    """log(1 + eˣ), which declares nothing but what every activation must."""

    def apply(self, x: Array) -> Array:
        y: Array = np.logaddexp(x, x.dtype.type(0))
        return y

    def derivative(self, x: Array, y: Array) -> Array:
        return 1 - np.exp(-y)


@dataclass(frozen=True)
class Hinge(Loss):
    """Σ max(0, 1 − s z)², s = 1 at the label and −1 elsewhere: a loss with no in-place form."""

    def value(self, logits: Array, labels: Labels) -> Array:
        mean: Array = (self._short(logits, labels) ** 2).sum(axis=-1).mean(axis=-1)
        return mean

    def gradient(self, logits: Array, labels: Labels) -> Array:
        slopes = self._sign(logits, labels) * self._short(logits, labels)
        gradient: Array = -2 * slopes / logits.shape[-2]
        return gradient

    def probabilities(self, logits: Array) -> Array:
        return SoftmaxCrossEntropy().probabilities(logits)

    def _sign(self, logits: Array, labels: Labels) -> Array:
        return 2 * one_hot(labels, logits) - 1

    def _short(self, logits: Array, labels: Labels) -> Array:
        return np.maximum(1 - self._sign(logits, labels) * logits, 0)


@dataclass(frozen=True, kw_only=True)
class Sign(Optimizer):
    """A step by the gradient's sign: an optimizer with no in-place form."""

    @property
    def buffer_count(self) -> int:
        return 1

    def direction(self, gradient: Array, buffers: Buffers, updates: int) -> tuple[Array, Buffers]:
        mean = 0.5 * buffers[0] + gradient
        return mean / (np.abs(mean) + 0.1 * updates), (mean,)


@dataclass(frozen=True, kw_only=True)
class Still(Optimizer):
    """No step at all."""

    @property
    def buffer_count(self) -> int:
        return 0

    def direction(self, gradient: Array, buffers: Buffers, updates: int) -> tuple[Array, Buffers]:
        return 0 * gradient, ()


@pytest.mark.parametrize("batching", BATCHINGS, ids=str)
@pytest.mark.parametrize("loss", [Hinge(), SoftmaxCrossEntropy()], ids=str)
@pytest.mark.parametrize("optimizer", [SGD(), Sign()], ids=str)
def test_classes_that_declare_nothing_special_work_everywhere(
    batching: Batching, loss: Loss, optimizer: Optimizer
) -> None:
    settings: dict[str, Any] = {"activation": Softplus(), "loss": loss, "optimizer": optimizer}
    settings["batching"] = batching
    assert_equal(trained("fast", **settings), trained("plain", **settings))


@dataclass(frozen=True, kw_only=True)
class TwoMomenta(Optimizer):
    """A quick and a slow buffer (Lucas et al. 2018): another linear optimizer."""

    @property
    def buffer_count(self) -> int:
        return 2

    def direction(self, gradient: Array, buffers: Buffers, updates: int) -> tuple[Array, Buffers]:
        quick, slow = 0.5 * buffers[0] + gradient, 0.9 * buffers[1] + gradient
        return (quick + slow) / 2, (quick, slow)

    def linear(
        self, lr: npt.NDArray[np.float64], decay: float | npt.NDArray[np.float64]
    ) -> tuple[Array, Array]:
        A = np.zeros((*np.broadcast_shapes(lr.shape, np.shape(decay)), 3, 3))
        A[..., 0, :] = np.stack(np.broadcast_arrays(1 - lr * decay, -lr / 4, -lr * 0.45), axis=-1)
        A[..., 1:, 0] = np.broadcast_to(decay, A.shape[:-2])[..., None]
        A[..., 1, 1], A[..., 2, 2] = 0.5, 0.9
        B = -np.ones(A.shape[:-1])
        B[..., 0] = lr
        return A, B


@pytest.mark.parametrize("schedule", [Constant(), Cosine(warmup=0.5)], ids=str)
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize(
    "optimizer", [TwoMomenta(), SGD(momentum=0.9), SGD(momentum=0.9, nesterov=True)], ids=str
)
def test_updates_of_any_linear_optimizer_are_deferred(
    schedule: Any, decay: float, optimizer: Optimizer
) -> None:
    settings: dict[str, Any] = {"schedule": schedule, "batching": Sample(), "activation": Tanh()}
    settings["optimizer"], settings["epochs"] = replace(optimizer, weight_decay=decay), 1
    network = MLP(12, (6, 5), 3, Tanh()).layers
    assert choose("fast", network, [settings["optimizer"]], 1) is Deferred
    assert choose("fast", network, [settings["optimizer"]] * 2, 1) is DeferredStack
    assert_equal(trained("fast", **settings), trained("plain", **settings))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [slice(1, 3), np.array([3, 0, 3])], ids=str)
@pytest.mark.parametrize("into", [False, True])
def test_pixels_of_any_kind_are_scaled(dtype: npt.DTypeLike, rows: Any, into: bool) -> None:
    for pixels in (np.uint8, np.float32, np.float64):
        x = np.arange(12).reshape(4, 3).astype(pixels)
        arrays = Arrays(x, np.zeros(4, np.int64), 0.5, dtype)
        seen = arrays.rows(rows)
        seen = arrays.rows(rows, out=np.empty_like(seen)) if into else seen
        assert seen.dtype == dtype
        np.testing.assert_array_equal(seen, np.arange(12).reshape(4, 3)[rows] / 2)


@pytest.mark.parametrize("batching", BATCHINGS, ids=str)
def test_what_an_epoch_left_is_not_written_into_by_the_next(batching: Batching) -> None:
    history = trained("fast", batching=batching, epochs=3)
    again = [trained("fast", batching=batching, epochs=3)[k] for k in range(3)]
    kept = [[p.copy() for layer in epoch.parameters for p in layer] for epoch in again]
    for epoch, copies in zip(history, kept, strict=True):
        for p, copy in zip((p for layer in epoch.parameters for p in layer), copies, strict=True):
            np.testing.assert_array_equal(p, copy)
    assert not np.array_equal(history[0].parameters[0][0], history[1].parameters[0][0])


@pytest.mark.parametrize(
    ("size", "expected", "settings"),
    [
        (1, Deferred, {}),
        (1, Deferred, {"optimizer": SGD(weight_decay=0.1)}),
        (1, Deferred, {"activation": GELU()}),
        (1, Deferred, {"optimizer": SGD(momentum=0.9)}),
        (1, Deferred, {"optimizer": SGD(momentum=0.9, nesterov=True, weight_decay=0.1)}),
        (1, Batches, {"optimizer": SGD(momentum=0.9, clip_norm=1.0)}),
        (1, Batches, {"optimizer": Adam()}),
        (1, Batches, {"dropout": 0.1}),
        (8, Batches, {}),
        (150, Batches, {"dropout": 0.1}),
    ],
)
def test_the_choice_is_the_fastest_that_serves(
    size: int, expected: type, settings: dict[str, Any]
) -> None:
    activation, dropout = settings.get("activation", ReLU()), settings.get("dropout", 0.0)
    network = MLP(12, (5,), 3, activation, dropout).layers
    assert choose("fast", network, [settings.get("optimizer", SGD())], size) is expected
    assert choose("plain", network, [settings.get("optimizer", SGD())], size) is Plain

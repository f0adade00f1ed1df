"""The loop against a loop written out by hand, and what its records promise."""

from collections.abc import Iterator, Mapping
from contextvars import copy_context
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import accuracy_score, log_loss
from threadpoolctl import threadpool_info, threadpool_limits

from src.nn.initializers import Random, XavierNormal, Zeros
from src.nn.layers import Identity, Sigmoid
from src.nn.losses import SoftmaxCrossEntropy
from src.nn.network import MLP, Network, Parameters, forward
from src.support.errors import Diverged
from src.support.randomness import stream
from src.training.batching import Batching, Full, Mini, Sample
from src.training.engines.base import Arrays
from src.training.engines.batches import Batches
from src.training.loop import train_one
from src.training.optimizers import SGD
from src.training.schedules import InverseScaling, Plateau
from src.training.scoring import score
from src.training.training_run import Epoch, TrainingRun
from tests import oracle

MODEL = MLP(6, (5,), 3, Sigmoid())


def blobs(n: int, seed: int, dtype: npt.DTypeLike = np.float64) -> Arrays:
    """Three classes about three centres, easy to learn."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    centres = np.random.default_rng(99).normal(0, 2, (3, 6))
    return Arrays((centres[labels] + rng.normal(size=(n, 6))).astype(dtype), labels)


def follow(
    network: Network,
    parameters: Parameters,
    sets: Mapping[str, Arrays],
    *,
    engine: Any = "fast",
    **settings: Any,
) -> Iterator[Epoch]:
    return train_one(TrainingRun(network, sets, **settings), parameters, engine=engine)


def run(
    batching: Batching,
    *,
    dtype: npt.DTypeLike = np.float64,
    sets: Mapping[str, Arrays] | None = None,
    **changes: Any,
) -> list[Epoch]:
    parameters = Random(XavierNormal(), Zeros()).initialize(
        MODEL.layers, stream(0, "weights"), dtype
    )
    sets = sets or {"train": blobs(50, 1, dtype), "val": blobs(30, 2, dtype)}
    settings: dict[str, Any] = {"lr": 0.5, "epochs": 4, "seed": 0, **changes}
    return list(
        follow(
            MODEL.layers,
            parameters,
            sets,
            loss=SoftmaxCrossEntropy(),
            batching=batching,
            optimizer=SGD(),
            **settings,
        )
    )


@pytest.mark.parametrize(
    "batching",
    [Full(), Mini(8), Mini(8, drop_last=True), Mini(7, shuffle=False), Sample()],
    ids=str,
)
def test_training_is_descent_along_the_gradient_of_each_batch(batching: Batching) -> None:
    """The same training by hand, with gradients by finite differences of the oracle's loss."""
    data = blobs(20, 1)
    (W1, b1), _, (W2, b2) = Random(XavierNormal(), Zeros()).initialize(
        MODEL.layers, stream(0, "weights"), np.float64
    )
    hand = [np.array(a, dtype=np.float64) for a in (W1, b1, W2, b2)]

    for epoch in (1, 2):
        for rows in batching.batches(20, stream(0, "order", epoch)):
            x, labels = data.x[rows], data.labels[rows]

            def loss(x: Any = x, labels: Any = labels) -> float:
                return oracle.mean_cross_entropy(
                    oracle.logits([(hand[0], hand[1]), (hand[2], hand[3])], "sigmoid", x), labels
                )

            gradients = [oracle.central_difference(loss, array) for array in hand]
            for array, gradient in zip(hand, gradients, strict=True):
                array -= 0.5 * gradient

    trained = run(batching, sets={"train": data}, epochs=2)[-1].parameters
    for found, by_hand in zip((a for layer in trained for a in layer), hand, strict=True):
        np.testing.assert_allclose(found, by_hand, rtol=1e-6, atol=1e-8)


def test_running_scores_are_those_of_each_pass_before_its_update() -> None:
    start = Random(XavierNormal(), Zeros()).initialize(
        MODEL.layers, stream(0, "weights"), np.float64
    )
    data = blobs(50, 1)
    first = run(Full())[0].scores["train"]
    assert first == score(
        MODEL.layers, start, data, SoftmaxCrossEntropy()
    )  # full batch: the score before the update
    batches = run(Mini(8, shuffle=False), lr=1e-12)[0].scores[
        "train"
    ]  # with hardly a step, the mean over the whole set
    np.testing.assert_allclose(
        (batches.loss, batches.accuracy), (first.loss, first.accuracy), rtol=1e-9
    )


@pytest.mark.parametrize("batching", [Full(), Mini(8)], ids=str)
def test_exact_scores_are_those_after_the_epoch(batching: Batching) -> None:
    for epoch in run(batching, exact=True):
        assert epoch.scores["train"] == score(
            MODEL.layers, epoch.parameters, blobs(50, 1), SoftmaxCrossEntropy()
        )
    running, exact = run(batching), run(batching, exact=True)
    assert running[-1].scores["val"] == exact[-1].scores["val"]


def test_scores_agree_with_scikit_learn_in_any_number_of_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    epoch = run(Mini(8))[-1]
    data = blobs(30, 2)
    logits = forward(MODEL.layers, epoch.parameters, data.x)[-1]
    loss = log_loss(data.labels, SoftmaxCrossEntropy().probabilities(logits))
    accuracy = accuracy_score(data.labels, logits.argmax(axis=-1))
    for chunk in (4096, 30, 7, 1):
        monkeypatch.setattr("src.training.scoring.CHUNK", chunk)
        found = score(MODEL.layers, epoch.parameters, data, SoftmaxCrossEntropy())
        np.testing.assert_allclose((found.loss, found.accuracy), (loss, accuracy), rtol=1e-12)


def test_the_schedule_sets_the_rate_of_every_update() -> None:
    """One epoch at a falling rate equals as many trainings of one update each."""
    data = blobs(32, 1)
    schedule = InverseScaling(power=1.0, rate=3.0, warmup=0.5)
    parameters = Random(XavierNormal(), Zeros()).initialize(
        MODEL.layers, stream(0, "weights"), np.float64
    )
    rates = [0.5 * factor for epoch in (1, 2) for factor in schedule.factors(epoch, 4, 2)]
    for k, rate in enumerate(rates):
        rows = slice(8 * (k % 4), 8 * (k % 4) + 8)
        (epoch,) = follow(
            MODEL.layers,
            parameters,
            {"train": Arrays(data.x[rows], data.labels[rows])},
            loss=SoftmaxCrossEntropy(),
            batching=Full(),
            optimizer=SGD(),
            lr=rate,
            epochs=1,
            seed=0,
        )
        parameters = epoch.parameters
    scheduled = run(Mini(8, shuffle=False), sets={"train": data}, epochs=2, schedule=schedule)
    assert scheduled[-1].lr == rates[-1]
    for layer, expected in zip(scheduled[-1].parameters, parameters, strict=True):
        for p, by_hand in zip(layer, expected, strict=True):
            np.testing.assert_allclose(p, by_hand, rtol=1e-12)


def test_a_plateau_lowers_the_rate_of_the_epochs_after_it() -> None:
    schedule = Plateau(metric="val/loss", factor=0.1, patience=0)
    history = run(Mini(8), epochs=30, lr=2.0, schedule=schedule)
    losses = [epoch.scores["val"].loss for epoch in history]
    falls = sum(loss >= min(losses[: k + 1]) for k, loss in enumerate(losses[1:-1]))
    assert falls > 0
    np.testing.assert_allclose(history[-1].lr, 2.0 * 0.1**falls, rtol=1e-9)


def test_dropout_is_drawn_anew_for_each_batch_by_the_seed_and_never_when_a_set_is_scored() -> None:
    network = MLP(6, (50,), 3, Sigmoid(), dropout=0.5).layers
    parameters = Random(XavierNormal(), Zeros()).initialize(
        network, stream(0, "weights"), np.float64
    )
    sets = {"train": blobs(50, 1), "val": blobs(30, 2)}

    def trained(seed: int, **changes: Any) -> list[Epoch]:
        settings: dict[str, Any] = {
            "loss": SoftmaxCrossEntropy(),
            "optimizer": SGD(),
            "lr": 1e-12,
            "epochs": 2,
            **changes,
        }
        return list(
            follow(
                network, parameters, sets, batching=Mini(10, shuffle=False), seed=seed, **settings
            )
        )

    first, again, other = trained(0), trained(0), trained(1)
    assert [epoch.scores for epoch in first] == [epoch.scores for epoch in again]
    assert (
        first[0].scores["train"] != other[0].scores["train"]
    )  # what is passed forward has other holes
    assert first[0].scores["train"] != first[1].scores["train"]
    np.testing.assert_allclose(first[0].scores["val"].loss, other[0].scores["val"].loss, rtol=1e-9)
    assert trained(0, lr=0.5, epochs=60)[-1].scores["val"].accuracy > 0.9


def test_dropping_the_last_batch_drops_other_samples_each_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []

    def watched_epoch(self: Any, orders: Any, *arguments: Any) -> Any:
        seen.extend(orders)
        return kept(self, orders, *arguments)

    kept = Batches.epoch
    monkeypatch.setattr(Batches, "epoch", watched_epoch)
    run(Mini(8, drop_last=True), epochs=6)
    assert [len(order) for order in seen] == [48] * 6
    assert len({tuple(sorted(order)) for order in seen}) > 1
    assert {int(row) for order in seen for row in order} == set(range(50))


def test_counters_run_from_the_start() -> None:
    history = run(Mini(8, drop_last=True))
    assert [epoch.number for epoch in history] == [1, 2, 3, 4]
    assert [epoch.updates for epoch in history] == [6, 12, 18, 24]
    assert [epoch.samples for epoch in history] == [48, 96, 144, 192]
    seconds = [epoch.seconds for epoch in history]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0


def bytes_of(epoch: Epoch) -> list[bytes]:
    return [array.tobytes() for layer in epoch.parameters for array in layer]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_seeds_give_equal_bytes_and_others_do_not(dtype: npt.DTypeLike) -> None:
    first, again, other = (run(Mini(8), dtype=dtype, seed=seed)[-1] for seed in (0, 0, 1))
    assert bytes_of(first) == bytes_of(again)
    assert first.scores == again.scores
    assert bytes_of(first) != bytes_of(other)
    assert all(array.dtype == dtype for layer in first.parameters for array in layer)


def test_a_longer_training_begins_as_the_shorter_one() -> None:
    assert bytes_of(run(Mini(8), epochs=6)[3]) == bytes_of(run(Mini(8), epochs=4)[3])


def test_records_keep_their_parameters_while_training_goes_on() -> None:
    history = run(Mini(8))
    kept = [
        score(MODEL.layers, epoch.parameters, blobs(30, 2), SoftmaxCrossEntropy())
        for epoch in history
    ]
    assert kept == [epoch.scores["val"] for epoch in history]


def test_learning_happens() -> None:
    assert run(Mini(8), epochs=30)[-1].scores["val"].accuracy > 0.9


@pytest.mark.parametrize("batching", [Full(), Mini(8), Sample()], ids=str)
def test_a_loss_that_is_not_finite_stops_training_at_once(batching: Batching) -> None:
    network = MLP(6, (5,), 3, Identity()).layers
    parameters = Random(XavierNormal(), Zeros()).initialize(
        network, stream(0, "weights"), np.float32
    )
    settings: dict[str, Any] = {
        "loss": SoftmaxCrossEntropy(),
        "batching": batching,
        "optimizer": SGD(),
        "epochs": 9,
    }
    seen: list[Epoch] = []
    with pytest.raises(Diverged, match=r"loss became (nan|inf) in epoch \d+, after \d+ updates"):
        seen.extend(
            follow(
                network,
                parameters,
                {"train": blobs(50, 1, np.float32)},
                lr=1e15,
                seed=0,
                **settings,
            )
        )
    assert all(np.isfinite(epoch.scores["train"].loss) for epoch in seen)
    assert len(seen) < 9


def test_weights_that_are_not_finite_stop_training_where_no_set_would_show_it() -> None:
    with pytest.raises(
        Diverged, match="the weights are no longer finite in epoch 1, after 1 updates"
    ):
        run(Full(), epochs=1, lr=1e42, dtype=np.float32, sets={"train": blobs(50, 1, np.float32)})


def test_only_computing_holds_blas_to_one_thread_and_ignores_overflow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between epochs the caller has its own settings, in whatever context it closes the loop."""

    def settings() -> tuple[list[int], Any]:
        blas = [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]
        return blas, np.geterr()

    seen: list[tuple[list[int], Any]] = []

    def watched_epoch(self: Any, *arguments: Any) -> Any:
        seen.append(settings())
        return kept(self, *arguments)

    kept = Batches.epoch
    monkeypatch.setattr(Batches, "epoch", watched_epoch)
    parameters = Random(XavierNormal(), Zeros()).initialize(
        MODEL.layers, stream(0, "weights"), np.float64
    )
    with threadpool_limits(2, "blas"), np.errstate(over="raise"):
        before = settings()
        epochs = follow(
            MODEL.layers, parameters, {"train": blobs(50, 1)}, loss=SoftmaxCrossEntropy(),
            batching=Full(), optimizer=SGD(), lr=0.1, epochs=2, seed=0,
        )  # fmt: skip
        next(epochs)
        assert settings() == before
        copy_context().run(epochs.close)  # type: ignore[attr-defined]
        assert settings() == before
    assert [set(blas) for blas, _ in seen] == [{1}]
    assert [errors["over"] for _, errors in seen] == ["ignore"]

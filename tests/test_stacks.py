"""Networks side by side against each of them alone."""

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from src.nn.initializers import Random, Uniform, XavierNormal
from src.nn.layers import GELU, Activation, Identity, LeakyReLU, ReLU, Sigmoid, Tanh
from src.nn.losses import Loss, SigmoidCrossEntropy, SoftmaxCrossEntropy, SquaredError
from src.nn.network import MLP, Parameters
from src.support.errors import Diverged
from src.support.randomness import stream
from src.training.batching import Batching, Full, Mini, Sample
from src.training.engines.base import Arrays, Engine, OrderGroup
from src.training.engines.batches import Batches
from src.training.engines.deferred_stack import DeferredStack
from src.training.engines.plain import Plain
from src.training.loop import train, train_one
from src.training.optimizers import SGD, Adam, Optimizer
from src.training.schedules import Constant, Cosine, Plateau, Schedule, Step, Times
from src.training.stopping import EarlyStopping, Never, Stopping
from src.training.training_run import Epoch, Progress, TrainingRun
from tests.test_engines import images
from tests.test_training import blobs

pytestmark = pytest.mark.slow  # test_equivalence draws stacks, too

GROUPS = [[1], [4], [1, 1, 1], [3, 1, 2]]


@dataclass(frozen=True, kw_only=True)
class _Late(Schedule):
    """Hardly any of the rate before the third epoch: what diverges does so late."""

    def decay(self, t: Times, length: float, watched: Sequence[float]) -> Times:
        return np.where(t < 2, 1e-202, 1.0)


def side_by_side(
    kind: type[Engine],
    groups: list[int],
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
    dropout: float = 0.0,
    last_bias: tuple[float, ...] | None = None,  # of the second network
) -> None:
    """Train a stack whose networks differ, and each network again by the plain engine."""
    k = sum(groups)
    network = MLP(12, hidden, 3, activation or ReLU(), dropout).layers
    drawn = Random(XavierNormal(), Uniform(-0.5, 0.5))
    starts = [drawn.initialize(network, stream(seed, "weights"), dtype) for seed in range(k)]
    if last_bias and k > 1:
        (W, _) = starts[1][-1]
        starts[1] = (*starts[1][:-1], (W, np.array([last_bias], dtype)))
    data = [
        Arrays(np.roll(images(n, np.uint8), q, axis=0), np.arange(n) % 3, 1 / 255, dtype)
        for q in range(len(groups))
    ]
    settings: dict[str, Any] = {"loss": loss or SoftmaxCrossEntropy()}
    rules = [optimizers[j % len(optimizers)] for j in range(k)]
    places = [OrderGroup(own, members) for own, members in zip(data, groups, strict=True)]
    states = [rule.start(p) for rule, p in zip(rules, starts, strict=True)]
    settings["batch_size"] = size
    stack = kind(network, starts, states, places, optimizers=rules, **settings)
    kept = [p.copy() for start in starts for layer in start for p in layer]
    of_each = [q for q, members in enumerate(groups) for _ in range(members)]
    alone = [
        Plain(
            network,
            [starts[j]],
            [states[j]],
            [OrderGroup(data[of_each[j]], 1)],
            optimizers=[rules[j]],
            **settings,
        )
        for j in range(k)
    ]
    updates = -(-n // size)
    for epoch in range(1, epochs + 1):
        orders: list[Any] = [stream(q, "order", epoch).permutation(n) for q in range(len(groups))]
        if epoch == 2 and not last_bias:
            orders = [slice(0, n)] * len(groups)
        rates = np.random.default_rng(epoch).uniform(0.01, 0.1, (updates, k))
        logits = stack.epoch(orders, rates, [stream(j, "dropout", epoch) for j in range(k)])
        for j, engine in enumerate(alone):
            own = rates[:, j : j + 1], [stream(j, "dropout", epoch)]
            (expected,) = engine.epoch([orders[of_each[j]]], *own)
            np.testing.assert_allclose(logits[j], expected, rtol=within, atol=within)
            for layer, other in zip(stack.parameters[j], engine.parameters[0], strict=True):
                for p, q in zip(layer, other, strict=True):
                    assert p.dtype == q.dtype == dtype
                    np.testing.assert_allclose(p, q, rtol=within, atol=within)
            assert stack.states[j].updates == engine.states[0].updates == updates * epoch
            for memories, others in zip(
                stack.states[j].buffers, engine.states[0].buffers, strict=True
            ):
                for of, same in zip(memories, others, strict=True):
                    for m, q in zip(of, same, strict=True):
                        np.testing.assert_allclose(m, q, rtol=within, atol=within)
    for p, before in zip(
        (p for start in starts for layer in start for p in layer), kept, strict=True
    ):
        np.testing.assert_array_equal(p, before)


@pytest.mark.parametrize("groups", GROUPS, ids=str)
@pytest.mark.parametrize(
    "activation", [ReLU(), LeakyReLU(0.1), Sigmoid(), Tanh(), GELU(), Identity()], ids=str
)
def test_single_samples(groups: list[int], activation: Activation) -> None:
    side_by_side(DeferredStack, groups, activation=activation)


@pytest.mark.parametrize("groups", GROUPS, ids=str)
@pytest.mark.parametrize(
    "loss", [SoftmaxCrossEntropy(0.1), SigmoidCrossEntropy(), SquaredError(Sigmoid())], ids=str
)
@pytest.mark.parametrize("hidden", [(), (4,), (4, 5, 6)])
def test_single_samples_by_any_loss_at_any_depth(
    groups: list[int], loss: Loss, hidden: tuple[int, ...]
) -> None:
    side_by_side(DeferredStack, groups, loss=loss, hidden=hidden)


def test_single_samples_in_single_precision() -> None:
    side_by_side(DeferredStack, [3, 1, 2], dtype=np.float32, within=2e-4)


@pytest.mark.parametrize("groups", GROUPS, ids=str)
@pytest.mark.parametrize("hidden", [(), (6, 5)])
def test_single_samples_with_penalties_of_their_own(
    groups: list[int], hidden: tuple[int, ...]
) -> None:
    rules = [
        SGD(weight_decay=decay) for decay in (0, 0.01, 10.0, 20.0)
    ]  # at rates up to 0.1, so that some updates leave nothing of the weights, or less
    side_by_side(DeferredStack, groups, hidden=hidden, optimizers=rules)


@pytest.mark.parametrize("groups", GROUPS, ids=str)
@pytest.mark.parametrize("hidden", [(), (6, 5)])
@pytest.mark.parametrize(
    "logits", [(900, 901, 899), (-900, -902, -901), (0, 900, -900), (-90, -85, -80)], ids=str
)
def test_single_samples_with_logits_far_from_0(
    groups: list[int], hidden: tuple[int, ...], logits: tuple[float, ...]
) -> None:
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        side_by_side(DeferredStack, groups, hidden=hidden, last_bias=logits, n=40, epochs=1)


@pytest.mark.parametrize("n", [1, 31, 32, 33, 63, 64, 65])
def test_blocks_that_are_not_full(n: int) -> None:
    side_by_side(DeferredStack, [4], n=n)
    side_by_side(DeferredStack, [1, 2], n=n)


@pytest.mark.parametrize("kind", [Plain, Batches])
@pytest.mark.parametrize("groups", GROUPS, ids=str)
@pytest.mark.parametrize("size", [1, 8, 7, 150])
@pytest.mark.parametrize(
    "activation", [ReLU(), LeakyReLU(0.1), Sigmoid(), Tanh(), GELU(), Identity()], ids=str
)
def test_batches(kind: type[Engine], groups: list[int], size: int, activation: Activation) -> None:
    side_by_side(kind, groups, size=size, activation=activation)


@pytest.mark.parametrize("kind", [Plain, Batches])
@pytest.mark.parametrize("groups", GROUPS, ids=str)
@pytest.mark.parametrize(
    "loss", [SoftmaxCrossEntropy(0.1), SigmoidCrossEntropy(), SquaredError(Sigmoid())], ids=str
)
@pytest.mark.parametrize("hidden", [(), (4,), (4, 5, 6)])
def test_batches_by_any_loss_at_any_depth(
    kind: type[Engine], groups: list[int], loss: Loss, hidden: tuple[int, ...]
) -> None:
    side_by_side(kind, groups, size=7, loss=loss, hidden=hidden)


@pytest.mark.parametrize("kind", [Plain, Batches])
@pytest.mark.parametrize("groups", GROUPS, ids=str)
@pytest.mark.parametrize("size", [7, 150])
def test_networks_with_penalties_of_their_own(
    kind: type[Engine], groups: list[int], size: int
) -> None:
    side_by_side(
        kind, groups, size=size, optimizers=[SGD(weight_decay=decay) for decay in (0, 0.01, 0.3)]
    )


@pytest.mark.parametrize("groups", [[1], [3, 1]], ids=str)
@pytest.mark.parametrize(
    "optimizer",
    [SGD(momentum=0.9), SGD(momentum=0.9, nesterov=True), SGD(clip_norm=0.1), Adam(clip_norm=0.2)],
    ids=str,
)
@pytest.mark.parametrize("kind", [Plain, Batches])
@pytest.mark.parametrize(("size", "n"), [(1, 15), (7, 40), (60, 60)])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_any_optimizer_with_and_without_dropout(
    kind: type[Engine],
    groups: list[int],
    optimizer: Optimizer,
    size: int,
    n: int,
    dropout: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("src.training.engines.batches.CHUNK", 25)
    rules = [replace(optimizer, weight_decay=decay) for decay in (0.01, 0.0)]
    side_by_side(kind, groups, size=size, optimizers=rules, dropout=dropout, n=n)


@pytest.mark.parametrize("groups", GROUPS, ids=str)
@pytest.mark.parametrize("size", [25, 50, 150])
@pytest.mark.parametrize(
    "loss", [SoftmaxCrossEntropy(0.1), SigmoidCrossEntropy(), SquaredError(Sigmoid())], ids=str
)
def test_large_batches_go_through_in_chunks(
    groups: list[int], size: int, loss: Loss, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("src.training.engines.batches.CHUNK", 10 if size != 25 else 25)
    side_by_side(Batches, groups, size=size, loss=loss)


@pytest.mark.parametrize("groups", GROUPS, ids=str)
@pytest.mark.parametrize("size", [25, 150])
def test_batches_with_much_arithmetic_are_divided(
    groups: list[int], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("src.training.engines.batches.CHUNK_FLOPS", 10_000)
    monkeypatch.setattr("src.training.engines.batches.CHUNK_ROWS", 3)
    side_by_side(Batches, groups, size=size)


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_any_number_of_cores_gives_a_stack_equal_bytes(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("src.training.engines.batches.CHUNK", 10)
    monkeypatch.setattr("src.training.engines.batches.SHARED", 1)

    def trained(cores: int) -> list[bytes]:
        monkeypatch.setattr("src.training.engines.batches.available_cores", lambda: cores)
        network = MLP(12, (6,), 3, Sigmoid()).layers
        drawn = Random(XavierNormal(), Uniform(-0.5, 0.5))
        starts = [
            drawn.initialize(network, stream(seed, "weights"), np.float32) for seed in range(4)
        ]
        data = Arrays(images(157, np.uint8), np.arange(157) % 3, 1 / 255, np.float32)
        settings: dict[str, Any] = {
            "loss": SoftmaxCrossEntropy(),
            "optimizers": [SGD()] * 4,
            "batch_size": 157,
        }
        states = [SGD().start(start) for start in starts]
        stack = Batches(
            network, starts, states, [OrderGroup(data, 3), OrderGroup(data, 1)], **settings
        )
        for _ in range(3):
            stack.epoch([slice(0, 157)] * 2, np.full((1, 4), 0.5), [stream(0, "dropout")] * 4)
        return [
            p.tobytes() for parameters in stack.parameters for layer in parameters for p in layer
        ]

    assert trained(workers) == trained(4)


@pytest.mark.parametrize("size", [7, 40])
@pytest.mark.parametrize(
    "logits", [(900, 901, 899), (-900, -902, -901), (0, 900, -900), (-90, -85, -80)], ids=str
)
def test_batches_with_logits_far_from_0(
    size: int, logits: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("src.training.engines.batches.CHUNK", 10)
    monkeypatch.setattr("src.training.engines.batches.available_cores", lambda: 2)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        side_by_side(Batches, [3, 1], last_bias=logits, n=40, epochs=1, size=size)


def runs(k: int, *, batching: Batching, **changes: Sequence[Any]) -> list[TrainingRun]:
    """Return runs that differ in what is given as a sequence."""
    network = MLP(6, (5,), 3, Sigmoid()).layers
    sets = {"train": blobs(50, 1), "val": blobs(30, 2)}
    settings: dict[str, Any] = {
        "loss": SoftmaxCrossEntropy(),
        "optimizer": SGD(),
        "lr": 0.5,
        "epochs": 6,
        "seed": 0,
    }
    each = [{name: values[j % len(values)] for name, values in changes.items()} for j in range(k)]
    return [
        TrainingRun(**{"network": network, "sets": sets, "batching": batching, **settings, **own})
        for own in each
    ]


def starts(members: Sequence[TrainingRun]) -> list[Parameters]:
    drawn = Random(XavierNormal(), Uniform(-0.5, 0.5))
    return [
        drawn.initialize(run.network, stream(j, "weights"), np.float64)
        for j, run in enumerate(members)
    ]


def together(members: Sequence[TrainingRun]) -> list[list[Epoch | Diverged]]:
    """Return what each member's epochs were, a divergence at their end if there was one."""
    found: list[list[Epoch | Diverged]] = [[] for _ in members]
    for records in train(members, starts(members)):
        for mine, record in zip(found, records, strict=True):
            if record is not None:
                mine.append(record)
    return found


def alone(member: TrainingRun, parameters: Parameters) -> list[Epoch | Diverged]:
    found: list[Epoch | Diverged] = []
    try:
        for epoch in train_one(member, parameters, engine="plain"):
            found.append(epoch)
    except Diverged as error:
        found.append(error)
    return found


def assert_each_as_alone(make: Callable[[], list[TrainingRun]]) -> list[list[Epoch | Diverged]]:
    stacked = together(make())
    for mine, member, parameters in zip(stacked, make(), starts(make()), strict=True):
        expected = alone(member, parameters)
        assert [type(record) for record in mine] == [type(record) for record in expected]
        for record, other in zip(mine, expected, strict=True):
            if isinstance(record, Diverged) or isinstance(other, Diverged):
                assert str(record) == str(other)
                continue
            assert (record.number, record.updates, record.samples) == (
                other.number,
                other.updates,
                other.samples,
            )
            assert (record.lr, record.kept, record.stopped) == (other.lr, other.kept, other.stopped)
            for part, score in record.scores.items():
                np.testing.assert_allclose(score.loss, other.scores[part].loss, rtol=1e-9)
                assert score.accuracy == other.scores[part].accuracy
            for layer, same in zip(record.parameters, other.parameters, strict=True):
                for p, q in zip(layer, same, strict=True):
                    np.testing.assert_allclose(p, q, rtol=1e-9, atol=1e-11)
    return stacked


@pytest.mark.parametrize(
    "batching",
    [Full(), Mini(8), Mini(7, drop_last=True), Mini(8, shuffle=False), Sample()],
    ids=str,
)
def test_networks_that_differ_in_all_that_they_may_are_each_trained_as_alone(
    batching: Batching,
) -> None:
    mine = {"train": blobs(50, 5), "val": blobs(30, 6)}
    theirs = {"train": blobs(50, 1), "val": blobs(30, 2)}
    assert_each_as_alone(
        lambda: runs(
            7, batching=batching, lr=[0.1, 0.5, 1.0], seed=[0, 1], sets=[mine, theirs, theirs],
            schedule=[Constant(), Cosine(), Step(every=2, factor=0.5)],
        )
    )  # fmt: skip


def test_penalties_of_their_own() -> None:
    rules = [SGD(weight_decay=decay) for decay in (0, 0.01, 0.1)]
    for batching in (Full(), Mini(8), Sample()):
        assert_each_as_alone(partial(runs, 3, batching=batching, optimizer=rules))
    momentum = [SGD(momentum=0.9, weight_decay=decay) for decay in (0, 0.1)]
    assert_each_as_alone(lambda: runs(4, batching=Mini(8), optimizer=momentum, lr=[0.05]))


@pytest.mark.parametrize("batching", [Full(), Mini(8), Sample()], ids=str)
@pytest.mark.parametrize("optimizer", [SGD(), SGD(momentum=0.5), Adam(epsilon=1e-3)], ids=str)
def test_one_that_diverges_leaves_the_others_alone(
    batching: Batching, optimizer: Optimizer
) -> None:
    """The others keep what their optimizers had gathered, and their place in time."""
    network = MLP(6, (5,), 3, Identity()).layers
    found = assert_each_as_alone(
        lambda: runs(
            5,
            batching=batching,
            network=[network],
            optimizer=[optimizer],
            lr=[0.01, 1e200, 0.02, 1e200, 0.03],
            schedule=[Constant(), _Late(), Constant(), _Late(), Constant()],
            seed=[0, 0, 1],
        )
    )
    assert [isinstance(mine[-1], Diverged) for mine in found] == [False, True, False, True, False]
    assert [len(mine) for mine in found] == [6, 3, 6, 3, 6]


def test_sets_of_equal_arrays_and_different_scale_are_different_sets() -> None:
    one = blobs(50, 1)
    half = replace(one, scale=0.5)
    assert_each_as_alone(
        lambda: runs(3, batching=Mini(8), sets=[{"train": one}, {"train": half}], exact=[True])
    )


def test_exact_training_scores_are_those_of_each_network() -> None:
    found = assert_each_as_alone(
        lambda: runs(4, batching=Mini(8), exact=[True], lr=[0.1, 0.5], seed=[0, 0, 1])
    )
    last = [mine[-1].scores["train"].loss for mine in found if isinstance(mine[-1], Epoch)]
    assert len(set(last)) == 4


def test_dropout_masks_do_not_depend_on_the_company() -> None:
    network = MLP(6, (20,), 3, Sigmoid(), dropout=0.4).layers
    for batching in (Full(), Mini(8), Sample()):
        assert_each_as_alone(
            partial(runs, 3, batching=batching, network=[network], seed=[0, 1], epochs=[3])
        )


def test_the_time_of_a_stack_is_divided_among_its_members(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = iter(range(1000))
    monkeypatch.setattr("src.training.loop.time.perf_counter", lambda: float(next(ticks)))
    found = together(runs(4, batching=Mini(8), epochs=[2]))
    first = [mine[0].seconds for mine in found if isinstance(mine[0], Epoch)]
    second = [mine[1].seconds for mine in found if isinstance(mine[1], Epoch)]
    assert first == [0.5] * 4  # a second each to prepare the stack, and to train
    assert second == [0.75] * 4  # one second more: the stack is there already


@pytest.mark.parametrize("kind", ["fast", "plain"])
@pytest.mark.parametrize(
    "changes",
    [
        {"batching": Full()},
        {"batching": Mini(8), "dropout": 0.3},
        {"batching": Mini(8), "optimizer": Adam()},
        {"batching": Mini(50), "optimizer": SGD(momentum=0.9, nesterov=True, clip_norm=0.5)},
        {"batching": Sample()},
        {"batching": Sample(), "optimizer": SGD(momentum=0.5)},
    ],
    ids=str,
)
@pytest.mark.parametrize("k", [1, 3])
def test_a_training_run_goes_on_from_its_progress_byte_for_byte(
    kind: Any, changes: dict[str, Any], k: int
) -> None:
    changes = dict(changes)
    network = MLP(6, (5,), 3, Sigmoid(), changes.pop("dropout", 0.0)).layers
    settings: dict[str, Any] = {"network": network, "lr": 0.3, "epochs": 6, **changes}
    settings["schedule"] = Plateau(metric="val/loss", factor=0.5, patience=0)
    settings["stopping"] = EarlyStopping("val/loss", patience=4)
    batching = settings.pop("batching")
    members = runs(k, batching=batching, seed=[0, 1], **{n: [v] for n, v in settings.items()})

    def trained(begun: Sequence[Any]) -> list[list[Epoch]]:
        records = list(train(members, begun, engine=kind))
        found: Any = [[row[j] for row in records if row[j]] for j in range(k)]
        return list(found)

    whole = trained(starts(members))
    stopped_at = [pickle.loads(pickle.dumps(mine[2].progress)) for mine in whole]
    rest = trained(stopped_at)
    for mine, after in zip(whole, rest, strict=True):
        assert [epoch.number for epoch in after] == [epoch.number for epoch in mine[3:]] != []
        for epoch, again in zip(mine[3:], after, strict=True):
            assert again.scores == epoch.scores
            assert (again.lr, again.kept, again.stopped) == (epoch.lr, epoch.kept, epoch.stopped)
            assert (again.updates, again.samples) == (epoch.updates, epoch.samples)
            assert again.seconds > mine[2].seconds
            assert leaves(again.progress) == leaves(epoch.progress)
    assert not list(train(members, [mine[-1].progress for mine in whole], engine=kind))  # type: ignore[misc]


def leaves(progress: Progress | None) -> list[bytes]:
    """Return the bytes of everything that training goes on from."""
    assert progress
    kept: list[Any] = [progress.parameters, progress.state.buffers, progress.kept]
    found = []
    while kept:
        item = kept.pop()
        if isinstance(item, tuple):
            kept += item
        else:
            found.append(item.tobytes())
    return found


def test_one_that_stops_early_leaves_the_others_alone() -> None:
    rules: list[Stopping] = [
        EarlyStopping("val/loss", patience=1),
        Never(),
        EarlyStopping("val/loss", patience=2),
    ]
    found = assert_each_as_alone(
        lambda: runs(
            6, batching=Mini(8), stopping=rules, lr=[2.0, 0.5], epochs=[30], seed=[0, 1, 2]
        )
    )
    lengths = [len(mine) for mine in found]
    assert lengths[1] == lengths[4] == 30
    assert min(lengths) < 30

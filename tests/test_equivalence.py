"""Every engine against the plain one and against the oracle, on settings drawn by Hypothesis."""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, event, example, given, settings
from hypothesis import strategies as st

from src.nn.layers import GELU, Activation, Identity, LeakyReLU, ReLU, Sigmoid, Tanh
from src.nn.losses import Loss, SigmoidCrossEntropy, SoftmaxCrossEntropy, SquaredError
from src.nn.network import MLP, Network, Parameters
from src.support.errors import Diverged
from src.support.randomness import stream
from src.training.batching import Batching, Full, Mini, Rows, Sample
from src.training.engines import batches as batches_engine
from src.training.engines import deferred, deferred_stack, memory
from src.training.engines.base import Arrays, Engine, OrderGroup
from src.training.engines.batches import Batches
from src.training.engines.choice import choose
from src.training.engines.deferred import Deferred
from src.training.engines.deferred_stack import DeferredStack
from src.training.loop import train
from src.training.optimizers import SGD, Adam, Optimizer
from src.training.schedules import Constant, Cosine, InverseScaling, Schedule, Step, Times
from src.training.stopping import EarlyStopping, Never, Stopping
from src.training.training_run import Epoch, TrainingRun
from tests import oracle

INPUTS, CLASSES = 5, 3
# Small, so that few samples fill several chunks and blocks.
CHUNK, BLOCK = 4, 6

ACTIVATIONS: dict[str, Activation] = {
    "relu": ReLU(),
    "leaky relu 0.3": LeakyReLU(0.3),
    "gelu": GELU(),
    "sigmoid": Sigmoid(),
    "tanh": Tanh(),
    "identity": Identity(),
}
# Each loss with what the oracle calls it.
LOSSES: dict[str, tuple[Loss, dict[str, Any]]] = {
    "softmax": (SoftmaxCrossEntropy(), {"loss": "softmax"}),
    "smoothed": (SoftmaxCrossEntropy(0.2), {"loss": "softmax", "smoothing": 0.2}),
    "sigmoid": (SigmoidCrossEntropy(), {"loss": "sigmoid"}),
    "least squares": (SquaredError(Identity()), {"loss": "squared"}),
    "squared tanh": (SquaredError(Tanh()), {"loss": "squared", "output": "tanh"}),
}
# The large epsilon of Adam is deliberate. With the usual one, the rounding error of a gradient that
# is 0 becomes a whole step.
ADAM: dict[str, Any] = {"beta1": 0.7, "beta2": 0.95, "epsilon": 1e-2}
OPTIMIZERS: dict[str, tuple[type[Optimizer], dict[str, Any]]] = {
    "sgd": (SGD, {}),
    "momentum": (SGD, {"momentum": 0.8}),
    "nesterov": (SGD, {"momentum": 0.8, "nesterov": True}),
    "adam": (Adam, ADAM),
}
PIXELS = ["scaled bytes", "bytes", "scaled floats", "floats", "floats of the other precision"]


def rules_of(
    activation: str, loss: str, optimizer: str, decay: float, clip_norm: float | None
) -> oracle.Rules:
    """Return the oracle's name for everything that decides a training."""
    return oracle.Rules(
        activation=activation,
        **LOSSES[loss][1],
        optimizer=optimizer,
        momentum=0.8,
        **ADAM,
        weight_decay=decay,
        clip_norm=clip_norm,
    )


def in_double(start: Parameters) -> oracle.Layers:
    """Return parameters in the oracle's form."""
    return [(layer[0].astype(float), layer[1][0].astype(float)) for layer in start if layer]


def drawn_masks(
    rng: np.random.Generator, pieces: Sequence[Sequence[int]], hidden: Sequence[int], rate: float
) -> list[list[oracle.Float]] | None:
    """Draw masks in the order of training: batch by batch, in each from the first layer on."""
    if not rate:
        return None
    return [[oracle.mask(rng, len(rows), units, rate) for units in hidden] for rows in pieces]


# ─── The engines ───


@dataclass(frozen=True)
class Case:
    """Settings of a stack: one network for each weight decay."""

    groups: tuple[int, ...] = (1,)  # how many networks follow each order
    hidden: tuple[int, ...] = (4,)
    activation: str = "relu"
    loss: str = "softmax"
    optimizer: str = "sgd"
    decays: tuple[float, ...] = (0.0,)
    clip_norm: float | None = None
    dropout: float = 0.0
    samples: int = 20
    batch_size: int = 4
    shuffle: bool = True
    drop_last: bool = False
    pixels: str = "scaled bytes"
    same_data: bool = True  # whether all order groups train on one set
    at_corner: bool = False  # whether the first sample and all first biases are 0
    dtype: str = "float64"
    epochs: int = 2
    seed: int = 0

    @property
    def network(self) -> Network:
        activation = ACTIVATIONS[self.activation]
        return MLP(INPUTS, self.hidden, CLASSES, activation, self.dropout).layers

    @property
    def group_of(self) -> list[int]:
        """Return the order group of each network."""
        return [g for g, members in enumerate(self.groups) for _ in range(members)]

    def optimizers(self) -> list[Optimizer]:
        kind, own = OPTIMIZERS[self.optimizer]
        return [kind(weight_decay=decay, clip_norm=self.clip_norm, **own) for decay in self.decays]

    def starts(self) -> list[Parameters]:
        rng = np.random.default_rng(self.seed)

        def draw(shape: tuple[int, int]) -> npt.NDArray[Any]:
            is_bias = shape[0] == 1
            spread = 0.0 if is_bias and self.at_corner else 0.6
            return rng.normal(0, spread, shape).astype(self.dtype)

        return [
            tuple(tuple(draw(shape) for shape in layer.parameter_shapes) for layer in self.network)
            for _ in self.decays
        ]

    def data(self) -> list[Arrays]:
        """Return the set of each order group."""
        rng = np.random.default_rng([self.seed, 1])
        sets = [self._arrays(rng) for _ in self.groups]
        return sets[:1] * len(sets) if self.same_data else sets

    def _arrays(self, rng: np.random.Generator) -> Arrays:
        shape = (self.samples, INPUTS)
        labels = rng.integers(0, CLASSES, self.samples)
        other = "float64" if self.dtype == "float32" else "float32"
        x, scale = {
            "scaled bytes": (rng.integers(0, 256, shape, dtype=np.uint8), 1 / 255),
            "bytes": (rng.integers(0, 3, shape, dtype=np.uint8), 1.0),
            "scaled floats": (rng.normal(0, 0.5, shape).astype(self.dtype), 2.0),
            "floats": (rng.normal(size=shape).astype(self.dtype), 1.0),
            "floats of the other precision": (rng.normal(size=shape).astype(other), 1.0),
        }[self.pixels]
        if self.at_corner:
            x[0] = 0
        return Arrays(x, labels, scale, self.dtype)

    def orders(self, epoch: int) -> list[Rows]:
        """Return the order of each group in an epoch."""
        n, size = self.samples, self.batch_size
        end = n - n % size if self.drop_last and size <= n else n
        if not self.shuffle:
            return [slice(0, end)] * len(self.groups)
        rng = np.random.default_rng([self.seed, 2, epoch])
        return [rng.permutation(n)[:end] for _ in self.groups]

    def pieces(self, epoch: int, group: int) -> list[list[int]]:
        """Return the row numbers of each batch."""
        order = np.arange(self.samples)[self.orders(epoch)[group]].tolist()
        return [order[k : k + self.batch_size] for k in range(0, len(order), self.batch_size)]

    def rates(self, epoch: int) -> npt.NDArray[np.float64]:
        """Return the learning rate of each update and network."""
        rng = np.random.default_rng([self.seed, 3, epoch])
        return rng.uniform(0.01, 0.1, (len(self.pieces(epoch, 0)), len(self.decays)))

    def masks(self, epoch: int) -> list[np.random.Generator]:
        """Return the generator of each network's dropout masks."""
        return [np.random.default_rng([self.seed, 4, epoch, j]) for j in range(len(self.decays))]


@dataclass(frozen=True)
class Outcome:
    """What came of one network's training."""

    logits: list[npt.NDArray[Any]]  # of each epoch, in the order of training
    arrays: list[npt.NDArray[Any]]  # W and b of each dense layer
    buffers: list[npt.NDArray[Any]]  # of each of these arrays
    updates: int


def by_oracle(case: Case) -> list[Outcome]:
    """Train each network on its own in the oracle."""
    data, found = case.data(), []
    for j, (start, group) in enumerate(zip(case.starts(), case.group_of, strict=True)):
        x = data[group].x.astype(np.float64) * data[group].scale
        settings = (case.activation, case.loss, case.optimizer, case.decays[j], case.clip_norm)
        trained = oracle.Trained(in_double(start))
        logits = []
        for epoch in range(1, case.epochs + 1):
            pieces, rates = case.pieces(epoch, group), case.rates(epoch)[:, j].tolist()
            masks = drawn_masks(case.masks(epoch)[j], pieces, case.hidden, case.dropout)
            with np.errstate(all="ignore"):
                z = trained.epoch(rules_of(*settings), x, data[group].labels, pieces, rates, masks)
            logits.append(z)
        # Cases that explode, or that a rounding error might take across a corner, are left out.
        assume(max(abs(z).max() for z in logits) < 1e3)
        assume(case.dtype == "float64" or trained.nearest_corner > 1e-4)
        arrays = [np.atleast_2d(p) for layer in trained.layers for p in layer]
        buffers = [np.atleast_2d(m) for layer in trained.buffers for of in layer for m in of]
        found.append(Outcome(logits, arrays, buffers, trained.updates))
    return found


def by_engine(case: Case, kind: type[Engine]) -> list[Outcome]:
    """Train the networks together by an engine of the project."""
    network, starts, optimizers = case.network, case.starts(), case.optimizers()
    groups = [OrderGroup(*pair) for pair in zip(case.data(), case.groups, strict=True)]
    engine = kind(
        network,
        starts,
        [optimizer.start(p) for optimizer, p in zip(optimizers, starts, strict=True)],
        groups,
        loss=LOSSES[case.loss][0],
        optimizers=optimizers,
        batch_size=case.batch_size,
    )
    logits: list[list[npt.NDArray[Any]]] = [[] for _ in starts]
    for epoch in range(1, case.epochs + 1):
        found = engine.epoch(case.orders(epoch), case.rates(epoch), case.masks(epoch))
        for own, z in zip(logits, found, strict=True):
            own.append(z)
    return [
        Outcome(
            own,
            [p for layer in parameters for p in layer],
            [m for layer in state.buffers for of in layer for m in of],
            state.updates,
        )
        for own, parameters, state in zip(logits, engine.parameters, engine.states, strict=True)
    ]


def engine_of(case: Case, name: Literal["fast", "plain"]) -> type[Engine]:
    """Return the engine that the loop would choose."""
    return choose(name, case.network, case.optimizers(), case.batch_size)


def assert_equal(found: Sequence[Outcome], expected: Sequence[Outcome], dtype: str) -> None:
    # float32 rounds to 6e-8. Over the hundred updates of a case that grows to 5e-6 at most.
    within = 1e-9 if dtype == "float64" else 1e-4
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.updates == theirs.updates
        for name in ("logits", "arrays", "buffers"):
            for a, b in zip(getattr(ours, name), getattr(theirs, name), strict=True):
                assert a.shape == b.shape
                np.testing.assert_allclose(a, b, rtol=within, atol=within, err_msg=name)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    groups = draw(st.sampled_from([(1,), (1,), (3,), (1, 1), (2, 1)]))
    n = draw(st.integers(1, 45))
    sizes = {1, 2, n - 1, n, n + 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 1, 9 * CHUNK + 2}
    decay = st.sampled_from([0.0, 0.0, 0.02, 0.5])
    case = Case(
        groups=groups,
        hidden=draw(st.sampled_from([(), (4,), (3, 5), (2, 3, 4)])),
        activation=draw(st.sampled_from(sorted(ACTIVATIONS))),
        loss=draw(st.sampled_from(sorted(LOSSES))),
        optimizer=draw(st.sampled_from(["sgd", "sgd", "momentum", "nesterov", "adam"])),
        decays=tuple(draw(decay) for _ in range(sum(groups))),
        clip_norm=draw(st.sampled_from([None, None, 0.05, 0.5])),
        dropout=draw(st.sampled_from([0.0, 0.0, 0.0, 0.4])),
        samples=n,
        batch_size=draw(st.sampled_from(sorted(sizes - {0}))),
        shuffle=draw(st.booleans()),
        drop_last=draw(st.booleans()),
        pixels=draw(st.sampled_from(PIXELS)),
        same_data=draw(st.booleans()),
        at_corner=draw(st.booleans()),
        dtype=draw(st.sampled_from(["float64", "float64", "float32"])),
        epochs=draw(st.integers(1, 2)),
        seed=draw(st.integers(0, 1000)),
    )
    if draw(st.booleans()):
        return case
    # Every second case is one that updates can be deferred in: by chance alone few would be.
    linear = draw(st.sampled_from(["sgd", "momentum", "nesterov"]))
    return replace(case, batch_size=1, optimizer=linear, clip_norm=None, dropout=0.0)


@contextmanager
def small_pieces() -> Iterator[None]:
    """Let few samples fill several chunks and blocks, and let two threads share the chunks."""
    with ExitStack() as patches:
        patches.enter_context(patch.object(batches_engine, "CHUNK", CHUNK))
        patches.enter_context(patch.object(batches_engine, "SHARED", 1))
        patches.enter_context(patch.object(batches_engine, "available_cores", lambda: 2))
        for module in (deferred, deferred_stack, memory):
            patches.enter_context(patch.object(module, "_BLOCK", BLOCK))
        patches.enter_context(patch.object(deferred_stack, "_NUMBERS", 20))
        yield


# Each example is a place where an engine was once wrong, or where a fault once passed all tests.
@settings(max_examples=200)
@given(cases())
@example(Case(batch_size=20, shuffle=True))
@example(Case(groups=(2, 1), decays=(0.0, 0.0, 0.0), batch_size=20, shuffle=True))
@example(Case(samples=43, batch_size=9, loss="least squares"))
@example(Case(groups=(3,), decays=(0.0, 0.1, 0.0), samples=43, batch_size=9, loss="sigmoid"))
@example(Case(pixels="scaled floats"))
@example(Case(activation="leaky relu 0.3", at_corner=True, shuffle=False))
@example(Case(activation="leaky relu 0.3", at_corner=True, shuffle=False, batch_size=1))
@example(Case(groups=(1, 1), decays=(0.02, 0.0), dropout=0.4, optimizer="adam"))
@example(Case(groups=(2, 1), decays=(0.0, 0.5, 0.02), batch_size=1, hidden=(3, 5)))
@example(Case(groups=(3,), decays=(0.0, 0.0, 0.0), batch_size=1, loss="sigmoid", hidden=(3, 5)))
@example(Case(decays=(0.5,), batch_size=1, activation="gelu", loss="smoothed", samples=15))
@example(Case(groups=(2, 1), decays=(0.0, 0.0, 0.02), clip_norm=0.05, optimizer="nesterov"))
@example(Case(batch_size=1, optimizer="momentum", decays=(0.5,), hidden=(3, 5), samples=15))
@example(Case(batch_size=1, optimizer="nesterov", loss="squared tanh", at_corner=True))
@example(
    Case(groups=(2, 1), decays=(0.0, 0.5, 0.02), batch_size=1, optimizer="nesterov", hidden=(3, 5))
)
@example(Case(groups=(3,), decays=(0.0, 0.0, 0.0), batch_size=1, optimizer="momentum", hidden=()))
def test_engines_agree_with_the_oracle_and_with_each_other(case: Case) -> None:
    expected = by_oracle(case)
    plain = by_engine(case, engine_of(case, "plain"))
    assert_equal(plain, expected, case.dtype)
    chosen = engine_of(case, "fast")
    is_linear = case.optimizer != "adam" and case.clip_norm is None
    has_dropout = case.hidden and case.dropout
    if case.batch_size == 1 and is_linear and not has_dropout:
        assert chosen is (Deferred if len(case.decays) == 1 else DeferredStack)
    else:
        assert chosen is Batches
    event(chosen.__name__)
    fast: set[type[Engine]] = {chosen, Batches}
    if Deferred in fast:
        fast.add(DeferredStack)  # which supports a single network, too
    for kind in fast:
        with small_pieces():
            found = by_engine(case, kind)
        assert_equal(found, expected, case.dtype)
        assert_equal(found, plain, case.dtype)


# ─── The loop ───


@dataclass(frozen=True, kw_only=True)
class Explosion(Schedule):
    """A rate that becomes infinite in an epoch."""

    epoch: int

    def decay(self, t: Times, length: float, watched: Sequence[float]) -> Times:
        return np.where(t >= self.epoch - 1, math.inf, 1.0)


# What happens to a network, and in which epoch.
FATES: dict[str, tuple[Schedule, Stopping, int | None]] = {
    "stays": (Constant(), Never(), None),
    "diverges at once": (Explosion(epoch=1), Never(), 1),
    "diverges": (Explosion(epoch=2), Never(), 2),
    "stops": (Constant(), EarlyStopping("val/loss", patience=1, min_delta=1e9), 2),
}
SCHEDULES: dict[str, Schedule] = {
    "constant": Constant(),
    "step": Step(every=1, factor=0.5),
    "inverse": InverseScaling(power=0.7, rate=2.0),
    "cosine": Cosine(floor=0.1),
}
EPOCHS = 3
MINI = Mini(4)


def factor(name: str, t: float) -> float:
    """Return the oracle's factor of a schedule."""
    return {
        "constant": 1.0,
        "step": oracle.step_factor(t, every=1, factor=0.5),
        "inverse": oracle.inverse_factor(t, power=0.7, rate=2.0),
        "cosine": oracle.cosine_factor(t, length=EPOCHS, floor=0.1),
    }[name]


@dataclass(frozen=True)
class Stack:
    """Training runs that form a stack: one for each fate."""

    fates: tuple[str, ...]
    seeds: tuple[int, ...] = (0, 0, 1, 1)
    rates: tuple[float, ...] = (0.02, 0.1, 0.05, 0.08)
    decays: tuple[float, ...] = (0.0, 0.1, 0.0, 0.1)
    schedules: tuple[str, ...] = ("constant", "step", "inverse", "cosine")
    hidden: tuple[int, ...] = (4,)
    activation: str = "sigmoid"
    loss: str = "softmax"
    optimizer: str = "momentum"
    clip_norm: float | None = None
    dropout: float = 0.0
    batching: Batching = MINI
    exact: bool = False
    samples: int = 14

    @property
    def network(self) -> Network:
        activation = ACTIVATIONS[self.activation]
        return MLP(INPUTS, self.hidden, CLASSES, activation, self.dropout).layers

    def sets(self) -> dict[str, Arrays]:
        rng = np.random.default_rng(1)
        return {
            name: Arrays(
                rng.integers(0, 256, (n, INPUTS), dtype=np.uint8),
                rng.integers(0, CLASSES, n),
                1 / 255,
                np.float64,
            )
            for name, n in (("train", self.samples), ("val", 9))
        }

    def runs(self) -> list[TrainingRun]:
        kind, own = OPTIMIZERS[self.optimizer]
        sets = self.sets()
        return [
            TrainingRun(
                self.network,
                sets,
                loss=LOSSES[self.loss][0],
                batching=self.batching,
                optimizer=kind(weight_decay=self.decays[j], clip_norm=self.clip_norm, **own),
                lr=self.rates[j],
                epochs=EPOCHS,
                seed=self.seeds[j],
                schedule=SCHEDULES[self.schedules[j]]
                if fate in ("stays", "stops")
                else FATES[fate][0],
                stopping=FATES[fate][1],
                exact=self.exact,
            )
            for j, fate in enumerate(self.fates)
        ]

    def starts(self) -> list[Parameters]:
        rng = np.random.default_rng(2)
        return [
            tuple(
                tuple(rng.normal(0, 0.6, shape) for shape in layer.parameter_shapes)
                for layer in self.network
            )
            for _ in self.fates
        ]


def assert_scores(found: Any, rules: oracle.Rules, z: oracle.Float, labels: oracle.Labels) -> None:
    """Compare a score with the oracle's, from logits."""
    np.testing.assert_allclose(found.loss, oracle.loss_value(rules, z, labels), rtol=1e-9)
    right = sum(int(np.argmax(row) == label) for row, label in zip(z, labels, strict=True))
    assert found.accuracy == right / len(labels)


def assert_run_is_the_oracles(stack: Stack, j: int, epochs: Sequence[Epoch]) -> None:
    """Train network j again in the oracle, and compare everything that each epoch shows."""
    sets, n = stack.sets(), stack.samples
    x, val_x = (sets[name].x.astype(np.float64) / 255 for name in ("train", "val"))
    rules = rules_of(
        stack.activation, stack.loss, stack.optimizer, stack.decays[j], stack.clip_norm
    )
    trained = oracle.Trained(in_double(stack.starts()[j]))
    samples = 0
    for number, epoch in enumerate(epochs, 1):
        rows = stack.batching.batches(n, stream(stack.seeds[j], "order", number))
        pieces = [np.arange(n)[batch].tolist() for batch in rows]
        times = [number - 1 + u / len(pieces) for u in range(len(pieces))]
        name = stack.schedules[j] if stack.fates[j] in ("stays", "stops") else "constant"
        rates = [stack.rates[j] * factor(name, t) for t in times]
        dropped = stream(stack.seeds[j], "dropout", number)
        masks = drawn_masks(dropped, pieces, stack.hidden, stack.dropout)
        labels = sets["train"].labels
        z = trained.epoch(rules, x, labels, pieces, rates, masks)

        samples += sum(map(len, pieces))
        assert (epoch.number, epoch.updates, epoch.samples) == (number, trained.updates, samples)
        np.testing.assert_allclose(epoch.lr, rates[-1], rtol=1e-12)
        arrays = [p for layer in epoch.parameters for p in layer]
        for ours, theirs in zip(
            arrays, (p for layer in trained.layers for p in layer), strict=True
        ):
            np.testing.assert_allclose(ours, np.atleast_2d(theirs), rtol=1e-9, atol=1e-9)
        seen = labels[[row for piece in pieces for row in piece]]
        if stack.exact:
            z, seen = oracle.logits(trained.layers, stack.activation, x), labels
        assert_scores(epoch.scores["train"], rules, z, seen)
        val = oracle.logits(trained.layers, stack.activation, val_x)
        assert_scores(epoch.scores["val"], rules, val, sets["val"].labels)


@st.composite
def stacks(draw: st.DrawFn) -> Stack:
    n = draw(st.integers(8, 20))
    batching: list[Batching] = [
        Full(),
        Mini(4),
        Mini(4, drop_last=True),
        Mini(3, shuffle=False),
        Mini(n),
        Mini(n - 1),
        Sample(),
    ]
    count = draw(st.integers(1, 4))
    return Stack(
        fates=tuple(draw(st.sampled_from(sorted(FATES))) for _ in range(count)),
        seeds=draw(st.sampled_from([(0, 0, 0, 0), (0, 0, 1, 1), (0, 1, 2, 3)])),
        hidden=draw(st.sampled_from([(), (4,), (3, 4)])),
        activation=draw(st.sampled_from(["sigmoid", "gelu", "tanh"])),
        loss=draw(st.sampled_from(sorted(LOSSES))),
        optimizer=draw(st.sampled_from(sorted(OPTIMIZERS))),
        decays=draw(st.sampled_from([(0.0,) * 4, (0.0, 0.1, 0.0, 0.1)])),
        clip_norm=draw(st.sampled_from([None, None, 0.1])),
        dropout=draw(st.sampled_from([0.0, 0.0, 0.4])),
        batching=draw(st.sampled_from(batching)),
        exact=draw(st.booleans()),
        samples=n,
    )


@pytest.mark.parametrize("engine", ["fast", "plain"])
@settings(max_examples=60)
@given(stack=stacks())
@example(stack=Stack(("stays", "diverges at once", "stays"), optimizer="momentum"))
@example(stack=Stack(("stays", "diverges", "stays", "stays"), optimizer="adam"))
@example(stack=Stack(("stops", "stays", "stays"), optimizer="nesterov", dropout=0.4))
@example(stack=Stack(("stays", "stays"), exact=True))
def test_training_runs_of_a_stack_are_the_oracles_whoever_leaves(
    engine: Literal["fast", "plain"], stack: Stack
) -> None:
    histories: list[list[Epoch | Diverged | None]] = [[] for _ in stack.fates]
    with small_pieces():
        for records in train(stack.runs(), stack.starts(), engine=engine):
            for history, record in zip(histories, records, strict=True):
                history.append(record)
    longest = max(len(history) for history in histories)
    for j, (fate, history) in enumerate(zip(stack.fates, histories, strict=True)):
        last = FATES[fate][2] or EPOCHS
        present = history[:last]
        assert history[last:] == [None] * (longest - last)
        if fate.startswith("diverges"):
            error = present.pop()
            assert isinstance(error, Diverged)
            assert f" in epoch {last}, after " in str(error)
        epochs = [record for record in present if isinstance(record, Epoch)]
        assert len(epochs) == len(present)
        assert [bool(epoch.stopped) for epoch in epochs] == [
            fate == "stops" and epoch.number == last for epoch in epochs
        ]
        for place, epoch in enumerate(epochs, 1):
            best = epoch
            if fate == "stops":  # it keeps the best epoch so far, however little that is better
                best = min(epochs[:place], key=lambda one: one.scores["val"].loss)
            assert epoch.progress is not None
            for kept, p in zip(epoch.progress.kept, best.parameters, strict=True):
                assert [a.tobytes() for a in kept] == [a.tobytes() for a in p]
        assert_run_is_the_oracles(stack, j, epochs)

"""The training loop: an iterator that yields one record an epoch and knows no tracker, no configuration and no screen."""

import contextlib
import math
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt

from src.nn.layers import Array
from src.nn.losses import Labels, Loss
from src.nn.network import Network, Parameters, backward, forward
from src.support.errors import Diverged
from src.support.randomness import stream
from src.support.threads import one_blas_thread
from src.training.batching import Batching, Rows
from src.training.diagnostics import LayerState, inspect
from src.training.engines.base import Arrays, Engine
from src.training.engines.plain import Plain
from src.training.engines.stack import Lane, Stack
from src.training.metric_watch import MetricWatch
from src.training.optimizers import Optimizer, State
from src.training.schedules import Constant, Schedule
from src.training.stopping import Never, Stopping

_CHUNK = 512  # rows a scoring pass carries at once: they stay in the cache from layer to layer
_REMEDY = "a smaller lr may help"
INSPECTED = 1024  # training samples that units are looked at with


@dataclass(frozen=True)
class Score:
    """The mean loss over a set, and the share of it that is classified right."""

    loss: float
    accuracy: float


@dataclass(frozen=True)
class Epoch:
    """What is known after an epoch. Counters run from the start of training."""

    number: int  # from 1
    scores: Mapping[str, Score]  # by the name of the set: train, val, test
    updates: int
    samples: int
    seconds: float  # spent on training, scoring left out
    lr: float  # of the epoch's last update
    parameters: Parameters
    kept: bool = True  # whether these parameters are the ones to keep, as far as is known
    stopped: str | None = None  # why training ends here, where it ends early
    layers: tuple[LayerState, ...] = ()  # where the epoch was one to look into the network


@dataclass
class Course:
    """The course of one network's training: what each epoch is made with, and the record of what it came to.

    The training score is the mean over the epoch's own passes, each sample scored just before the update that it
    takes part in: it costs nothing, and with one batch an epoch it is the score before the update. With ``exact`` it
    is taken after the epoch, as the other sets' scores are. The first epoch, the last and every ``inspect_every``-th look
    into the layers.
    """

    network: Network
    sets: Mapping[str, Arrays]  # train, and others to be scored
    loss: Loss
    batching: Batching
    optimizer: Optimizer
    lr: float
    epochs: int
    seed: int
    schedule: Schedule = field(default_factory=Constant)
    stopping: Stopping = field(default_factory=Never)
    exact: bool = False
    inspect_every: int | None = None

    def __post_init__(self) -> None:
        self._history: list[Mapping[str, Score]] = []
        self._updates = self._samples = 0
        self._seconds = 0.0

    @property
    def data(self) -> Arrays:
        return self.sets["train"]

    @property
    def size(self) -> int:
        """How many samples an update takes."""
        return self.batching.batch_size(len(self.data.labels))

    def order(self, epoch: int) -> Rows:
        """Return the rows of an epoch in the order in which they are taken."""
        return self.batching.order(len(self.data.labels), stream(self.seed, "order", epoch))

    def rates(self, epoch: int) -> npt.NDArray[np.float64]:
        """Return the learning rate of each update of an epoch; every epoch before it must be recorded."""
        updates = self.batching.updates(len(self.data.labels))
        seen = watched(self.schedule.watch, self._history)
        return self.lr * self.schedule.factors(epoch, updates, self.epochs, seen)

    def record(
        self,
        epoch: int,
        order: Rows,
        rates: npt.NDArray[np.float64],
        logits: Array,
        parameters: Parameters,
        state: State,
        seconds: float,
        scored: Mapping[str, Score] | None = None,
    ) -> Epoch:
        """Return what is known after an epoch, given its rates, the logits of its passes and what it left.

        Sets that are not ``scored`` yet are scored here. Raises Diverged where a loss or a weight is not finite.
        """
        labels = self.data.labels[order]
        passed = judge(logits, labels, self.loss)
        if not np.isfinite(passed.loss):
            raise self._diverged(epoch, logits, labels)
        self._updates += len(rates)
        self._samples += len(labels)
        self._seconds += seconds
        if not all(np.isfinite(p).all() for layer in parameters for p in layer):
            raise Diverged(
                f"the weights are no longer finite in epoch {epoch}, after {self._updates} updates; {_REMEDY}"
            )
        scores = {} if self.exact else {"train": passed}
        for name, arrays in self.sets.items():
            if name not in scores:
                known = scored.get(name) if scored else None
                scores[name] = known or score(self.network, parameters, arrays, self.loss)
                if not np.isfinite(scores[name].loss):
                    raise Diverged(_message(name, scores[name].loss, epoch, self._updates))
        self._history.append(scores)
        metric = watched(self.stopping.watch, self._history)
        kept = self.stopping.watch is None or self.stopping.kept(metric) == epoch
        stopped = self.stopping.reason(metric)
        layers: tuple[LayerState, ...] = ()
        if self.inspect_every and (
            epoch in (1, self.epochs) or epoch % self.inspect_every == 0 or stopped
        ):
            layers = self.look(parameters, state, _last_batch(order, self.size), float(rates[-1]))
        counts = self._updates, self._samples, self._seconds
        return Epoch(epoch, scores, *counts, float(rates[-1]), parameters, kept, stopped, layers)

    def look(
        self, parameters: Parameters, state: State, batch: Rows, lr: float
    ) -> tuple[LayerState, ...]:
        """Look into the layers with a batch: at its gradient, and at the update that it would bring next."""
        data = self.data
        values = forward(self.network, parameters, data.rows(batch))
        gradients = backward(
            self.network, parameters, values, self.loss.gradient(values[-1], data.labels[batch])
        )
        moved, _ = self.optimizer.update(parameters, gradients, state, lr)
        return inspect(self.network, parameters, moved, gradients, data.rows(slice(0, INSPECTED)))

    def _diverged(self, epoch: int, logits: Array, labels: Labels) -> Diverged:
        """Name the first batch whose loss was not finite."""
        for k, start in enumerate(range(0, len(labels), self.size)):
            batch = slice(start, start + self.size)
            value = float(self.loss.value(logits[batch], labels[batch]))
            if not np.isfinite(value):
                return Diverged(_message("training", value, epoch, self._updates + k))
        return Diverged(_message("training", math.inf, epoch, self._updates))


def train(
    course: Course, parameters: Parameters, *, engine: Literal["fast", "plain"] = "fast"
) -> Iterator[Epoch]:
    """Train from these first parameters and yield each epoch's record.

    BLAS runs on one thread, so that equal calls give equal bytes wherever they run. The fast engine computes what the
    plain one does, to rounding. Raises Diverged after the first epoch with a loss or a weight that is not finite.
    """
    from src.training.engines.choice import (
        choose,
    )  # SciPy, behind it, takes a while to import: not before training

    made = Plain if engine == "plain" else partial(choose, course.size)
    runs: Engine = made(
        course.network, parameters, course.data, loss=course.loss, optimizer=course.optimizer
    )
    with _calm():
        for number in range(1, course.epochs + 1):
            start = time.perf_counter()
            order, rates = course.order(number), course.rates(number)
            logits = runs.epoch(
                order, course.size, rates.tolist(), stream(course.seed, "dropout", number)
            )
            seconds = time.perf_counter() - start
            epoch = course.record(
                number, order, rates, logits, runs.parameters, runs.state, seconds
            )
            yield epoch
            if epoch.stopped:
                return


def train_together(
    courses: Sequence[Course], parameters: Sequence[Parameters]
) -> Iterator[list[Epoch | Diverged | None]]:
    """Train a stack of networks side by side and yield, epoch by epoch, each one's record.

    The courses differ in rate, schedule, stopping, seed, penalty and data alone. A network that diverges leaves the
    stack with what it would have raised, one that stops early with its last record; None stands for those that left.
    What is computed is what ``train`` computes of each alone, to rounding.
    """
    active = list(range(len(courses)))
    states = [course.optimizer.start(p) for course, p in zip(courses, parameters, strict=True)]
    own = list(parameters)
    stack: Stack | None = None
    with _calm():
        for number in range(1, courses[0].epochs + 1):
            start = time.perf_counter()
            if stack is None:
                lanes = _lanes([courses[j] for j in active])
                active = [active[i] for lane in lanes for i in lane]
                stack = _stack(
                    [courses[j] for j in active],
                    [own[j] for j in active],
                    [states[j] for j in active],
                    lanes,
                )
            leaders = [courses[active[first]] for first in _firsts(lanes)]
            orders = [leader.order(number) for leader in leaders]
            rates = np.stack([courses[j].rates(number) for j in active], axis=1)
            logits = stack.epoch(orders, rates)
            seconds = (time.perf_counter() - start) / len(active)

            scored = _score_together([courses[j] for j in active], stack.parameters)
            records: list[Epoch | Diverged | None] = [None] * len(courses)
            of_each = [order for order, lane in zip(orders, lanes, strict=True) for _ in lane]
            for i, j in enumerate(active):
                own[j], states[j] = stack.parameters[i], stack.states[i]
                try:
                    records[j] = courses[j].record(
                        number,
                        of_each[i],
                        rates[:, i],
                        logits[i],
                        own[j],
                        states[j],
                        seconds,
                        scored[i],
                    )
                except Diverged as error:
                    records[j] = error
            yield records
            staying = [
                j for j in active if isinstance(record := records[j], Epoch) and not record.stopped
            ]
            if not staying:
                return
            if len(staying) < len(active):
                active, stack = staying, None


def _lanes(courses: Sequence[Course]) -> list[list[int]]:
    """Group the courses that see the same samples in the same order."""
    lanes: dict[Hashable, list[int]] = {}
    for i, course in enumerate(courses):
        lanes.setdefault((course.data.place, course.batching.order_by(course.seed)), []).append(i)
    return list(lanes.values())


def _firsts(lanes: Sequence[Sequence[int]]) -> list[int]:
    """Return where each lane begins."""
    return [sum(map(len, lanes[:q])) for q in range(len(lanes))]


def _stack(
    courses: Sequence[Course],
    parameters: Sequence[Parameters],
    states: Sequence[State],
    lanes: Sequence[Sequence[int]],
) -> Stack:
    from src.training.engines.choice import stack_kind

    first = courses[0]
    places = [
        Lane(courses[start].data, len(lane))
        for start, lane in zip(_firsts(lanes), lanes, strict=True)
    ]
    optimizers = [course.optimizer for course in courses]
    kind = stack_kind(first.size, first.network, first.loss, optimizers)
    return kind(
        first.network,
        parameters,
        states,
        places,
        loss=first.loss,
        optimizers=optimizers,
        size=first.size,
    )


def _score_together(
    courses: Sequence[Course], parameters: Sequence[Parameters]
) -> list[dict[str, Score]]:
    """Return the scores of each network on its sets; those that share a set see its rows brought up once."""
    sharing: dict[Hashable, list[tuple[int, str]]] = {}
    for i, course in enumerate(courses):
        for name, arrays in course.sets.items():
            if name != "train" or course.exact:
                sharing.setdefault(arrays.place, []).append((i, name))
    scored: list[dict[str, Score]] = [{} for _ in courses]
    for places in sharing.values():
        first, name = places[0]
        course = courses[first]
        found = scores(
            course.network, [parameters[i] for i, _ in places], course.sets[name], course.loss
        )
        for (i, own), value in zip(places, found, strict=True):
            scored[i][own] = value
    return scored


@contextlib.contextmanager
def _calm() -> Iterator[None]:
    """Hold BLAS to one thread, and let numbers overflow: what is not finite is told in a sentence."""
    with one_blas_thread(), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        yield


def _last_batch(order: Rows, size: int) -> Rows:
    return (
        slice(max(order.start, order.stop - size), order.stop)
        if isinstance(order, slice)
        else order[-size:]
    )


def watched(watch: MetricWatch | None, history: Sequence[Mapping[str, Score]]) -> list[float]:
    """Return what a metric was after each epoch; nothing where none is watched."""
    if watch is None:
        return []
    name, measure = watch.metric.split("/")
    return [getattr(scores[name], measure) for scores in history]


def score(network: Network, parameters: Parameters, arrays: Arrays, loss: Loss) -> Score:
    """Return the loss and accuracy of a network on a set, carried through it in chunks."""
    return scores(network, [parameters], arrays, loss)[0]


def scores(
    network: Network, parameters: Sequence[Parameters], arrays: Arrays, loss: Loss
) -> list[Score]:
    """Return the loss and accuracy of each of several networks on a set: a chunk goes through all while it is there."""
    n = len(arrays.labels)
    chunks = [slice(start, min(start + _CHUNK, n)) for start in range(0, n, _CHUNK)]
    carried: list[list[Array]] = [[] for _ in parameters]
    for chunk in chunks:
        x = arrays.rows(chunk)
        for own, logits in zip(parameters, carried, strict=True):
            logits.append(forward(network, own, x)[-1])
    return [judge(np.concatenate(logits), arrays.labels, loss) for logits in carried]


def judge(logits: Array, labels: Labels, loss: Loss) -> Score:
    """Return the mean loss and the share of right answers of ``logits (n, classes)`` for ``labels (n,)``."""
    right = int(np.count_nonzero(logits.argmax(axis=-1) == labels))
    return Score(float(loss.value(logits, labels)), right / len(labels))


def _message(name: str, value: float, epoch: int, updates: int) -> str:
    return f"the {name} loss became {value} in epoch {epoch}, after {updates} updates; {_REMEDY}"

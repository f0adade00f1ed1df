"""One network's training run as values: settings, how far it has come, and what an epoch gave."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from src.nn.layers import Array
from src.nn.losses import Labels, Loss
from src.nn.network import Network, Parameters, backward, forward
from src.support.errors import Diverged
from src.support.randomness import stream
from src.training.batching import Batching, Rows, length, part
from src.training.diagnostics import LayerState, inspect
from src.training.engines.base import Arrays
from src.training.metric_watch import MetricWatch
from src.training.optimizers import Optimizer, State
from src.training.schedules import Constant, Schedule
from src.training.scoring import Score, judge
from src.training.stopping import Never, Stopping

INSPECTED = 1024  # training samples that a look into the layers uses

_REMEDY = "a smaller lr may help"

Scores = Mapping[str, Score]  # by the name of the set: train, val, test


@dataclass(frozen=True)
class Progress:
    """All that changes during a training run, after some epoch.

    A training run that starts from it goes on as if it had never stopped, byte for byte.
    """

    epoch: int  # epochs trained so far
    parameters: Parameters
    state: State  # of the optimizer
    kept: Parameters  # the parameters to keep, as far as is known
    updates: int = 0
    samples: int = 0
    seconds: float = 0.0
    history: tuple[Scores, ...] = ()  # of each epoch


@dataclass(frozen=True)
class Epoch:
    """What is known after an epoch. Counters run from the start of training."""

    number: int  # from 1
    scores: Scores
    updates: int
    samples: int
    seconds: float  # spent on training, without scoring; a stack's are divided by its members
    lr: float  # of the epoch's last update
    parameters: Parameters
    kept: bool = True  # whether these parameters are the ones to keep, as far as is known
    stopped: str | None = None  # why training ends here, if it ends early
    layers: tuple[LayerState, ...] = ()  # if this epoch looked into the network
    progress: Progress | None = None  # from which training can start again


@dataclass(frozen=True)
class TrainingRun:
    """The settings of one network's training run, from its first epoch to its last.

    The training score is the mean over the epoch's own passes: each sample is scored just before
    the update that it takes part in, which costs nothing. With one batch per epoch it is the score
    before the update. With ``exact`` it is taken after the epoch, as the other sets' scores are.
    The first epoch, the last, and every ``inspect_every``-th look into the layers.
    """

    network: Network
    sets: Mapping[str, Arrays]  # train, and others to score
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

    @property
    def data(self) -> Arrays:
        """The training set."""
        return self.sets["train"]

    @property
    def batch_size(self) -> int:
        """How many samples an update takes."""
        return self.batching.batch_size(len(self.data.labels))

    def begin(self, parameters: Parameters) -> Progress:
        """Return the progress before the first epoch."""
        return Progress(0, parameters, self.optimizer.start(parameters), kept=parameters)

    def has_ended(self, progress: Progress) -> bool:
        """Tell whether no epoch is left to train."""
        return progress.epoch >= self.epochs or self._stopped(progress.history) is not None

    def _stopped(self, history: Sequence[Scores]) -> str | None:
        """Return why training ends early after these epochs, if it does."""
        return self.stopping.reason(watched(self.stopping.watch, history)) if history else None

    def order(self, epoch: int) -> Rows:
        """Return the rows of an epoch in the order in which they are taken."""
        return self.batching.order(len(self.data.labels), stream(self.seed, "order", epoch))

    def masks(self, epoch: int) -> np.random.Generator:
        """Return what an epoch's dropout masks are drawn from."""
        return stream(self.seed, "dropout", epoch)

    def rates(self, progress: Progress) -> npt.NDArray[np.float64]:
        """Return the learning rate of each update of the next epoch."""
        updates = self.batching.updates(len(self.data.labels))
        seen = watched(self.schedule.watch, progress.history)
        return self.lr * self.schedule.factors(progress.epoch + 1, updates, self.epochs, seen)

    def record(
        self,
        before: Progress,
        trained: "Trained",
        scored: Scores,
        seconds: float,
    ) -> Epoch:
        """Return what is known after an epoch.

        ``scored`` holds the scores after the epoch. Raises Diverged if a loss or a weight is not
        finite.
        """
        number, parameters = before.epoch + 1, trained.parameters
        labels = self.data.labels[trained.order]
        updates = before.updates + len(trained.rates)
        passed = judge(trained.logits, labels, self.loss)
        if not math.isfinite(passed.loss):
            raise self._diverged(before, trained.logits, labels)
        if not all(np.isfinite(p).all() for layer in parameters for p in layer):
            what = "the weights are no longer finite"
            raise Diverged(f"{what} in epoch {number}, after {updates} updates; {_REMEDY}")
        for name, score in scored.items():
            if not math.isfinite(score.loss):
                raise Diverged(_message(name, score.loss, number, updates))

        scores = dict(scored) if self.exact else {"train": passed, **scored}
        history = (*before.history, scores)
        metric = watched(self.stopping.watch, history)
        kept = self.stopping.watch is None or self.stopping.kept(metric) == number
        progress = Progress(
            number,
            parameters,
            trained.state,
            kept=parameters if kept else before.kept,
            updates=updates,
            samples=before.samples + len(labels),
            seconds=before.seconds + seconds,
            history=history,
        )
        stopped = self._stopped(history)
        looks = self.inspect_every and (
            number in (1, self.epochs) or number % self.inspect_every == 0 or stopped
        )
        return Epoch(
            number,
            scores,
            progress.updates,
            progress.samples,
            progress.seconds,
            float(trained.rates[-1]),
            parameters,
            kept,
            stopped,
            self._look_after(trained) if looks else (),
            progress,
        )

    def look(
        self, parameters: Parameters, state: State, batch: Rows, lr: float
    ) -> tuple[LayerState, ...]:
        """Look into the layers with a batch: its gradient, and the update that it would make."""
        data = self.data
        values = forward(self.network, parameters, data.rows(batch))
        dlogits = self.loss.gradient(values[-1], data.labels[batch])
        gradients = backward(self.network, parameters, values, dlogits)
        moved, _ = self.optimizer.update(parameters, gradients, state, lr)
        return inspect(self.network, parameters, moved, gradients, data.rows(slice(0, INSPECTED)))

    def _look_after(self, trained: "Trained") -> tuple[LayerState, ...]:
        """Look into the layers with the last batch of an epoch."""
        samples = length(trained.order)
        last = part(trained.order, max(0, samples - self.batch_size), samples)
        return self.look(trained.parameters, trained.state, last, float(trained.rates[-1]))

    def _diverged(self, before: Progress, logits: Array, labels: Labels) -> Diverged:
        """Name the first batch whose loss was not finite."""
        number = before.epoch + 1
        for k, start in enumerate(range(0, len(labels), self.batch_size)):
            batch = slice(start, start + self.batch_size)
            value = float(self.loss.value(logits[batch], labels[batch]))
            if not math.isfinite(value):
                return Diverged(_message("training", value, number, before.updates + k))
        return Diverged(_message("training", math.inf, number, before.updates))


@dataclass(frozen=True)
class Trained:
    """What an engine leaves of one network's epoch."""

    order: Rows
    rates: npt.NDArray[np.float64]  # of each update
    logits: Array  # of the passes, in the order of training
    parameters: Parameters
    state: State


def watched(watch: MetricWatch | None, history: Sequence[Scores]) -> list[float]:
    """Return the value of a metric after each epoch; nothing if none is watched."""
    if watch is None:
        return []
    name, measure = watch.metric.split("/")
    return [getattr(scores[name], measure) for scores in history]


def _message(name: str, value: float, epoch: int, updates: int) -> str:
    return f"the {name} loss became {value} in epoch {epoch}, after {updates} updates; {_REMEDY}"

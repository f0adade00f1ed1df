"""The training loop: an iterator that yields one record an epoch and knows no tracker, no configuration and no screen."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from src.batching import Batching, Rows
from src.diagnostics import LayerState, inspect
from src.engines.base import Arrays, Engine
from src.engines.choice import choose
from src.engines.plain import Plain
from src.errors import Diverged
from src.nn.layers import Array
from src.nn.losses import Labels, Loss
from src.nn.network import Network, Parameters, backward, forward
from src.optimizers import Optimizer
from src.randomness import stream
from src.schedules import Constant, Schedule
from src.stopping import Never, Stopping
from src.threads import one_blas_thread
from src.watching import Watch

_CHUNK = 4096  # rows a scoring pass carries at once: enough to keep BLAS busy, little enough to stay in cache
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


def train(
    network: Network,
    parameters: Parameters,
    sets: Mapping[str, Arrays],
    *,
    loss: Loss,
    batching: Batching,
    optimizer: Optimizer,
    lr: float,
    epochs: int,
    seed: int,
    schedule: Schedule | None = None,
    stopping: Stopping | None = None,
    exact: bool = False,
    inspect_every: int | None = None,
    engine: Literal["fast", "plain"] = "fast",
) -> Iterator[Epoch]:
    """Train on ``sets["train"]`` and yield each epoch's record with the scores of every set.

    The training score is the mean over the epoch's own passes, each sample scored just before the update that it
    takes part in: it costs nothing, and with one batch an epoch it is the score before the update. With ``exact`` it
    is taken after the epoch, as the other sets' scores are. The first epoch, the last and every ``inspect_every``-th look
    into the layers. BLAS runs on one thread, so that equal calls give equal bytes wherever they run. The fast engine
    computes what the plain one does, to rounding.

    Raises Diverged after the first epoch with a loss or a weight that is not finite.
    """
    data = sets["train"]
    schedule, stopping = schedule or Constant(), stopping or Never()
    size = batching.batch_size(len(data.labels))
    runs: Engine
    if engine == "plain":
        runs = Plain(network, parameters, data, loss=loss, optimizer=optimizer)
    else:
        runs = choose(network, parameters, data, size, loss=loss, optimizer=optimizer)
    history: list[Mapping[str, Score]] = []
    updates = samples = 0
    seconds = 0.0
    with one_blas_thread(), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for number in range(1, epochs + 1):
            start = time.perf_counter()
            order = batching.order(len(data.labels), stream(seed, "order", number))
            count = batching.updates(len(data.labels))
            rates = (lr * schedule.factors(number, count, epochs, watched(schedule.watch, history))).tolist()
            logits = runs.epoch(order, size, rates, stream(seed, "dropout", number))
            labels = data.labels[order]
            seconds += time.perf_counter() - start

            passed = judge(logits, labels, loss)
            if not np.isfinite(passed.loss):
                raise _diverged(logits, labels, size, number, updates, loss)
            updates += count
            samples += len(labels)
            if not all(np.isfinite(p).all() for layer in runs.parameters for p in layer):
                raise Diverged(
                    f"the weights are no longer finite in epoch {number}, after {updates} updates; {_REMEDY}"
                )
            scores = {} if exact else {"train": passed}
            for name, arrays in sets.items():
                if name not in scores:
                    scores[name] = score(network, runs.parameters, arrays, loss)
                    if not np.isfinite(scores[name].loss):
                        raise Diverged(_message(name, scores[name].loss, number, updates))
            history.append(scores)
            metric = watched(stopping.watch, history)
            kept = stopping.watch is None or stopping.kept(metric) == number
            stopped = stopping.reason(metric)
            layers: tuple[LayerState, ...] = ()
            if inspect_every and (number in (1, epochs) or number % inspect_every == 0 or stopped):
                layers = look(runs, _last_batch(order, size), rates[-1])
            yield Epoch(number, scores, updates, samples, seconds, rates[-1], runs.parameters, kept, stopped, layers)
            if stopped:
                return


def look(engine: Engine, batch: Rows, lr: float) -> tuple[LayerState, ...]:
    """Look into the layers with a batch: at its gradient, and at the update that it would bring next."""
    data, network, parameters = engine.data, engine.network, engine.parameters
    values = forward(network, parameters, data.rows(batch))
    gradients = backward(network, parameters, values, engine.loss.gradient(values[-1], data.labels[batch]))
    moved, _ = engine.optimizer.update(parameters, gradients, engine.state, lr)
    return inspect(network, parameters, moved, gradients, data.rows(slice(0, INSPECTED)))


def _last_batch(order: Rows, size: int) -> Rows:
    return slice(max(order.start, order.stop - size), order.stop) if isinstance(order, slice) else order[-size:]


def watched(watch: Watch | None, history: Sequence[Mapping[str, Score]]) -> list[float]:
    """Return what a metric was after each epoch; nothing where none is watched."""
    if watch is None:
        return []
    name, measure = watch.metric.split("/")
    return [getattr(scores[name], measure) for scores in history]


def score(network: Network, parameters: Parameters, arrays: Arrays, loss: Loss) -> Score:
    """Return the loss and accuracy of a network on a set, carried through it in chunks."""
    n = len(arrays.labels)
    chunks = [slice(start, min(start + _CHUNK, n)) for start in range(0, n, _CHUNK)]
    logits = np.concatenate([forward(network, parameters, arrays.rows(chunk))[-1] for chunk in chunks])
    return judge(logits, arrays.labels, loss)


def judge(logits: Array, labels: Labels, loss: Loss) -> Score:
    """Return the mean loss and the share of right answers of ``logits (n, classes)`` for ``labels (n,)``."""
    right = int(np.count_nonzero(logits.argmax(axis=-1) == labels))
    return Score(float(loss.value(logits, labels)), right / len(labels))


def _diverged(logits: Array, labels: Labels, size: int, epoch: int, updates: int, loss: Loss) -> Diverged:
    """Name the first batch whose loss was not finite."""
    for k, start in enumerate(range(0, len(labels), size)):
        value = float(loss.value(logits[start : start + size], labels[start : start + size]))
        if not np.isfinite(value):
            return Diverged(_message("training", value, epoch, updates + k))
    return Diverged(_message("training", float("inf"), epoch, updates))


def _message(name: str, value: float, epoch: int, updates: int) -> str:
    return f"the {name} loss became {value} in epoch {epoch}, after {updates} updates; {_REMEDY}"

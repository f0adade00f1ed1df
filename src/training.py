"""The training loop: an iterator that yields one record an epoch and knows no tracker, no configuration and no screen."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from src.batching import Batching
from src.diagnostics import LayerState, inspect
from src.errors import Diverged
from src.nn.layers import Array, Dropout
from src.nn.losses import Loss
from src.nn.network import Network, Parameters, backward, forward, with_masks
from src.optimizers import Optimizer
from src.randomness import stream
from src.schedules import Constant, Schedule
from src.stopping import Never, Stopping
from src.watching import Watch

_CHUNK = 4096  # rows a scoring pass carries at once: enough to keep BLAS busy, little enough to stay in cache
INSPECTED = 1024  # training samples that units are looked at with


@dataclass(frozen=True)
class Arrays:
    """A set as the network sees it: ``x (n, features)`` in the network's precision, ``labels (n,)``."""

    x: Array
    labels: npt.NDArray[np.int64]


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
) -> Iterator[Epoch]:
    """Train on ``sets["train"]`` and yield each epoch's record with the scores of every set.

    The training score is the mean over the epoch's own passes, each sample scored just before the update that it
    takes part in: it costs nothing, and with one batch an epoch it is the score before the update. With ``exact`` it
    is taken after the epoch, as the other sets' scores are. The first epoch and every ``inspect_every``-th look into the
    layers. BLAS runs on one thread, so that equal calls give equal bytes wherever they run.

    Raises Diverged at the first loss that is not finite.
    """
    x, labels = sets["train"].x, sets["train"].labels
    schedule, stopping = schedule or Constant(), stopping or Never()
    drops = any(isinstance(layer, Dropout) for layer in network)
    state = optimizer.start(parameters)
    history: list[Mapping[str, Score]] = []
    updates = samples = 0
    seconds = 0.0
    with threadpool_limits(limits=1, user_api="blas"), np.errstate(over="ignore", invalid="ignore"):
        for number in range(1, epochs + 1):
            start = time.perf_counter()
            total_loss, right, seen = 0.0, 0, 0
            masks = stream(seed, "dropout", number)
            factors = schedule.factors(number, batching.updates(len(labels)), epochs, watched(schedule.watch, history))
            batches = batching.batches(len(labels), stream(seed, "order", number))
            for rows, rate in zip(batches, (lr * factors).tolist(), strict=True):
                batch, batch_labels = x[rows], labels[rows]
                size = len(batch_labels)
                masked = with_masks(network, parameters, (size,), masks) if drops else parameters
                values = forward(network, masked, batch)
                logits = values[-1]

                batch_loss = _finite(float(loss.value(logits, batch_labels)), "training", number, updates)
                gradients = backward(network, masked, values, loss.gradient(logits, batch_labels))
                before = parameters
                parameters, state = optimizer.update(parameters, gradients, state, rate)

                total_loss += batch_loss * size
                right += int(np.count_nonzero(logits.argmax(axis=-1) == batch_labels))
                seen += size
                updates += 1
            samples += seen
            seconds += time.perf_counter() - start

            scores = {} if exact else {"train": Score(total_loss / seen, right / seen)}
            for name, arrays in sets.items():
                if name not in scores:
                    scores[name] = score(network, parameters, arrays, loss)
                    _finite(scores[name].loss, name, number, updates)
            history.append(scores)
            layers: tuple[LayerState, ...] = ()
            if inspect_every and (number == 1 or number % inspect_every == 0):
                layers = inspect(network, before, parameters, gradients, x[:INSPECTED])
            metric = watched(stopping.watch, history)
            kept = stopping.watch is None or stopping.kept(metric) == number
            stopped = stopping.reason(metric)
            yield Epoch(number, scores, updates, samples, seconds, rate, parameters, kept, stopped, layers)
            if stopped:
                return


def watched(watch: Watch | None, history: Sequence[Mapping[str, Score]]) -> list[float]:
    """Return what a metric was after each epoch; nothing where none is watched."""
    if watch is None:
        return []
    name, measure = watch.metric.split("/")
    return [getattr(scores[name], measure) for scores in history]


def score(network: Network, parameters: Parameters, arrays: Arrays, loss: Loss) -> Score:
    """Return the loss and accuracy of a network on a set, carried through it in chunks."""
    total_loss, right = 0.0, 0
    for start in range(0, len(arrays.labels), _CHUNK):
        labels = arrays.labels[start : start + _CHUNK]
        logits = forward(network, parameters, arrays.x[start : start + _CHUNK])[-1]
        total_loss += float(loss.value(logits, labels)) * len(labels)
        right += int(np.count_nonzero(logits.argmax(axis=-1) == labels))
    return Score(total_loss / len(arrays.labels), right / len(arrays.labels))


def _finite(value: float, name: str, epoch: int, updates: int) -> float:
    if not np.isfinite(value):
        raise Diverged(
            f"the {name} loss became {value} in epoch {epoch}, after {updates} updates; a smaller lr may help"
        )
    return value

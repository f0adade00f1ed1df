"""The training loop: an iterator that yields one record an epoch and knows no tracker, no configuration and no screen."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from src.batching import Batching
from src.errors import Diverged
from src.nn.layers import Array
from src.nn.losses import Loss
from src.nn.network import Network, Parameters, backward, forward
from src.optimizers import Optimizer
from src.randomness import stream

_CHUNK = 4096  # rows a scoring pass carries at once: enough to keep BLAS busy, little enough to stay in cache


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
    parameters: Parameters


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
    exact: bool = False,
) -> Iterator[Epoch]:
    """Train on ``sets["train"]`` and yield each epoch's record with the scores of every set.

    The training score is the mean over the epoch's own passes, each sample scored just before the update that it
    takes part in: it costs nothing, and with one batch an epoch it is the score before the update. With ``exact`` it
    is taken after the epoch, as the other sets' scores are. BLAS runs on one thread, so that equal calls give equal
    bytes wherever they run.

    Raises Diverged at the first loss that is not finite.
    """
    x, labels = sets["train"].x, sets["train"].labels
    updates = samples = 0
    seconds = 0.0
    with threadpool_limits(limits=1, user_api="blas"), np.errstate(over="ignore", invalid="ignore"):
        for number in range(1, epochs + 1):
            start = time.perf_counter()
            total_loss, right, seen = 0.0, 0, 0
            for rows in batching.batches(len(labels), stream(seed, "order", number)):
                batch, batch_labels = x[rows], labels[rows]
                values = forward(network, parameters, batch)
                logits = values[-1]

                batch_loss = _finite(float(loss.value(logits, batch_labels)), "training", number, updates)
                gradients = backward(network, parameters, values, loss.gradient(logits, batch_labels))
                parameters = optimizer.update(parameters, gradients, lr)

                size = len(batch_labels)
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
            yield Epoch(number, scores, updates, samples, seconds, parameters)


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

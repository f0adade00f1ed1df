"""The loss and the accuracy of networks on a set."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from src.nn.layers import Array
from src.nn.losses import Labels, Loss
from src.nn.network import Network, Parameters, forward
from src.training.engines.base import Arrays

CHUNK = 512  # rows that a pass carries at once: they stay in the cache from layer to layer


@dataclass(frozen=True)
class Score:
    """The mean loss over a set, and the share of its samples that is classified correctly."""

    loss: float
    accuracy: float


def score(network: Network, parameters: Parameters, arrays: Arrays, loss: Loss) -> Score:
    """Return the score of one network on a set."""
    return scores(network, [parameters], arrays, loss)[0]


def scores(
    network: Network, parameters: Sequence[Parameters], arrays: Arrays, loss: Loss
) -> list[Score]:
    """Return the score of each of several networks on a set.

    Each chunk of the set goes through all networks while it is in the cache.
    """
    logits: list[list[Array]] = [[] for _ in parameters]
    n = len(arrays.labels)
    for start in range(0, n, CHUNK):
        x = arrays.rows(slice(start, min(start + CHUNK, n)))
        for own, chunks in zip(parameters, logits, strict=True):
            chunks.append(forward(network, own, x)[-1])
    return [judge(np.concatenate(chunks), arrays.labels, loss) for chunks in logits]


def judge(logits: Array, labels: Labels, loss: Loss) -> Score:
    """Return the score of ``logits (n, classes)`` for ``labels (n,)``."""
    right = int(np.count_nonzero(logits.argmax(axis=-1) == labels))
    return Score(float(loss.value(logits, labels)), right / len(labels))

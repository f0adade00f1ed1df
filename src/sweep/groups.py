"""Which jobs of a sweep train side by side: those that differ in what a stack may differ in, and in no more."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np

from src.experiment import Prepared
from src.nn.network import parameter_count

# Weights that a stack may hold, in bytes: more of them leave the cache between one update and the next, and a stack
# that has outgrown it is slower than its networks one after another.
_MOST_BYTES = 4 << 20
_MOST = 128  # networks: beyond, each one more brings next to nothing


def likeness(prepared: Prepared) -> Hashable | None:
    """Return what must be equal for experiments to train together; None for one that trains alone.

    They may differ in rate, schedule, stopping, seed, initializer, penalty and in which samples they have, not in how
    many.
    """
    chosen = prepared.experiment
    if chosen.engine == "plain" or chosen.model.dropout:
        return None
    return (
        chosen.model,
        chosen.loss,
        chosen.batching,
        replace(chosen.optimizer, weight_decay=0.0),
        chosen.epochs,
        chosen.dtype,
        len(prepared.dataset.train),
    )


def most_together(prepared: Prepared) -> int:
    """Return how many networks of this shape train faster together than one after another."""
    weights = sum(array.nbytes for layer in prepared.parameters for array in layer)
    return max(1, min(_MOST, _MOST_BYTES // weights))


def work(prepared: Prepared) -> int:
    """Return how much there is to compute, in products of a weight with a number."""
    experiment = prepared.experiment
    return parameter_count(prepared.network) * len(prepared.dataset.train) * experiment.epochs


def group(experiments: Sequence[Prepared], workers: int, most: int | None = None) -> list[list[int]]:
    """Return the experiments by their numbers in groups that train together, the group with the most work first.

    No group has more than a worker's share of all the work, unless it is of one. Experiments that see the same samples
    in the same order stand together: they share the most. ``most`` may train together, by default what is quickest.
    """
    share = sum(map(work, experiments)) / workers
    alike: dict[Hashable, list[int]] = {}
    groups: list[list[int]] = []
    for number, prepared in enumerate(experiments):
        key = likeness(prepared)
        if key is None:
            groups.append([number])
        else:
            alike.setdefault(key, []).append(number)
    for numbers in alike.values():
        numbers.sort(key=lambda n: (experiments[n].dataset.digest, experiments[n].experiment.seed))
        together = most or most_together(experiments[numbers[0]])
        parts = max(len(numbers) / together, sum(work(experiments[n]) for n in numbers) / share)
        groups += _divided(numbers, min(len(numbers), math.ceil(parts - 1e-9)))
    return sorted(groups, key=lambda numbers: -sum(work(experiments[n]) for n in numbers))


def _divided(numbers: Sequence[int], parts: int) -> list[list[int]]:
    """Cut a list into parts whose lengths differ by one at most."""
    return [part.tolist() for part in np.array_split(numbers, parts)]

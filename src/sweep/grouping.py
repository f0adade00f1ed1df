"""Which jobs of a sweep train side by side: those that differ in what a stack may differ in, and in no more."""

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from src.experiment.experiment import Prepared
from src.nn.network import parameter_count
from src.training.engines.base import Engine
from src.training.engines.batches import Batches
from src.training.engines.choice import choose
from src.training.engines.deferred_stack import DeferredStack

_KIB = 1024


@dataclass(frozen=True)
class _Quicker:
    """Where a stack was measured to be quicker than its networks by themselves."""

    kind: type[Engine]
    largest: float  # samples an update
    one_order: bool  # whether all see the same samples in the same order
    each: int  # KiB that a network's weights, and what its optimizer remembers, may take
    together: (
        int  # KiB that those of all may take: more leave the cache between one update and the next
    )
    least: int  # networks

    def serves(self, kind: type[Engine], size: int, one_order: bool, memory: int) -> bool:
        return (
            (self.kind, self.one_order) == (kind, one_order)
            and size <= self.largest
            and memory <= self.each * _KIB
        )


# From ``python -m tests.benchmarks.stacks``; the first that serves counts.
_MEASURED = (
    _Quicker(DeferredStack, 1, one_order=True, each=400, together=12_800, least=8),
    _Quicker(DeferredStack, 1, one_order=False, each=400, together=12_800, least=8),
    _Quicker(Batches, math.inf, one_order=True, each=200, together=6_144, least=2),
    _Quicker(Batches, math.inf, one_order=True, each=400, together=6_144, least=4),
    _Quicker(Batches, 64, one_order=False, each=200, together=2_048, least=4),
    _Quicker(Batches, math.inf, one_order=False, each=200, together=1_024, least=4),
)
_LATER = (
    16 * _KIB
)  # of weights after the first layer, up to which a stack pays that trains by single samples
_MOST = 128  # networks: each one more brings next to nothing


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


def sizes(prepared: Prepared, one_order: bool) -> range:
    """Return how many networks like this one train faster together than one after another; no number where none do."""
    chosen, network = prepared.experiment, prepared.network
    size = chosen.batching.batch_size(len(prepared.dataset.train))
    kind = choose("fast", network, [chosen.optimizer] * 2, size)
    first, *later = (sum(p.nbytes for p in layer) for layer in prepared.parameters if layer)
    if kind is DeferredStack and sum(later) > _LATER:
        return range(0)
    state = chosen.optimizer.start(prepared.parameters)
    memory = (
        first + sum(later) + sum(m.nbytes for layer in state.buffers for of in layer for m in of)
    )
    for row in _MEASURED:
        if row.serves(kind, size, one_order, memory):
            return range(row.least, min(_MOST, row.together * _KIB // memory) + 1)
    return range(0)


def work(prepared: Prepared) -> int:
    """Return how much there is to compute, in products of a weight with a number."""
    experiment = prepared.experiment
    return parameter_count(prepared.network) * len(prepared.dataset.train) * experiment.epochs


def group(
    experiments: Sequence[Prepared], workers: int, most: int | None = None
) -> list[list[int]]:
    """Return the experiments by their numbers in groups that train together, the group with the most work first.

    No group has more than a worker's share of all the work, unless it is of one. As many train together
    as are quicker so, and no more than ``most``.
    """
    share = sum(map(work, experiments)) / workers
    groups: list[list[int]] = []
    for numbers in _alike(experiments):
        load = sum(work(experiments[n]) for n in numbers)
        one_order = len({_order(experiments[n]) for n in numbers}) == 1
        allowed = sizes(experiments[numbers[0]], one_order)
        allowed = range(allowed.start, min(allowed.stop, most + 1)) if most else allowed
        parts = math.ceil(max(len(numbers) / max(allowed, default=1), load / share) - 1e-9)
        divided = [part.tolist() for part in np.array_split(numbers, min(parts, len(numbers)))]
        groups += [numbers] if len(numbers) == 1 else _worth_it(divided, allowed)
    return sorted(groups, key=lambda numbers: -sum(work(experiments[n]) for n in numbers))


def _alike(experiments: Sequence[Prepared]) -> Iterator[list[int]]:
    """Yield the numbers of those that may train together, those of one order next to each other.

    Where it does not pay to train different orders together, each order has a list of its own.
    """
    alike: dict[Hashable, list[int]] = {}
    for number, prepared in enumerate(experiments):
        alike.setdefault(likeness(prepared) or number, []).append(number)
    for numbers in alike.values():
        orders: dict[Hashable, list[int]] = {}
        for n in numbers:
            orders.setdefault(_order(experiments[n]), []).append(n)
        if len(numbers) in (1, len(orders)) or sizes(experiments[numbers[0]], one_order=False):
            yield [n for own in orders.values() for n in own]
        else:
            yield from orders.values()


def _order(prepared: Prepared) -> Hashable:
    """Return what is equal where the same samples are seen in the same order."""
    chosen = prepared.experiment
    return prepared.dataset.digest, chosen.batching.order_by(chosen.seed)


def _worth_it(groups: Sequence[list[int]], allowed: range) -> list[list[int]]:
    """Return the groups; those that are too small to be quicker together, one by one."""
    return [
        own
        for numbers in groups
        for own in ([numbers] if len(numbers) in allowed else [[n] for n in numbers])
    ]

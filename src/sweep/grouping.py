"""Decides which jobs of a sweep train together, as stacks: it depends on the jobs alone.

The machine decides only how the stacks are distributed: a network's last bits depend on its stack,
and a sweep gives equal bytes on any number of cores.
"""

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from src.nn.network import parameter_count
from src.runs.experiment import Experiment, Prepared
from src.training.engines.base import Engine
from src.training.engines.batches import Batches
from src.training.engines.choice import choose
from src.training.engines.deferred_stack import DeferredStack

_KIB = 1024


@dataclass(frozen=True)
class Member:
    """What grouping needs to know of a job."""

    experiment: Experiment
    data_digest: str
    samples: int  # in the training set

    @staticmethod
    def of(prepared: Prepared) -> "Member":
        """Return what grouping needs of an experiment whose data is loaded."""
        dataset = prepared.dataset
        return Member(prepared.experiment, dataset.digest, len(dataset.train))

    @property
    def order(self) -> Hashable:
        """Equal for the members of an order group: they see the same samples in the same order."""
        chosen = self.experiment
        return self.data_digest, chosen.batching.order_by(chosen.seed)

    @property
    def work(self) -> int:
        """How much there is to compute, in products of a weight and an input."""
        chosen = self.experiment
        return parameter_count(chosen.model.layers) * self.samples * chosen.epochs


@dataclass(frozen=True)
class _Faster:
    """Where a stack was measured to be faster than its networks one after another."""

    engine: type[Engine]
    largest_batch: float
    one_order: bool  # whether the stack is a single order group
    each: int  # KiB that a network's weights and optimizer state may take
    stack: int  # KiB that those of the whole stack may take: more do not stay in the cache
    least: int  # networks

    def holds(self, engine: type[Engine], batch_size: int, one_order: bool, memory: float) -> bool:
        return (
            (self.engine, self.one_order) == (engine, one_order)
            and batch_size <= self.largest_batch
            and memory <= self.each * _KIB
        )


# From ``python -m tests.benchmarks.stacks``; the first row that holds counts.
_MEASURED = (
    _Faster(DeferredStack, 1, one_order=True, each=400, stack=12_800, least=8),
    _Faster(DeferredStack, 1, one_order=False, each=400, stack=12_800, least=8),
    _Faster(Batches, math.inf, one_order=True, each=200, stack=6_144, least=2),
    _Faster(Batches, math.inf, one_order=True, each=400, stack=6_144, least=4),
    _Faster(Batches, 64, one_order=False, each=200, stack=2_048, least=4),
    _Faster(Batches, math.inf, one_order=False, each=200, stack=1_024, least=4),
)
_LATER = 16 * _KIB  # bytes of weights after the first layer, up to which DeferredStack is faster
_LEAST_PIECES = 2  # stacks of a sweep's work: a second core has some, too
_PIECES_PER_WORKER = 3  # of a cluster
_WORTH_SENDING = 30_000_000_000  # products, about 2 s: the overhead of 0.1 s is below 5%
_LARGEST = 32  # networks: more bring next to nothing, and would leave cores idle


def likeness(member: Member) -> Hashable | None:
    """Return what must be equal for jobs to train in one stack; None for one that trains alone.

    They may differ in learning rate, schedule, stopping, seed, initializer, weight decay and in
    which samples they have, but not in how many.
    """
    chosen = member.experiment
    if chosen.engine == "plain":
        return None
    return (
        chosen.model,
        chosen.loss,
        chosen.batching,
        replace(chosen.optimizer, weight_decay=0.0),
        chosen.epochs,
        chosen.dtype,
        member.samples,
    )


def sizes(member: Member, one_order: bool) -> range:
    """Return how many networks like this one train faster in a stack; empty if no number does."""
    chosen = member.experiment
    layers = [(1 + n) * m for n, m in zip(chosen.model.sizes, chosen.model.sizes[1:], strict=False)]
    itemsize = np.dtype(chosen.dtype).itemsize
    batch_size = chosen.batching.batch_size(member.samples)
    engine = choose("fast", chosen.model.layers, [chosen.optimizer] * 2, batch_size)
    if engine is DeferredStack and sum(layers[1:]) * itemsize > _LATER:
        return range(0)
    memory = sum(layers) * itemsize * (1 + chosen.optimizer.buffer_count)
    for row in _MEASURED:
        if row.holds(engine, batch_size, one_order, memory):
            return range(row.least, min(_LARGEST, row.stack * _KIB // memory) + 1)
    return range(0)


def group(
    members: Sequence[Member], most: int | None = None, workers: int | None = None
) -> list[list[int]]:
    """Return the jobs by their numbers in groups, each to be trained as one stack.

    The group with the most work comes first. Stacks are as large as is faster, with at most
    ``most`` networks. A sweep's work is divided into a few stacks, so that several cores have some;
    for a cluster of ``workers``, into as many as it needs.
    """
    total = sum(member.work for member in members)
    pieces = _LEAST_PIECES if workers is None else _pieces(total, workers)
    groups: list[list[int]] = []
    for numbers in _alike(members):
        alike = [members[n] for n in numbers]
        share = sum(member.work for member in alike) / total
        parts = _parts(len(numbers), share * pieces, _allowed(alike, most))
        for part in np.array_split(numbers, parts):
            own = part.tolist()
            is_faster = len(own) in _allowed([members[n] for n in own], most)
            groups += [own] if is_faster else [[n] for n in own]
    return sorted(groups, key=lambda numbers: -sum(members[n].work for n in numbers))


def _allowed(alike: Sequence[Member], most: int | None) -> range:
    """Return how many of these jobs, which may train in one stack, train faster in one."""
    allowed = sizes(alike[0], one_order=len({member.order for member in alike}) == 1)
    return range(allowed.start, min(allowed.stop, most + 1)) if most else allowed


def _pieces(total: int, workers: int) -> int:
    """Return into how many stacks a sweep's work is divided for a cluster.

    With three per worker, the last ones end at about the same time. Each must be worth sending.
    """
    return max(_LEAST_PIECES, min(_PIECES_PER_WORKER * workers, total // _WORTH_SENDING))


def _parts(count: int, pieces: float, allowed: range) -> int:
    """Return into how many stacks networks are divided that are worth so many pieces of a sweep.

    Networks that are faster in a stack stay in stacks that are large enough for that.
    """
    needed = math.ceil(count / max(allowed, default=1))
    most = count // allowed.start if allowed and pieces > _LEAST_PIECES else count
    return min(count, max(needed, min(most, math.ceil(pieces))))


def _alike(members: Sequence[Member]) -> Iterator[list[int]]:
    """Yield the numbers of jobs that may train in one stack, those of an order group side by side.

    Each order group is yielded by itself where several in one stack are not faster.
    """
    alike: dict[Hashable, list[int]] = {}
    for number, member in enumerate(members):
        alike.setdefault(likeness(member) or number, []).append(number)
    for numbers in alike.values():
        orders: dict[Hashable, list[int]] = {}
        for n in numbers:
            orders.setdefault(members[n].order, []).append(n)
        single = len(numbers) in (1, len(orders))
        if single or sizes(members[numbers[0]], one_order=False):
            yield [n for own in orders.values() for n in own]
        else:
            yield from orders.values()

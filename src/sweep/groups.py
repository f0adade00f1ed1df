"""Which jobs of a sweep train side by side: those that differ in what a stack may differ in, and in no more."""

from collections.abc import Hashable, Sequence
from dataclasses import replace

from src.experiment import Prepared

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


def group(experiments: Sequence[Prepared], workers: int, most: int | None = None) -> list[list[int]]:
    """Return the experiments by their numbers in groups that train together, divided so that every worker has some.

    Those that see the same samples in the same order stand together: they share the most.
    """
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
        size = min(most or most_together(experiments[numbers[0]]), -(-len(numbers) // workers))
        groups += [numbers[start : start + size] for start in range(0, len(numbers), size)]
    return groups

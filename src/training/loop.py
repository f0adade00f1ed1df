"""The training loop: an iterator over epochs that knows no tracker, no configuration, no screen."""

import contextlib
import time
from collections.abc import Container, Hashable, Iterator, Sequence
from typing import Literal

import numpy as np

from src.nn.network import Parameters
from src.support.errors import Diverged
from src.support.threads import one_blas_thread
from src.training.engines.base import Engine, OrderGroup
from src.training.scoring import Score, scores
from src.training.training_run import Epoch, Progress, Trained, TrainingRun

Record = Epoch | Diverged | None


def train(
    runs: Sequence[TrainingRun],
    starts: Sequence[Parameters | Progress],
    *,
    engine: Literal["fast", "plain"] = "fast",
    left: Container[int] = (),
) -> Iterator[list[Record]]:
    """Train networks side by side and yield, epoch by epoch, a record of each.

    Each starts from its first parameters, or from the progress of an earlier training run; all must
    have come equally far. The runs may differ in learning rate, schedule, stopping, seed, weight
    decay and data. A network that diverges leaves with what ended it, one that stops early with its
    last record; None stands for those that have left. The others go on. The caller may add the
    numbers of more networks to ``left`` between two epochs.

    The fast engine computes what the plain one does, to rounding. BLAS runs on one thread, so that
    equal calls give equal bytes wherever they run.
    """
    begun = [
        start if isinstance(start, Progress) else run.begin(start)
        for run, start in zip(runs, starts, strict=True)
    ]
    assert len({progress.epoch for progress in begun}) <= 1
    active = {j: progress for j, progress in enumerate(begun) if not runs[j].has_ended(progress)}
    stack: _Stack | None = None
    while active:
        with _calm():
            stack = stack or _Stack(runs, active, engine)
            records = stack.epoch(active)
        yield [records.get(j) for j in range(len(runs))]
        for j, record in records.items():
            if isinstance(record, Epoch) and record.progress:
                active[j] = record.progress
            if isinstance(record, Diverged) or runs[j].has_ended(active[j]):
                del active[j]
                stack = None  # the others form a smaller one
        for j in [j for j in active if j in left]:
            del active[j]
            stack = None


def train_one(
    run: TrainingRun,
    start: Parameters | Progress,
    *,
    engine: Literal["fast", "plain"] = "fast",
) -> Iterator[Epoch]:
    """Train a single network and yield each epoch's record. Raises Diverged. See ``train``."""
    for (record,) in train([run], [start], engine=engine):
        if isinstance(record, Diverged):
            raise record
        if record:
            yield record


class _Stack:
    """The networks that are still trained, by order groups, and the engine that trains them."""

    def __init__(
        self,
        runs: Sequence[TrainingRun],
        progress: dict[int, Progress],
        engine: Literal["fast", "plain"],
    ) -> None:
        # SciPy, behind the engines, takes long to import: not before training starts.
        from src.training.engines.choice import choose

        start = time.perf_counter()
        by_order: dict[Hashable, list[int]] = {}
        for j in progress:
            run = runs[j]
            by_order.setdefault((run.data.place, run.batching.order_by(run.seed)), []).append(j)
        self.groups = list(by_order.values())
        self.numbers = [j for group in self.groups for j in group]
        self.runs = {j: runs[j] for j in self.numbers}
        first = runs[self.numbers[0]]
        optimizers = [run.optimizer for run in self.runs.values()]
        kind = choose(engine, first.network, optimizers, first.batch_size)
        self.engine: Engine = kind(
            first.network,
            [progress[j].parameters for j in self.numbers],
            [progress[j].state for j in self.numbers],
            [OrderGroup(runs[group[0]].data, len(group)) for group in self.groups],
            loss=first.loss,
            optimizers=optimizers,
            batch_size=first.batch_size,
        )
        self.preparation = time.perf_counter() - start

    def epoch(self, progress: dict[int, Progress]) -> dict[int, Epoch | Diverged]:
        """Train and score an epoch, and return the record of each network by its number."""
        start = time.perf_counter() - self.preparation
        self.preparation = 0.0
        number = progress[self.numbers[0]].epoch + 1
        orders = [self.runs[group[0]].order(number) for group in self.groups]
        rates = np.stack([run.rates(progress[j]) for j, run in self.runs.items()], axis=1)
        masks = [run.masks(number) for run in self.runs.values()]
        logits = self.engine.epoch(orders, rates, masks)
        seconds = (time.perf_counter() - start) / len(self.numbers)

        scored = self._scores()
        of_each = [order for order, group in zip(orders, self.groups, strict=True) for _ in group]
        records: dict[int, Epoch | Diverged] = {}
        for i, (j, run) in enumerate(self.runs.items()):
            trained = Trained(
                of_each[i],
                rates[:, i],
                logits[i],
                self.engine.parameters[i],
                self.engine.states[i],
            )
            try:
                records[j] = run.record(progress[j], trained, scored[i], seconds)
            except Diverged as error:
                records[j] = error
        return records

    def _scores(self) -> list[dict[str, Score]]:
        """Return the scores of each network on its sets; a shared set is read once for all."""
        sharing: dict[Hashable, list[tuple[int, str]]] = {}
        runs = list(self.runs.values())
        for i, run in enumerate(runs):
            for name, arrays in run.sets.items():
                if name != "train" or run.exact:
                    sharing.setdefault(arrays.place, []).append((i, name))
        found: list[dict[str, Score]] = [{} for _ in runs]
        for places in sharing.values():
            first, name = places[0]
            run = runs[first]
            own = [self.engine.parameters[i] for i, _ in places]
            values = scores(run.network, own, run.sets[name], run.loss)
            for (i, name), value in zip(places, values, strict=True):
                found[i][name] = value
        return found


@contextlib.contextmanager
def _calm() -> Iterator[None]:
    """Hold BLAS to one thread, and let numbers overflow: divergence is told in a sentence."""
    with one_blas_thread(), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        yield

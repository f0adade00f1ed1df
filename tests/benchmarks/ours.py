"""A training pass by this project: by the fastest engine, by the plain one, and by less."""

from dataclasses import replace
from typing import Any, Literal
from unittest.mock import patch

import numpy as np

from src.nn.initializers import Random, XavierNormal, Zeros
from src.nn.losses import SoftmaxCrossEntropy
from src.nn.network import Parameters
from src.support.randomness import stream
from src.support.threads import available_cores
from src.training.batching import Rows
from src.training.engines.base import Arrays, OrderGroup
from src.training.engines.choice import choose
from tests.benchmarks.images import Images
from tests.benchmarks.measuring import Runner
from tests.benchmarks.works import Work


def starts(work: Work) -> list[Parameters]:
    """Return where each network starts, ours and the others' alike."""
    drawn = Random(XavierNormal(), Zeros())
    return [
        drawn.initialize(work.network, stream(seed, "weights"), np.float32)
        for seed in range(work.models)
    ]


def rates(work: Work) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the learning rate of each network."""
    return np.linspace(work.lr, work.lr / 2, work.models)


def orders(work: Work, samples: int) -> list[Rows]:
    """Return the order of each group: shuffled, except for the full batch."""
    if work.size is None:
        return [slice(0, samples)] * work.lanes
    return [stream(seed, "order").permutation(samples) for seed in range(work.lanes)]


def chosen(work: Work, images: Images) -> Runner:
    """The fastest engine for the whole stack."""
    return _runner(work, images, work.samples, "fast")


def plain(work: Work, images: Images) -> Runner:
    """The engine that reads as the algorithm; of a stack, one network."""
    return _runner(replace(work, models=1, lanes=1), images, work.few, "plain")


def one_after_another(work: Work, images: Images) -> Runner | None:
    """One network of a stack, by the fastest engine for one."""
    if work.models == 1:
        return None
    return _runner(replace(work, models=1, lanes=1), images, work.samples, "fast")


def one_core(work: Work, images: Images) -> Runner | None:
    """The full batch as on a machine with one core, where there are more."""
    if work.models > 1 or work.size is not None or available_cores() == 1:
        return None
    with patch("src.training.engines.batches.available_cores", lambda: 1):
        return _runner(work, images, work.samples, "fast")


def _runner(work: Work, images: Images, samples: int, name: Literal["fast", "plain"]) -> Runner:
    data = Arrays(images.pixels[:samples], images.labels[:samples], 1 / 255, np.float32)
    size = work.size or samples
    own, optimizers = starts(work), [work.optimizer] * work.models
    engine = choose(name, work.network, optimizers, size)(
        work.network,
        own,
        [work.optimizer.start(p) for p in own],
        [OrderGroup(data, work.models // work.lanes) for _ in range(work.lanes)],
        loss=SoftmaxCrossEntropy(),
        optimizers=optimizers,
        batch_size=size,
    )
    of_each = np.tile(rates(work), (-(-samples // size), 1))
    order = orders(work, samples)
    masks = [stream(seed, "dropout") for seed in range(work.models)]
    threads = getattr(engine, "workers", 1)
    return Runner(
        lambda: engine.epoch(order, of_each, masks), samples * work.models, threads, calm=True
    )

"""A training pass by this project: by the engine that is chosen, by the plain one, and by less than the chosen one has."""

from typing import Any
from unittest.mock import patch

import numpy as np

from src.nn.initializers import Random, XavierNormal, Zeros
from src.nn.losses import SoftmaxCrossEntropy
from src.nn.network import Parameters
from src.support.randomness import stream
from src.support.threads import available_cores
from src.training.batching import Rows
from src.training.engines.base import Arrays
from src.training.engines.choice import choose, stack_kind
from src.training.engines.plain import Plain
from src.training.engines.stack import Lane
from src.training.optimizers import SGD
from tests.benchmarks.images import Images
from tests.benchmarks.measuring import Runner
from tests.benchmarks.works import Work

_SETTINGS: dict[str, Any] = {"loss": SoftmaxCrossEntropy(), "optimizer": SGD()}


def starts(work: Work) -> list[Parameters]:
    """Return where each network starts, ours and the others' alike."""
    drawn = Random(XavierNormal(), Zeros())
    return [
        drawn.initialize(work.network, stream(seed, "weights"), np.float32)
        for seed in range(work.models)
    ]


def rates(work: Work) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the learning rate of each network."""
    return np.linspace(work.lr / 2, work.lr, work.models)


def orders(work: Work, samples: int) -> list[Rows]:
    """Return the order of each lane: shuffled, but for the full batch."""
    if work.size is None:
        return [slice(0, samples)] * work.lanes
    return [stream(seed, "order").permutation(samples) for seed in range(work.lanes)]


def chosen(work: Work, images: Images) -> Runner:
    """The fastest way there is."""
    if work.models == 1:
        return _alone(work, images, work.samples, "chosen")
    data, size, updates = (
        _arrays(images, work.samples),
        work.size or work.samples,
        _updates(work, work.samples),
    )
    members = work.models // work.lanes
    own = starts(work)
    rules = [SGD() for _ in own]
    loss = SoftmaxCrossEntropy()
    stack = stack_kind(size, work.network, loss, rules)(
        work.network,
        own,
        [rule.start(p) for rule, p in zip(rules, own, strict=True)],
        [Lane(data, members) for _ in range(work.lanes)],
        loss=loss,
        optimizers=rules,
        size=size,
    )
    of_each = np.tile(rates(work), (updates, 1))
    order = orders(work, work.samples)
    threads = getattr(stack, "_workers", 1)
    return Runner(
        lambda: stack.epoch(order, of_each), work.samples * work.models, threads, calm=True
    )


def plain(work: Work, images: Images) -> Runner:
    """The code that reads as the algorithm; of a stack, one network."""
    return _alone(work, images, work.few, "plain")


def one_after_another(work: Work, images: Images) -> Runner | None:
    """One network of a stack, by the fastest way there is for one."""
    return _alone(work, images, work.samples, "chosen") if work.models > 1 else None


def one_core(work: Work, images: Images) -> Runner | None:
    """The full batch as on a machine with one core, where there are more."""
    if work.models > 1 or work.size is not None or available_cores() == 1:
        return None
    with patch("src.training.engines.chunked.available_cores", lambda: 1):
        return _alone(work, images, work.samples, "chosen")


def _alone(work: Work, images: Images, samples: int, kind: str) -> Runner:
    data, size = _arrays(images, samples), work.size or samples
    start, (order, *_) = starts(work)[0], orders(work, samples)
    if kind == "plain":
        engine: Any = Plain(work.network, start, data, **_SETTINGS)
    else:
        engine = choose(size, work.network, start, data, **_SETTINGS)
    of_each = [work.lr] * _updates(work, samples)
    masks = stream(0, "dropout")
    threads = getattr(engine, "_workers", 1)
    return Runner(lambda: engine.epoch(order, size, of_each, masks), samples, threads, calm=True)


def _arrays(images: Images, samples: int) -> Arrays:
    return Arrays(images.pixels[:samples], images.labels[:samples], 1 / 255, np.float32)


def _updates(work: Work, samples: int) -> int:
    return -(-samples // (work.size or samples))

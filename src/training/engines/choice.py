"""Which engine computes a combination fastest; the plain one supports all."""

from collections.abc import Sequence
from typing import Literal

from src.nn.network import Network
from src.training.engines.base import Engine
from src.training.engines.batches import Batches, supports_batches
from src.training.engines.deferred import Deferred, supports_deferral
from src.training.engines.deferred_stack import DeferredStack
from src.training.engines.plain import Plain
from src.training.optimizers import Optimizer


def choose(
    name: Literal["fast", "plain"],
    network: Network,
    optimizers: Sequence[Optimizer],
    batch_size: int,
) -> type[Engine]:
    """Return the engine for a stack of networks, one optimizer for each.

    ``plain`` is the textbook's engine, ``fast`` the fastest that supports the combination.
    """
    if name == "plain" or not supports_batches(network):
        return Plain
    if batch_size == 1 and supports_deferral(network, optimizers[0]):
        return Deferred if len(optimizers) == 1 else DeferredStack
    return Batches

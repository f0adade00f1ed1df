"""Which way of training serves a combination best; the plain one serves all."""

from collections.abc import Sequence

from src.nn.layers import Dropout
from src.nn.losses import Loss
from src.nn.network import Network, Parameters
from src.training.engines.base import Arrays, Engine
from src.training.engines.batched_stack import BatchedStack, PlainStack, serves_batches
from src.training.engines.buffered import Buffered
from src.training.engines.chunked import Chunked
from src.training.engines.deferred import Deferred, serves_samples
from src.training.engines.deferred_stack import DeferredStack
from src.training.engines.plain import Plain
from src.training.engines.stack import Stack
from src.training.optimizers import Optimizer


def choose(
    size: int,
    network: Network,
    parameters: Parameters,
    data: Arrays,
    *,
    loss: Loss,
    optimizer: Optimizer,
) -> Engine:
    """Return the fastest engine for updates of ``size`` samples each."""
    everything = size >= len(data.labels)
    if size == 1 and serves_samples(network, loss, optimizer):
        return Deferred(network, parameters, data, loss=loss, optimizer=optimizer)
    if not everything:
        return Buffered(network, parameters, data, loss=loss, optimizer=optimizer, rows=size)
    if any(isinstance(layer, Dropout) for layer in network):  # whose masks are drawn in one order
        return Plain(network, parameters, data, loss=loss, optimizer=optimizer)
    return Chunked(network, parameters, data, loss=loss, optimizer=optimizer)


def stack_kind(
    size: int, network: Network, loss: Loss, optimizers: Sequence[Optimizer]
) -> type[Stack]:
    """Return the fastest stack for updates of ``size`` samples each. None serves dropout."""
    if size == 1 and serves_samples(network, loss, optimizers[0]):
        return DeferredStack
    return BatchedStack if serves_batches(network, optimizers[0]) else PlainStack

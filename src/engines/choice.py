"""Which way of training serves a combination best; the plain one serves all."""

from src.engines.base import Arrays, Engine
from src.engines.buffered import Buffered
from src.engines.chunked import Chunked
from src.engines.deferred import Deferred, serves
from src.engines.plain import Plain
from src.nn.layers import Dropout
from src.nn.losses import Loss
from src.nn.network import Network, Parameters
from src.optimizers import Optimizer


def choose(
    network: Network, parameters: Parameters, data: Arrays, size: int, *, loss: Loss, optimizer: Optimizer
) -> Engine:
    """Return the fastest engine for updates of ``size`` samples each."""
    everything = size >= len(data.labels)
    if size == 1 and serves(network, loss, optimizer):
        return Deferred(network, parameters, data, loss=loss, optimizer=optimizer)
    if not everything:
        return Buffered(network, parameters, data, loss=loss, optimizer=optimizer, rows=size)
    if any(isinstance(layer, Dropout) for layer in network):  # whose masks are drawn in one order
        return Plain(network, parameters, data, loss=loss, optimizer=optimizer)
    return Chunked(network, parameters, data, loss=loss, optimizer=optimizer)

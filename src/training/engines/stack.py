"""Several networks of one shape trained side by side, each with its own weights, rate, order and data."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from src.nn.layers import Activation, Array, Dense, Identity
from src.nn.losses import Loss
from src.nn.network import Network, Parameters
from src.training.batching import Rows
from src.training.engines.base import Arrays
from src.training.optimizers import Optimizer, State


@dataclass(frozen=True)
class Lane:
    """What networks that see the same samples in the same order share; ``members`` of them stand side by side."""

    data: Arrays
    members: int


class Stack(ABC):
    """Trains a stack: the networks of the first lane come first, then those of the second, and so on."""

    def __init__(
        self,
        network: Network,
        parameters: Sequence[Parameters],
        states: Sequence[State],
        lanes: Sequence[Lane],
        *,
        loss: Loss,
        optimizers: Sequence[Optimizer],  # of one class, and equal but for their weight decay
        size: int,  # samples an update
    ) -> None:
        assert len(parameters) == sum(lane.members for lane in lanes)
        self.network, self.lanes, self.loss, self.optimizers, self.size = (
            network,
            lanes,
            loss,
            optimizers,
            size,
        )
        self.parameters, self.states = list(parameters), list(states)
        self.dense = [i for i, layer in enumerate(network) if isinstance(layer, Dense)]
        self.activation = next(
            (layer for layer in network if isinstance(layer, Activation)), Identity()
        )
        ends = list(accumulate(lane.members for lane in lanes))
        self.members = [
            range(end - lane.members, end) for lane, end in zip(lanes, ends, strict=True)
        ]
        self.columns = [slice(own.start, own.stop) for own in self.members]
        self.prepare()

    def prepare(self) -> None:
        """Make the memory that the epochs share."""

    @abstractmethod
    def epoch(self, orders: Sequence[Rows], rates: npt.NDArray[np.float64]) -> list[Array]:
        """Train each lane on its order; update u of network k is made at the rate ``rates[u, k]``.

        Returns for each network the logits (n, classes) of its passes, and replaces ``parameters`` and ``states``.
        """

"""What is measured, and the ratios that are required."""

from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from src.nn.layers import Activation, ReLU, Sigmoid
from src.nn.network import MLP, Network
from src.training.optimizers import SGD, Adam, Optimizer


@dataclass(frozen=True)
class Work:
    """One row of the table: a network, or a stack of them, trained for a pass over some samples."""

    hidden: tuple[int, ...]
    activation: Activation
    size: int | None  # samples an update; None for all of them
    samples: int  # a whole number of batches
    few: int  # samples for those that take long: the time of one is what counts
    models: int = 1
    lanes: int = 1  # how many orders the models are divided into
    optimizer: Optimizer = field(default_factory=SGD)
    dropout: float = 0.0

    @property
    def name(self) -> str:
        sizes = "-".join(map(str, self.mlp.sizes))
        batches = {None: "full batch", 1: "per sample"}.get(self.size, f"batch {self.size}")
        models = f"{self.models} × " if self.models > 1 else ""
        orders = f", {self.lanes} orders" if self.lanes > 1 else ""
        extras = f"{self._optimizer}{f', dropout {self.dropout:g}' if self.dropout else ''}"
        return f"{models}{sizes} {self.activation}, {batches}{orders}{extras}"

    @property
    def _optimizer(self) -> str:
        if isinstance(self.optimizer, Adam):
            return ", Adam"
        return ", momentum" if self.optimizer.buffer_count else ""

    @cached_property
    def mlp(self) -> MLP:
        return MLP(784, self.hidden, 10, self.activation, self.dropout)

    @property
    def network(self) -> Network:
        return self.mlp.layers

    @property
    def lr(self) -> float:
        if isinstance(self.optimizer, Adam):
            return 0.001
        return 0.01 if self.size == 1 else 0.1

    @property
    def flops(self) -> int:
        """The arithmetic of a sample as books count it: forward, for the weights, for the input.

        The first layer's input has no gradient; what is done to single numbers is left out.
        """
        sizes = self.mlp.sizes
        products = [fan_in * fan_out for fan_in, fan_out in pairwise(sizes)]
        return 2 * (3 * sum(products) - products[0])


_ALL = 59_904  # of MNIST's 60,000: a whole number of batches of 32 and of 128

WORKS = (
    Work((128,), ReLU(), 32, _ALL, _ALL),
    Work((100, 200), ReLU(), 32, _ALL, _ALL),
    Work((128,), ReLU(), 128, _ALL, _ALL),
    Work((128,), ReLU(), None, _ALL, _ALL),
    Work((16, 16), Sigmoid(), None, _ALL, _ALL),
    Work((10,), ReLU(), None, _ALL, _ALL),
    Work((128,), ReLU(), 1, 20_000, 2_000),
    Work((16, 16), Sigmoid(), 1, 20_000, 2_000),
    Work((16, 16), Sigmoid(), 1, 5_000, 2_000, models=64),
    Work((16, 16), Sigmoid(), 1, 2_000, 2_000, models=64, lanes=16),
    Work((16, 16), Sigmoid(), 32, 19_200, 19_200, models=16),
    Work((16, 16), Sigmoid(), None, _ALL, _ALL, models=8),
    Work((512,), ReLU(), 256, _ALL, _ALL),
    Work((128,), ReLU(), 32, _ALL, _ALL, optimizer=Adam()),
    Work((128,), ReLU(), 32, _ALL, _ALL, dropout=0.2),
    Work((128,), ReLU(), 1, 2_000, 2_000, optimizer=Adam()),
    Work((128,), ReLU(), 1, 20_000, 2_000, optimizer=SGD(momentum=0.9)),
    Work((16, 16), Sigmoid(), 1, 20_000, 2_000, optimizer=SGD(momentum=0.9)),
    Work((16, 16), Sigmoid(), 1, 2_000, 2_000, models=64, optimizer=SGD(momentum=0.9)),
    Work((16, 16), Sigmoid(), 32, 19_200, 19_200, models=16, optimizer=SGD(momentum=0.9)),
)

OURS, PLAIN, ALONE, ONE_CORE = "ours", "plain", "one after another", "one core"
PYTORCH, SKLEARN, JAX = "PyTorch", "scikit-learn", "JAX"
JAX_SAME = "JAX, same cores"
PEERS = (PYTORCH, SKLEARN, JAX, JAX_SAME)

# How many times longer each must take than ours.
REQUIRED: dict[str, dict[str, float]] = {
    "784-128-10 relu, batch 32": {PYTORCH: 2.0, SKLEARN: 3.2, JAX: 1.15, JAX_SAME: 1.0},
    "784-100-200-10 relu, batch 32": {PYTORCH: 2.0, SKLEARN: 3.2, JAX: 1.15, JAX_SAME: 1.0},
    "784-128-10 relu, batch 128": {PYTORCH: 1.5, SKLEARN: 1.3, JAX: 1.0, JAX_SAME: 1.0},
    "784-128-10 relu, full batch": {PYTORCH: 1.5, SKLEARN: 2.3, JAX: 1.5, ONE_CORE: 1.6},
    "784-16-16-10 sigmoid, full batch": {PYTORCH: 1.9, SKLEARN: 2.4, JAX: 1.6, ONE_CORE: 1.6},
    "784-10-10 relu, full batch": {ONE_CORE: 1.6},
    "784-128-10 relu, per sample": {PYTORCH: 15, SKLEARN: 18, JAX: 0.75},
    "784-16-16-10 sigmoid, per sample": {PYTORCH: 15, SKLEARN: 9, JAX: 0.4},
    "64 × 784-16-16-10 sigmoid, per sample": {PYTORCH: 120, JAX: 2.2, ALONE: 8},
    "16 × 784-16-16-10 sigmoid, batch 32": {PYTORCH: 10, JAX: 1.3, ALONE: 2.5},
    "8 × 784-16-16-10 sigmoid, full batch": {ALONE: 1.8},
}

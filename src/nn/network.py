"""A network is a list of layers; forward and backward are the same loop in two directions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from src.nn.layers import Activation, Array, Dense, Dropout, Layer
from src.support.errors import require

Network = tuple[Layer, ...]

# For each layer the tuple of its arrays, the weights first: ((W, b), (), (W, b), …).
Parameters = tuple[tuple[Array, ...], ...]


def forward(network: Network, parameters: Parameters, x: Array) -> list[Array]:
    """Carry ``x (..., batch, in)`` through the network.

    Returns the values between the layers, from the input to the logits: layer i maps
    ``values[i]`` to ``values[i + 1]``. ``backward`` needs them all.
    """
    values = [x]
    for layer, p in zip(network, parameters, strict=True):
        values.append(layer.forward(p, values[-1]))
    return values


def backward(
    network: Network, parameters: Parameters, values: Sequence[Array], dlogits: Array
) -> Parameters:
    """Carry the loss's gradient ``dlogits`` = ∂L/∂logits back to every parameter.

    Returns the gradients in the form of the parameters. The gradient for the input itself is
    never computed.
    """
    gradients: list[tuple[Array, ...]] = []
    dy = dlogits
    for i in reversed(range(len(network))):
        x, y = values[i], values[i + 1]
        gradients.append(network[i].parameter_gradients(x, dy))
        if i > 0:
            dy = network[i].input_gradient(parameters[i], x, y, dy)
    return tuple(reversed(gradients))


def with_masks(
    network: Network,
    parameters: Parameters,
    batch: tuple[int, ...],
    rng: np.random.Generator | Sequence[np.random.Generator],
) -> Parameters:
    """Return the parameters for one training pass: each dropout layer gets a mask (*batch, units).

    With a generator for each of the k networks of a stack, masks are (k, *batch, units).
    """
    dtype = next(array.dtype for layer in parameters for array in layer)

    def mask(layer: Dropout) -> Array:
        if isinstance(rng, np.random.Generator):
            return layer.mask(batch, rng, dtype)
        return np.stack([layer.mask(batch, own, dtype) for own in rng])

    return tuple(
        (mask(layer),) if isinstance(layer, Dropout) else p
        for layer, p in zip(network, parameters, strict=True)
    )


@dataclass(frozen=True)
class MLP:
    """A multilayer perceptron: dense layers with an activation between them, and logits at the end.

    ``dropout`` is the rate at which hidden units are silenced in training.
    """

    inputs: int
    hidden: tuple[int, ...]
    outputs: int
    activation: Activation
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require(self.inputs >= 1, "inputs", self.inputs, "must be 1 or more")
        require(
            all(units >= 1 for units in self.hidden),
            "hidden",
            list(self.hidden),
            "every layer needs 1 unit or more",
        )
        require(self.outputs >= 2, "outputs", self.outputs, "must be 2 or more, one for each class")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "must be 0 or more and below 1")

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of units from the input to the logits."""
        return self.inputs, *self.hidden, self.outputs

    @property
    def layers(self) -> Network:
        """The network, layer by layer."""
        layers: list[Layer] = []
        for fan_in, fan_out in zip(self.sizes, self.sizes[1:-1], strict=False):
            layers += [Dense(fan_in, fan_out), self.activation]
            if self.dropout:
                layers.append(Dropout(fan_out, self.dropout))
        return *layers, Dense(*self.sizes[-2:])

    def __str__(self) -> str:
        """Draw it: 784 ─ 16 sigmoid ─ 16 sigmoid ─ 10."""
        drawn = " ─ ".join(
            [
                str(self.inputs),
                *(f"{units} {self.activation}" for units in self.hidden),
                str(self.outputs),
            ]
        )
        return f"{drawn}, dropout {self.dropout:g}" if self.dropout else drawn


def parameter_count(network: Network) -> int:
    """Return how many numbers training adjusts."""
    return sum(rows * columns for layer in network for rows, columns in layer.parameter_shapes)

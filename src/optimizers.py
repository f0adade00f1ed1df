"""What an update does with the gradients."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from src.nn.network import Parameters


class Optimizer(ABC):
    """A rule that moves the parameters against their gradients."""

    @abstractmethod
    def update(self, parameters: Parameters, gradients: Parameters, lr: float) -> Parameters:
        """Return the parameters after one step with learning rate ``lr``."""


@dataclass(frozen=True)
class SGD(Optimizer):
    """Plain gradient descent: p ← p − lr · ∂L/∂p."""

    def update(self, parameters: Parameters, gradients: Parameters, lr: float) -> Parameters:
        return tuple(
            tuple(p - lr * g for p, g in zip(layer, layer_gradients, strict=True))
            for layer, layer_gradients in zip(parameters, gradients, strict=True)
        )

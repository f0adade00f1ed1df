"""Shows why a network learns or not: measures its layers and names what is wrong in a sentence."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from src.nn.layers import Activation, Array, Dense
from src.nn.network import Network, Parameters, forward

# A unit is saturated if its slope is below this share of the steepest one on nearly all samples.
_FLAT, _NEARLY_ALL = 0.05, 0.95
# A unit is dead if its slope is below this on every sample: no gradient passes through it.
_NO_SLOPE = 1e-6
# Weights count as equal if they differ by at most this share of the largest one: rounding
# separates weights that are equal in exact arithmetic.
_EQUAL = 1e-4

# From these shares of a layer's units on, and outside these update ratios, a layer has a finding.
# An update ratio of about 1e-3 is usual.
MANY_SATURATED, MANY_DEAD = 0.25, 0.4
HUGE_UPDATE, TINY_UPDATE = 0.1, 1e-7
# If the pre-activations spread wider than this, they start on the flat parts of a sigmoid.
_WIDE = 2.0


@dataclass(frozen=True)
class LayerState:
    """One weight layer and the activation after it, at one moment of training."""

    units: int
    saturated: int | None  # how many units; None if the activation cannot saturate or is missing
    dead: int | None  # how many units; None if units of the activation cannot die
    alike: bool  # whether all units have the same weights: then they keep them equal
    update_ratio: float  # ‖ΔW‖ / ‖W‖ of the update by one batch
    gradient_norm: float  # ‖∂L/∂W‖ on that batch
    spread: float  # the standard deviation of the pre-activations


def inspect(
    network: Network, parameters: Parameters, moved: Parameters, gradients: Parameters, x: Array
) -> tuple[LayerState, ...]:
    """Return the state of each weight layer of one network.

    Args:
        network: The layers.
        parameters: Of the network, before an update.
        moved: The parameters after the update.
        gradients: The gradients of the update.
        x: (samples, in), the samples on which the units are examined.
    """
    values = forward(network, parameters, x)
    states = []
    for i, layer in enumerate(network):
        if not isinstance(layer, Dense):
            continue
        W = parameters[i][0]
        activation = network[i + 1] if i + 1 < len(network) else None
        saturated = dead = None
        if isinstance(activation, Activation):
            slopes = np.abs(activation.derivative(values[i + 1], values[i + 2]))
            if activation.saturates:
                flat = (slopes < _FLAT * activation.steepest).mean(axis=0)
                saturated = int(np.count_nonzero(flat >= _NEARLY_ALL))
            else:
                dead = int(np.count_nonzero((slopes < _NO_SLOPE).all(axis=0)))
        states.append(
            LayerState(
                layer.fan_out,
                saturated,
                dead,
                alike=layer.fan_out > 1
                and float(np.ptp(W, axis=1).max()) <= _EQUAL * float(np.abs(W).max()),
                update_ratio=_norm(moved[i][0] - W) / (_norm(W) or 1.0),
                gradient_norm=_norm(gradients[i][0]),
                spread=float(values[i + 1].std(dtype=np.float64)),
            )
        )
    return tuple(states)


def measurements(states: Sequence[LayerState]) -> dict[str, float]:
    """Return the states as metrics by name, such as ``layer1/update_ratio``.

    ``layer1/saturated`` and ``layer1/dead`` are shares of the layer's units, from 0 to 1.
    """
    found: dict[str, float] = {}
    for number, state in enumerate(states, 1):
        layer = f"layer{number}"
        for name, count in (("saturated", state.saturated), ("dead", state.dead)):
            if count is not None:
                found[f"{layer}/{name}"] = count / state.units
        found |= {
            f"{layer}/update_ratio": state.update_ratio,
            f"{layer}/gradient_norm": state.gradient_norm,
        }
    return found


def findings(network: Network, history: Mapping[int, Sequence[LayerState]]) -> list[str]:
    """Return a sentence for each layer in which something is wrong at the end of training.

    ``history`` holds the states of the layers by epoch; epoch 0 is before the first update.
    """
    epochs = sorted(history)
    dense = [layer for layer in network if isinstance(layer, Dense)]
    troubles = (
        (k, _trouble(layer, epochs, [history[epoch][k] for epoch in epochs]))
        for k, layer in enumerate(dense)
    )
    return [f"layer {k + 1}: {trouble}" for k, trouble in troubles if trouble] if epochs else []


def _trouble(layer: Dense, epochs: Sequence[int], states: Sequence[LayerState]) -> str | None:
    """Return the most serious fault of one layer at the end and since when it has it, if any."""
    first, last = states[0], states[-1]

    def since(wrong: Callable[[LayerState], bool]) -> str | None:
        """Return since when a fault has lasted; None if it is not there at the end."""
        start = None
        for epoch, state in zip(reversed(epochs), reversed(states), strict=True):
            if not wrong(state):
                break
            start = epoch
        if start is None:
            return None
        return "from the start" if start == 0 else f"from epoch {start}"

    if when := since(lambda state: state.alike):
        return (
            f"its {last.units} units have had equal weights {when}: equal gradients keep them equal"
        )
    if when := since(lambda state: (state.saturated or 0) >= MANY_SATURATED * state.units):
        remedy = "a smaller lr may help"
        if first.spread > _WIDE:
            remedy = f"the initializer is wide for {layer.fan_in} inputs"
        return f"{last.saturated} of {last.units} units saturated {when}; {remedy}"
    if when := since(lambda state: (state.dead or 0) >= MANY_DEAD * state.units):
        remedy = "another initializer" if when == "from the start" else "a smaller lr"
        return f"{last.dead} of {last.units} units dead {when}; {remedy} or leaky_relu may help"
    if when := since(lambda state: state.gradient_norm == 0):
        return (
            f"its gradient is 0 {when}: its inputs are 0, or the layers after it pass no gradient"
        )
    if when := since(lambda state: state.update_ratio < TINY_UPDATE):
        return (
            f"an update changes its weights by less than {TINY_UPDATE:g} of their norm {when}: "
            "it hardly learns, a larger lr may help"
        )
    if when := since(lambda state: state.update_ratio > HUGE_UPDATE):
        return (
            f"an update changes its weights by {last.update_ratio:.0%} of their norm {when}: "
            "lr is too large for these weights"
        )
    return None


def _norm(array: Array) -> float:
    """Return the Euclidean norm, summed in float64."""
    return float(np.sqrt(np.square(array, dtype=np.float64).sum()))

"""Why a network learns or doesn't: what its layers do on some samples, and one plain sentence where something is wrong."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from src.nn.layers import Activation, Array, Dense
from src.nn.network import Network, Parameters, forward

# A unit is saturated where its slope is under this share of the greatest one, on at least that share of the samples.
_FLAT, _NEARLY_ALL = 0.05, 0.95
# A unit is dead whose slope is under this on every sample: nothing passes back through it.
_NOTHING = 1e-6
# Weights are equal that differ by no more than this share of the greatest: rounding parts what mathematics would not.
_EQUAL = 1e-4

# When a sentence is due: shares of a layer's units, and of its weights that one update moves. A ratio about 1e-3 is usual.
_MANY_SATURATED, _MANY_DEAD = 0.25, 0.4
_HUGE_UPDATE, _TINY_UPDATE = 0.1, 1e-7
_WIDE = (
    2.0  # pre-activations of a greater deviation than this start out on the flat parts of a sigmoid
)


@dataclass(frozen=True)
class LayerState:
    """One weight layer with the activation after it, at one moment of training."""

    units: int
    saturated: (
        int | None
    )  # of the units; None where the activation can't saturate, or there is none
    dead: int | None  # of the units; None where the activation can't die, or there is none
    alike: bool  # whether all units have the same weights, and so will always have
    update_ratio: float  # ‖ΔW‖ / ‖W‖ of an update by one batch
    gradient_norm: float  # ‖∂L/∂W‖ in that batch
    spread: float  # the standard deviation of the pre-activations


def inspect(
    network: Network, parameters: Parameters, moved: Parameters, gradients: Parameters, x: Array
) -> tuple[LayerState, ...]:
    """Return the state of each weight layer of one network.

    ``gradients`` would bring the parameters to those ``moved``; ``x (samples, in)`` is what the units are looked at with.
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
                dead = int(np.count_nonzero((slopes < _NOTHING).all(axis=0)))
        states.append(
            LayerState(
                layer.fan_out,
                saturated,
                dead,
                alike=layer.fan_out > 1
                and float(np.ptp(W, axis=1).max()) <= _EQUAL * float(np.abs(W).max()),
                update_ratio=_length(moved[i][0] - W) / (_length(W) or 1.0),
                gradient_norm=_length(gradients[i][0]),
                spread=float(values[i + 1].std(dtype=np.float64)),
            )
        )
    return tuple(states)


def measurements(states: Sequence[LayerState]) -> dict[str, float]:
    """Return the states as metrics: ``layer1/saturated`` and ``layer1/dead`` are shares of the layer's units."""
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
    """Return a sentence for each layer in which something is wrong at the end.

    ``history`` gives the states by epoch, 0 being the start.
    """
    epochs = sorted(history)
    dense = [layer for layer in network if isinstance(layer, Dense)]
    troubles = (
        (k, _trouble(layer, epochs, [history[epoch][k] for epoch in epochs]))
        for k, layer in enumerate(dense)
    )
    return [f"layer {k + 1}: {trouble}" for k, trouble in troubles if trouble] if epochs else []


def _trouble(layer: Dense, epochs: Sequence[int], states: Sequence[LayerState]) -> str | None:
    """Return what is wrong with one layer at the end, the gravest thing first, and since when it has been so."""
    first, last = states[0], states[-1]

    def since(wrong: Callable[[LayerState], bool]) -> str | None:
        """Return from when on something was wrong until the end; None where it is not wrong at the end."""
        start = None
        for epoch, state in zip(reversed(epochs), reversed(states), strict=True):
            if not wrong(state):
                break
            start = epoch
        return None if start is None else "from the start" if start == 0 else f"from epoch {start}"

    if when := since(lambda state: state.alike):
        return f"its {last.units} units have had equal weights {when}: equal gradients will keep them so"
    if when := since(lambda state: (state.saturated or 0) >= _MANY_SATURATED * state.units):
        wide = first.spread > _WIDE
        why = (
            f"the initializer is wide for {layer.fan_in} inputs"
            if wide
            else "a smaller lr may help"
        )
        return f"{last.saturated} of {last.units} units saturated {when}; {why}"
    if when := since(lambda state: (state.dead or 0) >= _MANY_DEAD * state.units):
        remedy = "another initializer" if when == "from the start" else "a smaller lr"
        return f"{last.dead} of {last.units} units dead {when}; {remedy} or leaky_relu may help"
    if when := since(lambda state: state.gradient_norm == 0):
        return (
            f"its gradient is 0 {when}: its inputs are 0, or the layers after it pass nothing back"
        )
    if when := since(lambda state: state.update_ratio < _TINY_UPDATE):
        return f"an update moves its weights by less than {_TINY_UPDATE:g} of their size {when}: it hardly learns"
    if when := since(lambda state: state.update_ratio > _HUGE_UPDATE):
        return f"an update moves its weights by {last.update_ratio:.0%} of their size {when}: lr is large for such weights"
    return None


def _length(array: Array) -> float:
    return float(np.sqrt(np.square(array, dtype=np.float64).sum()))

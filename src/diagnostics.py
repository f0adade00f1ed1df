"""Why a network learns or doesn't: what its layers do on some samples, and one plain sentence where something is wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from src.nn.layers import Activation, Array, Dense
from src.nn.network import Network, Parameters, forward

# A unit is saturated where its slope is under this share of the greatest one, on at least that share of the samples.
_FLAT, _NEARLY_ALL = 0.05, 0.95
# A unit is dead whose slope is under this on every sample: nothing passes back through it.
_NOTHING = 1e-6

# When a sentence is due: shares of a layer's units, and of its weights that one update moves. A ratio about 1e-3 is usual.
_MANY_SATURATED, _MANY_DEAD = 0.25, 0.4
_HUGE_UPDATE, _TINY_UPDATE = 0.1, 1e-7
_WIDE = 2.0  # pre-activations of a greater deviation than this start out on the flat parts of a sigmoid


@dataclass(frozen=True)
class LayerState:
    """One weight layer with the activation after it, at one moment of training."""

    units: int
    saturated: int | None  # of the units; None where the activation can't saturate, or there is none
    dead: int | None  # of the units; None where the activation can't die, or there is none
    update_ratio: float  # ‖ΔW‖ / ‖W‖ of the last update
    gradient_norm: float  # ‖∂L/∂W‖ in the last update's batch
    spread: float  # the standard deviation of the pre-activations


def inspect(
    network: Network, before: Parameters, parameters: Parameters, gradients: Parameters, x: Array
) -> tuple[LayerState, ...]:
    """Return the state of each weight layer of one network.

    ``gradients`` led from the parameters ``before`` the last update to those of now; ``x (samples, in)`` is what the
    units are looked at with.
    """
    values = forward(network, parameters, x)
    states = []
    for i, layer in enumerate(network):
        if not isinstance(layer, Dense):
            continue
        W, moved = parameters[i][0], parameters[i][0] - before[i][0]
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
                _length(moved) / (_length(W) or 1.0),
                _length(gradients[i][0]),
                float(values[i + 1].std(dtype=np.float64)),
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
        found |= {f"{layer}/update_ratio": state.update_ratio, f"{layer}/gradient_norm": state.gradient_norm}
    return found


def findings(network: Network, history: Mapping[int, Sequence[LayerState]]) -> list[str]:
    """Return a sentence for each layer in which something is wrong at the end; ``history`` gives the states by epoch."""
    if not history:
        return []
    dense = [layer for layer in network if isinstance(layer, Dense)]
    epochs = sorted(history)
    sentences = []
    for k, layer in enumerate(dense):
        by_epoch = {epoch: history[epoch][k] for epoch in epochs}
        if trouble := _trouble(by_epoch, layer):
            sentences.append(f"layer {k + 1}: {trouble}")
    return sentences


def _trouble(states: Mapping[int, LayerState], layer: Dense) -> str | None:
    """Return what is wrong with one layer, the gravest thing first, and since when."""
    first, last = states[min(states)], states[max(states)]

    def since(holds: Sequence[bool]) -> str:
        """Name the epoch from which on something held until the end."""
        start = len(holds) - next((i for i, held in enumerate(reversed(holds)) if not held), len(holds))
        epoch = sorted(states)[start]
        return "from the start" if start == 0 else f"from epoch {epoch}"

    in_order = [states[epoch] for epoch in sorted(states)]
    if last.saturated is not None and last.saturated / last.units >= _MANY_SATURATED:
        when = since([(s.saturated or 0) / s.units >= _MANY_SATURATED for s in in_order])
        wide = when == "from the start" and first.spread > _WIDE
        why = f"the initializer is wide for {layer.fan_in} inputs" if wide else "a smaller lr may help"
        return f"{last.saturated} of {last.units} units saturated {when}; {why}"
    if last.dead is not None and last.dead / last.units >= _MANY_DEAD:
        when = since([(s.dead or 0) / s.units >= _MANY_DEAD for s in in_order])
        return (
            f"{last.dead} of {last.units} units dead {when}; a smaller lr, another initializer or leaky_relu may help"
        )
    if last.gradient_norm == 0:
        when = since([s.gradient_norm == 0 for s in in_order])
        return f"no gradient reaches it {when}; the layers after it pass nothing back"
    if last.update_ratio > _HUGE_UPDATE:
        when = since([s.update_ratio > _HUGE_UPDATE for s in in_order])
        return f"each update moves the weights by {last.update_ratio:.0%} of their size {when}; a smaller lr may help"
    if last.update_ratio < _TINY_UPDATE:
        when = since([s.update_ratio < _TINY_UPDATE for s in in_order])
        return f"each update moves the weights by {last.update_ratio:.0e} of their size {when}: it hardly learns"
    return None


def _length(array: Array) -> float:
    return float(np.sqrt(np.square(array, dtype=np.float64).sum()))

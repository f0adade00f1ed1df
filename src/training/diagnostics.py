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
                alike=are_alike(W),
                update_ratio=_norm(moved[i][0] - W) / (_norm(W) or 1.0),
                gradient_norm=_norm(gradients[i][0]),
                spread=float(values[i + 1].std(dtype=np.float64)),
            )
        )
    return tuple(states)


def are_alike(weights: Array) -> bool:
    """Tell whether all units of a layer with ``weights (in, units)`` have the same weights."""
    if weights.shape[1] < 2:
        return False
    return float(np.ptp(weights, axis=1).max()) <= _EQUAL * float(np.abs(weights).max())


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
        (k, _trouble(layer, _Looks(epochs, [history[epoch][k] for epoch in epochs])))
        for k, layer in enumerate(dense)
    )
    return [f"layer {k + 1}: {trouble}" for k, trouble in troubles if trouble] if epochs else []


@dataclass(frozen=True)
class _Looks:
    """The states of one layer at the epochs that were looked at."""

    epochs: Sequence[int]
    states: Sequence[LayerState]

    def since(self, wrong: Callable[[LayerState], bool]) -> int | None:
        """Return at which look a fault began that has lasted to the end; None if it is over."""
        start = None
        for look in reversed(range(len(self.states))):
            if not wrong(self.states[look]):
                break
            start = look
        return start

    def when(self, wrong: Callable[[LayerState], bool]) -> str | None:
        """Return since when a fault has lasted, in words; None if it is not there at the end."""
        start = self.since(wrong)
        return None if start is None else self._from(start)

    def grown(
        self, wrong: Callable[[LayerState], bool], said: Callable[[LayerState], str], noun: str = ""
    ) -> str | None:
        """Return what was measured of a fault when it began and at the end, each with its epoch.

        ``said`` puts a measurement into words, and ``noun`` follows the first one. None if the
        fault is not there at the end.
        """
        start = self.since(wrong)
        if start is None:
            return None
        begun, ended = said(self.states[start]), said(self.states[-1])
        if begun == ended:
            return f"{ended}{noun} {self._from(start)}"
        epoch = self.epochs[start]
        place = "at the start" if epoch == 0 else f"at epoch {epoch}"
        return f"{begun}{noun} {place}, {ended} at epoch {self.epochs[-1]}"

    def _from(self, look: int) -> str:
        epoch = self.epochs[look]
        return "from the start" if epoch == 0 else f"from epoch {epoch}"


def _trouble(layer: Dense, looks: _Looks) -> str | None:
    """Return the most serious fault of one layer at the end and since when it has it, if any."""
    units = looks.states[-1].units
    if when := looks.when(lambda state: state.alike):
        return f"its {units} units have had equal weights {when}: equal gradients keep them equal"
    many = f" of {units} units"
    if said := looks.grown(_is_saturated, lambda state: str(state.saturated), f"{many} saturated"):
        wide = looks.states[0].spread > _WIDE
        remedy = f"the initializer is wide for {layer.fan_in} inputs"
        return f"{said}; {remedy if wide else 'a smaller lr may help'}"
    if said := looks.grown(_is_dead, lambda state: str(state.dead), f"{many} dead"):
        at_start = looks.epochs[looks.since(_is_dead) or 0] == 0
        remedy = "another initializer" if at_start else "a smaller lr"
        return f"{said}; {remedy} or leaky_relu may help"
    if when := looks.when(lambda state: state.gradient_norm == 0):
        return (
            f"its gradient is 0 {when}: its inputs are 0, or the layers after it pass no gradient"
        )
    if when := looks.when(lambda state: state.update_ratio < TINY_UPDATE):
        return (
            f"an update changes its weights by less than {TINY_UPDATE:g} of their norm {when}: "
            "it hardly learns, a larger lr may help"
        )
    if said := looks.grown(_is_thrown, lambda state: f"{state.update_ratio:.0%}", " of their norm"):
        return f"an update changes its weights by {said}: lr is too large for these weights"
    return None


def _is_saturated(state: LayerState) -> bool:
    return (state.saturated or 0) >= MANY_SATURATED * state.units


def _is_dead(state: LayerState) -> bool:
    return (state.dead or 0) >= MANY_DEAD * state.units


def _is_thrown(state: LayerState) -> bool:
    return state.update_ratio > HUGE_UPDATE


def _norm(array: Array) -> float:
    """Return the Euclidean norm, summed in float64."""
    return float(np.sqrt(np.square(array, dtype=np.float64).sum()))

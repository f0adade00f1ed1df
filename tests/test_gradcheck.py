"""The gradient check passes a correct gradient, finds a wrong one and names it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from src.nn import gradcheck
from src.nn.initializers import HeNormal, Normal, Random, XavierNormal, Zeros
from src.nn.layers import GELU, Activation, Array, Identity, LeakyReLU, ReLU, Sigmoid, Tanh
from src.nn.losses import Loss, SigmoidCrossEntropy, SoftmaxCrossEntropy, SquaredError
from src.nn.network import MLP, Network, Parameters, backward
from src.support.randomness import stream

X, LABELS = np.random.default_rng(0).random((10, 30)).astype(np.float32), np.arange(10) % 3


def checked(
    activation: Activation, loss: Loss, hidden: tuple[int, ...] = (8, 7)
) -> gradcheck.Check:
    network = MLP(30, hidden, 3, activation).layers
    parameters = Random(HeNormal(), XavierNormal()).initialize(
        network, stream(0, "weights"), np.float32
    )
    kept = [p.copy() for layer in parameters for p in layer]
    found = gradcheck.check_gradient(network, parameters, loss, X, LABELS)
    for p, before in zip((p for layer in parameters for p in layer), kept, strict=True):
        np.testing.assert_array_equal(p, before)  # the check works on copies
    return found


@pytest.mark.parametrize(
    "loss", [SoftmaxCrossEntropy(0.1), SigmoidCrossEntropy(), SquaredError(Sigmoid())], ids=str
)
@pytest.mark.parametrize(
    "activation", [ReLU(), LeakyReLU(), Tanh(), Sigmoid(), GELU(), Identity()], ids=str
)
def test_a_right_gradient_passes(activation: Activation, loss: Loss) -> None:
    found = checked(activation, loss)
    assert found.passed
    assert found.worst.error < 1e-6
    assert found.checked + found.skipped >= 3 * (20 + 3)


@pytest.mark.parametrize("place", [(0, 0), (0, 1), (2, 0), (4, 0), (4, 1)])
@pytest.mark.parametrize(
    "fault",
    [
        lambda g: -g,
        lambda g: 1.001 * g,
        lambda g: g[..., ::-1],
        lambda g: 0 * g,
        lambda g: np.nan * g,
    ],
)
def test_a_wrong_gradient_is_found_and_named(
    place: tuple[int, int], fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, array = place

    def wrong(
        network: Network, parameters: Parameters, values: Sequence[Array], dlogits: Array
    ) -> Parameters:
        gradients = [list(of_layer) for of_layer in backward(network, parameters, values, dlogits)]
        gradients[layer][array] = fault(gradients[layer][array])
        return tuple(tuple(of_layer) for of_layer in gradients)

    monkeypatch.setattr(gradcheck, "backward", wrong)
    found = checked(Tanh(), SoftmaxCrossEntropy())
    assert not found.passed
    assert found.worst.name.startswith(f"{'Wb'[array]}{layer // 2 + 1}[")
    assert f"by backpropagation {found.worst.backpropagation:.12g}" in str(found)
    assert f"by centred differences {found.worst.differences:.12g}" in str(found)


def test_no_difference_is_taken_across_a_corner() -> None:
    network = MLP(30, (4,), 3, ReLU()).layers
    parameters = Random(Zeros(), Zeros(), output=XavierNormal()).initialize(
        network, stream(0, "weights"), np.float64
    )
    found = gradcheck.check_gradient(
        network, parameters, SoftmaxCrossEntropy(), X, LABELS
    )  # every unit is at its corner
    assert found.skipped > 0
    assert found.passed
    assert f"{found.skipped} at corners skipped" in str(found)


@dataclass(frozen=True)
class Clipped(Activation):
    """min(x, 1), whose corner is not at 0."""

    corners: ClassVar[tuple[float, ...]] = (1.0,)

    def apply(self, x: Array) -> Array:
        return np.minimum(x, 1)

    def derivative(self, x: Array, y: Array) -> Array:
        return (x < 1).astype(x.dtype)


def test_a_corner_is_where_its_activation_declares_it() -> None:
    network = MLP(30, (4,), 3, Clipped()).layers
    start = Random(Zeros(), Zeros(), output=XavierNormal()).initialize(
        network, stream(0, "weights"), np.float64
    )
    (W1, b1), *rest = start
    at_the_corner = ((W1, b1 + 1), *rest)
    found = gradcheck.check_gradient(network, at_the_corner, SoftmaxCrossEntropy(), X, LABELS)
    assert found.skipped > 0
    assert found.passed
    elsewhere = gradcheck.check_gradient(network, start, SoftmaxCrossEntropy(), X, LABELS)
    assert (elsewhere.skipped, elsewhere.passed) == (0, True)


def test_every_entry_of_a_small_network_is_checked_or_skipped() -> None:
    network = MLP(5, (4,), 3, ReLU()).layers
    start = Random(Zeros(), Zeros(), output=XavierNormal()).initialize(
        network, stream(0, "weights"), np.float64
    )
    found = gradcheck.check_gradient(network, start, SoftmaxCrossEntropy(), X[:, :5], LABELS)
    assert (found.skipped, found.checked) == (5 * 4 + 4, 4 * 3 + 3)


def test_a_check_that_skips_every_entry_passes_and_says_so() -> None:
    network = MLP(5, (), 3, Identity()).layers
    start = Random(Zeros(), Zeros()).initialize(network, stream(0, "weights"), np.float64)
    found = gradcheck.check_gradient(network, start, SquaredError(ReLU()), X[:, :5], LABELS)
    assert found.passed
    assert str(found).startswith("worst of 0 entries (18 at corners skipped): none")


def test_values_that_are_not_finite_do_not_pass() -> None:
    network = MLP(30, (4,), 3, Identity()).layers
    start = Random(Normal(0, 1e200), Zeros()).initialize(network, stream(0, "weights"), np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        found = gradcheck.check_gradient(network, start, SoftmaxCrossEntropy(), X, LABELS)
    assert not found.passed
    assert found.worst.error == np.inf


def test_the_corner_of_an_output_is_one_too() -> None:
    network = MLP(30, (4,), 3, Tanh()).layers
    start = Random(XavierNormal(), Zeros(), output=Zeros()).initialize(
        network, stream(0, "weights"), np.float64
    )
    found = gradcheck.check_gradient(network, start, SquaredError(ReLU()), X, LABELS)
    assert found.skipped > 0
    assert found.passed

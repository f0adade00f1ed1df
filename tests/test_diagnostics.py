"""What is said of a network's layers, on networks that are ill in a known way."""

import re

import numpy as np
import pytest

from src.nn.initializers import Random, Uniform, XavierNormal, Zeros
from src.nn.layers import Activation, LeakyReLU, ReLU, Sigmoid, Tanh
from src.nn.losses import SoftmaxCrossEntropy
from src.nn.network import MLP, Parameters, backward, forward
from src.support.randomness import stream
from src.training.batching import Full, Mini
from src.training.diagnostics import LayerState, findings, inspect, measurements
from src.training.optimizers import SGD
from tests.test_training import blobs, follow


def one_unit_each(z: list[float], activation: Activation) -> tuple[LayerState, ...]:
    """Inspect a layer whose units have these pre-activations on every sample."""
    network = MLP(1, (len(z),), 2, activation).layers
    parameters: Parameters = (
        (np.zeros((1, len(z))), np.array([z])),
        (),
        (np.ones((len(z), 2)), np.zeros((1, 2))),
    )
    return inspect(network, parameters, parameters, parameters, np.zeros((5, 1)))


def test_a_sigmoid_is_saturated_on_its_flat_parts() -> None:
    first, last = one_unit_each(
        [0.0, 4.0, 4.5, -4.5, -100.0], Sigmoid()
    )  # a slope of 5% of the greatest is at ±4.36
    assert (first.saturated, first.dead, first.units) == (3, None, 5)
    assert (last.saturated, last.dead) == (None, None)
    assert measurements((first, last))["layer1/saturated"] == 0.6
    assert one_unit_each([0.0, 2.0, 2.3, -3.0], Tanh())[0].saturated == 2  # at ±2.18


def test_a_relu_is_dead_that_is_zero_on_every_sample() -> None:
    assert one_unit_each([1.0, -1.0, 0.0], ReLU())[0].dead == 2
    assert one_unit_each([1.0, -1.0, 0.0], LeakyReLU())[0].dead == 0
    network = MLP(1, (2,), 2, ReLU()).layers
    parameters: Parameters = (
        (np.array([[1.0, 1.0]]), np.array([[-4.0, -3.5]])),
        (),
        (np.ones((2, 2)), np.zeros((1, 2))),
    )
    x = np.array([[0.0], [1], [2], [3], [4]])
    assert (
        inspect(network, parameters, parameters, parameters, x)[0].dead == 1
    )  # the other one lives on one sample


def test_updates_and_gradients_are_measured_by_their_length() -> None:
    network = MLP(2, (), 2, ReLU()).layers
    before: Parameters = ((np.array([[3.0, 0], [0, 1]]), np.zeros((1, 2))),)
    now: Parameters = ((np.array([[3.0, 0], [0, 4]]), np.zeros((1, 2))),)
    gradients: Parameters = ((np.array([[0.0, 6], [8, 0]]), np.full((1, 2), 99.0)),)
    (state,) = inspect(network, now, before, gradients, np.zeros((1, 2)))
    assert (state.update_ratio, state.gradient_norm) == (3 / 5, 10)
    assert measurements([state]) == {"layer1/update_ratio": 3 / 5, "layer1/gradient_norm": 10}


def test_the_loop_looks_at_the_first_every_nth_and_the_last_epoch() -> None:
    network = MLP(6, (5,), 3, Sigmoid()).layers
    parameters = Random(XavierNormal(), Zeros()).initialize(
        network, stream(0, "weights"), np.float64
    )
    data = blobs(50, 1)
    history = list(
        follow(
            network,
            parameters,
            {"train": data},
            loss=SoftmaxCrossEntropy(),
            batching=Full(),
            optimizer=SGD(),
            lr=0.5,
            epochs=7,
            seed=0,
            inspect_every=3,
        )
    )
    assert [epoch.number for epoch in history if epoch.layers] == [1, 3, 6, 7]
    now, then = (
        history[5].parameters,
        history[6].parameters,
    )  # with full batches, the next update is the one foretold
    values = forward(network, now, data.x)
    gradients = backward(
        network, now, values, SoftmaxCrossEntropy().gradient(values[-1], data.labels)
    )
    for k, state in zip((0, 2), history[5].layers, strict=True):
        moved = np.linalg.norm(then[k][0] - now[k][0]) / np.linalg.norm(now[k][0])
        assert state.update_ratio == pytest.approx(moved, rel=1e-9)
        np.testing.assert_allclose(state.gradient_norm, np.linalg.norm(gradients[k][0]), rtol=1e-9)


def told(
    initializer: Random, activation: Activation, *, lr: float = 0.1, epochs: int = 6
) -> list[str]:
    """Train and return the findings for these first weights and this learning rate."""
    network = MLP(6, (8, 8), 3, activation).layers
    parameters = initializer.initialize(network, stream(0, "weights"), np.float64)
    data = blobs(50, 1)
    values = forward(network, parameters, data.x)
    gradients = backward(
        network, parameters, values, SoftmaxCrossEntropy().gradient(values[-1], data.labels)
    )
    looks = {
        0: inspect(
            network,
            parameters,
            SGD().update(parameters, gradients, SGD().start(parameters), lr)[0],
            gradients,
            data.x,
        )
    }
    for epoch in follow(
        network,
        parameters,
        {"train": data},
        loss=SoftmaxCrossEntropy(),
        batching=Mini(10),
        optimizer=SGD(),
        lr=lr,
        epochs=epochs,
        seed=0,
        inspect_every=2,
    ):
        if epoch.layers:
            looks[epoch.number] = epoch.layers
    return findings(network, looks)


XAVIER = Random(XavierNormal(), Zeros())


@pytest.mark.parametrize("activation", [Sigmoid(), Tanh(), ReLU(), LeakyReLU()], ids=str)
def test_nothing_is_said_of_a_healthy_network(activation: Activation) -> None:
    assert told(XAVIER, activation) == []


def test_a_wide_initializer_is_told_by_what_it_saturates() -> None:
    first, *_ = told(Random(Uniform(-20, 20), Zeros()), Sigmoid(), lr=1e-3)
    assert first.startswith("layer 1: ")
    assert first.endswith(
        " of 8 units saturated from the start; the initializer is wide for 6 inputs"
    )


def test_a_rate_that_saturates_is_told_apart_from_an_initializer_that_does() -> None:
    first, *_ = told(Random(Uniform(-0.3, 0.3), Zeros()), Sigmoid(), lr=200.0)
    assert re.search(r"units saturated (from|at) epoch ", first)
    assert first.endswith("; a smaller lr may help")


def test_units_that_a_great_rate_killed_are_counted() -> None:
    sentences = told(XAVIER, ReLU(), lr=5.0)
    assert any(
        "6 of 8 units dead at epoch 1, 8 at epoch 6; a smaller lr or leaky_relu may help" in told
        for told in sentences
    )


def test_a_number_stands_with_the_epoch_at_which_it_was_counted() -> None:
    network = MLP(6, (), 16, Sigmoid()).layers

    def state(saturated: int, update: float = 1e-3) -> LayerState:
        return LayerState(16, saturated, None, False, update, 1.0, 1.0)

    looks = {0: [state(0)], 1: [state(11)], 30: [state(14)]}
    assert findings(network, looks) == [
        "layer 1: 11 of 16 units saturated at epoch 1, 14 at epoch 30; a smaller lr may help"
    ]
    assert findings(network, {0: [state(11)], 30: [state(14)]})[0].startswith(
        "layer 1: 11 of 16 units saturated at the start, 14 at epoch 30"
    )
    assert findings(network, {0: [state(0)], 5: [state(14)], 30: [state(14)]})[0].startswith(
        "layer 1: 14 of 16 units saturated from epoch 5;"
    )
    (sentence,) = findings(network, {1: [state(0, 0.12)], 30: [state(0, 3.0)]})
    assert sentence == (
        "layer 1: an update changes its weights by 12% of their norm at epoch 1, 300% at epoch 30: "
        "lr is too large for these weights"
    )


def test_units_that_are_alike_are_told_of_for_as_long_as_they_are() -> None:
    for activation in (Sigmoid(), ReLU()):
        first, second, *_ = told(Random(Zeros(), Zeros()), activation)
        assert first == (
            "layer 1: its 8 units have had equal weights from the start: "
            "equal gradients keep them equal"
        )
        assert second.startswith("layer 2: its 8 units")
    assert (
        told(Random(XavierNormal(), Zeros(), output=Zeros()), Tanh()) == []
    )  # these part at the first update


def test_a_layer_that_hardly_moves_and_one_that_is_thrown_about_are_told() -> None:
    sentences = told(XAVIER, Tanh(), lr=1e-12)
    assert (
        sentences[0] == "layer 1: an update changes its weights by less than 1e-07 of their norm "
        "from the start: it hardly learns, a larger lr may help"
    )
    state = LayerState(8, 0, None, False, 0.5, 1.0, 1.0)
    network = MLP(6, (), 8, Tanh()).layers
    assert findings(network, {0: [state], 1: [state]})[0].startswith(
        "layer 1: an update changes its weights by 50% of"
    )


def test_what_was_wrong_and_no_longer_is_is_not_told() -> None:
    ill, well = (
        LayerState(8, 8, None, False, 1e-3, 1.0, 9.0),
        LayerState(8, 1, None, False, 1e-3, 1.0, 9.0),
    )
    network = MLP(6, (), 8, Sigmoid()).layers
    assert findings(network, {0: [ill], 1: [ill], 2: [well]}) == []
    (sentence,) = findings(network, {0: [ill], 1: [well], 2: [ill], 3: [ill]})
    assert (
        sentence
        == "layer 1: 8 of 8 units saturated from epoch 2; the initializer is wide for 6 inputs"
    )
    assert findings(network, {}) == []

"""The update rules against recurrences written out by hand, and what holds for all of them."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from src.nn.network import Parameters
from src.support.errors import InvalidValue
from src.training.optimizers import SGD, Adam, Optimizer, State, clipped, norm

LR = 0.1


def trajectory(
    optimizer: Optimizer, gradient: Callable[[float], float], start: float, steps: int
) -> list[float]:
    """Return where one number goes, taken as the only weight of a network."""
    parameters: Parameters = ((np.array([[start]]), np.zeros((1, 1))),)
    state = optimizer.start(parameters)
    found = []
    for _ in range(steps):
        p = float(parameters[0][0].item())
        parameters, state = optimizer.update(
            parameters, ((np.array([[gradient(p)]]), np.zeros((1, 1))),), state, LR
        )
        found.append(float(parameters[0][0].item()))
    return found


def slope(p: float) -> float:
    return p**3 - 2 * p + 0.3


def test_plain_descent() -> None:
    p, expected = 1.7, []
    for _ in range(20):
        p -= LR * slope(p)
        expected.append(p)
    np.testing.assert_allclose(trajectory(SGD(), slope, 1.7, 20), expected, rtol=1e-13)


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum(nesterov: bool) -> None:
    p, v, expected = 1.7, 0.0, []
    for _ in range(20):
        g = slope(p)
        v = 0.9 * v + g
        p -= LR * (g + 0.9 * v if nesterov else v)
        expected.append(p)
    np.testing.assert_allclose(
        trajectory(SGD(momentum=0.9, nesterov=nesterov), slope, 1.7, 20), expected, rtol=1e-13
    )


def test_adam() -> None:
    p, m, v, expected = 1.7, 0.0, 0.0, []
    for t in range(1, 21):
        g = slope(p)
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g * g
        p -= LR * (m / (1 - 0.8**t)) / (math.sqrt(v / (1 - 0.95**t)) + 1e-3)
        expected.append(p)
    found = trajectory(Adam(beta1=0.8, beta2=0.95, epsilon=1e-3), slope, 1.7, 20)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


OPTIMIZERS = [SGD(), SGD(momentum=0.9), SGD(momentum=0.9, nesterov=True), Adam()]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_weight_decay_is_the_gradient_of_half_the_sum_of_squares_of_the_weights(
    optimizer: Optimizer,
) -> None:
    decaying = type(optimizer)(**{**vars(optimizer), "weight_decay": 0.3})
    found = trajectory(decaying, slope, 1.7, 20)
    np.testing.assert_allclose(
        found, trajectory(optimizer, lambda p: slope(p) + 0.3 * p, 1.7, 20), rtol=1e-12
    )


def random_tree(seed: int, stack: tuple[int, ...] = ()) -> Parameters:
    rng = np.random.default_rng(seed)
    return (
        (rng.normal(size=(*stack, 3, 2)), rng.normal(size=(*stack, 1, 2))),
        (),
        (rng.normal(size=(*stack, 2, 4)), rng.normal(size=(*stack, 1, 4))),
    )


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_what_is_declared_linear_is_what_an_update_does(optimizer: Optimizer, decay: float) -> None:
    decaying = type(optimizer)(**{**vars(optimizer), "weight_decay": decay})
    clipping = type(optimizer)(**{**vars(optimizer), "clip_norm": 1.0})
    linear = decaying.linear(np.array([LR]), decay)
    assert clipping.linear(np.array([LR]), decay) is None
    assert (linear is None) == isinstance(optimizer, Adam)
    if linear is None:
        return
    (A,), (B,) = linear
    s, g = np.array([1.7, -0.4])[: len(B)], 0.8
    parameters: Parameters = ((s[:1, None], np.zeros((1, 1))),)
    buffers: list[Parameters] = [((s[1:, None], np.zeros((1, 1))),)] * optimizer.buffer_count
    gradients: Parameters = ((np.array([[g]]), np.zeros((1, 1))),)
    moved, state = decaying.update(parameters, gradients, State.of(0, parameters, buffers), LR)
    found = [moved[0][0], *state.buffers[0][0]]
    np.testing.assert_allclose(np.ravel(found), A @ s - B * g, rtol=1e-14)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_biases_do_not_decay(optimizer: Optimizer) -> None:
    parameters, zero = (
        random_tree(0),
        tuple(tuple(0 * p for p in layer) for layer in random_tree(0)),
    )
    decaying = type(optimizer)(**{**vars(optimizer), "weight_decay": 0.3})
    moved, _ = decaying.update(parameters, zero, decaying.start(parameters), LR)
    for before, after in zip(parameters, moved, strict=True):
        if before:
            assert (np.sign(after[0] - before[0]) == -np.sign(before[0])).all()
            np.testing.assert_array_equal(after[1], before[1])


def test_a_gradient_that_is_too_long_is_shortened_as_a_whole_and_a_short_one_is_left() -> None:
    gradients = random_tree(1)
    flat = np.concatenate([g.ravel() for layer in gradients for g in layer])
    np.testing.assert_allclose(norm(gradients).item(), np.linalg.norm(flat), rtol=1e-14)
    half = clipped(gradients, float(np.linalg.norm(flat)) / 2)
    np.testing.assert_allclose(
        np.concatenate([g.ravel() for layer in half for g in layer]), flat / 2, rtol=1e-5
    )
    for layer, untouched in zip(gradients, clipped(gradients, 1e3), strict=True):
        for g, same in zip(layer, untouched, strict=True):
            np.testing.assert_array_equal(g, same)


def test_clipping_comes_before_decay_and_momentum() -> None:
    p, v, expected = 1.7, 0.0, []
    for _ in range(20):
        g = slope(p)
        g *= min(1, 0.5 / (abs(g) + 1e-6))
        v = 0.9 * v + g + 0.3 * p
        p -= LR * v
        expected.append(p)
    found = trajectory(SGD(momentum=0.9, weight_decay=0.3, clip_norm=0.5), slope, 1.7, 20)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_a_stack_moves_as_each_of_its_networks_would_alone(optimizer: Optimizer) -> None:
    whole = type(optimizer)(**{**vars(optimizer), "weight_decay": 0.1, "clip_norm": 1.5})
    rates = np.array([0.1, 0.5, 0.02])
    together = random_tree(0, (3,))
    state = whole.start(together)
    for seed in range(1, 6):
        together, state = whole.update(
            together, random_tree(seed, (3,)), state, rates[:, None, None]
        )
    for k, rate in enumerate(rates):
        alone: Parameters = tuple(tuple(p[k] for p in layer) for layer in random_tree(0, (3,)))
        own = whole.start(alone)
        for seed in range(1, 6):
            gradients = tuple(tuple(g[k] for g in layer) for layer in random_tree(seed, (3,)))
            alone, own = whole.update(alone, gradients, own, float(rate))
        for layer, stacked in zip(alone, together, strict=True):
            for p, several in zip(layer, stacked, strict=True):
                np.testing.assert_allclose(several[k], p, rtol=1e-13)


@pytest.mark.parametrize("optimizer", [*OPTIMIZERS, SGD(weight_decay=0.1, clip_norm=0.1)], ids=str)
def test_an_update_leaves_what_it_was_given_and_keeps_the_precision(optimizer: Optimizer) -> None:
    parameters: Parameters = tuple(
        tuple(p.astype(np.float32) for p in layer) for layer in random_tree(0)
    )
    kept = [p.copy() for layer in parameters for p in layer]
    moved, state = optimizer.update(parameters, parameters, optimizer.start(parameters), LR)
    moved, state = optimizer.update(moved, parameters, state, LR)
    assert state.updates == 2
    assert {p.dtype for layer in moved for p in layer} == {np.dtype(np.float32)}
    for p, before in zip((p for layer in parameters for p in layer), kept, strict=True):
        np.testing.assert_array_equal(p, before)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: SGD(momentum=1.0), "momentum"),
        (lambda: SGD(momentum=-0.1), "momentum"),
        (lambda: SGD(nesterov=True), "nesterov"),
        (lambda: SGD(weight_decay=-1.0), "weight_decay"),
        (lambda: SGD(weight_decay=math.inf), "weight_decay"),
        (lambda: Adam(clip_norm=0.0), "clip_norm"),
        (lambda: Adam(clip_norm=math.inf), "clip_norm"),
        (lambda: Adam(beta1=1.0), "beta1"),
        (lambda: Adam(beta1=-0.1), "beta1"),
        (lambda: Adam(beta2=1.0), "beta2"),
        (lambda: Adam(beta2=-0.1), "beta2"),
        (lambda: Adam(epsilon=0.0), "epsilon"),
        (lambda: Adam(epsilon=math.inf), "epsilon"),
    ],
)
def test_an_impossible_optimizer_is_refused_by_the_name_of_its_field(
    make: Callable[[], Optimizer], field: str
) -> None:
    with pytest.raises(InvalidValue) as caught:
        make()
    assert caught.value.field == field


def test_a_setting_may_lie_at_the_end_of_its_range() -> None:
    assert SGD(weight_decay=0.0, momentum=0.0) == SGD()
    assert SGD(clip_norm=0.5).clip_norm == 0.5
    assert Adam(beta1=0.0, beta2=0.0, epsilon=2.0).epsilon == 2.0


def test_the_defaults_are_those_of_the_paper() -> None:
    assert (Adam().beta1, Adam().beta2, Adam().epsilon) == (0.9, 0.999, 1e-8)


def test_an_epsilon_that_the_precision_rounds_to_0_is_refused() -> None:
    Adam(epsilon=1e-60).check(np.dtype(np.float64))
    Adam(epsilon=0.5).check(np.dtype(np.float32))
    with pytest.raises(InvalidValue, match=r"^epsilon=1e-60: is 0 in float32"):
        Adam(epsilon=1e-60).check(np.dtype(np.float32))


@pytest.mark.parametrize(
    ("optimizer", "buffers"), [(SGD(), 0), (SGD(momentum=0.9), 1), (Adam(), 2)], ids=str
)
def test_the_state_before_the_first_update_holds_zeros_of_the_arrays_shapes(
    optimizer: Optimizer, buffers: int
) -> None:
    parameters = random_tree(0, (3,))
    state = optimizer.start(parameters)
    assert state.updates == 0
    for layer, of_layer in zip(parameters, state.buffers, strict=True):
        for p, of in zip(layer, of_layer, strict=True):
            assert [m.shape for m in of] == [p.shape] * buffers
            assert not any(m.any() for m in of)

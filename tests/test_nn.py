"""The mathematics against finite differences and the oracle, for one network and for a stack."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from src.nn.layers import GELU, Activation, Dense, Dropout, Identity, LeakyReLU, ReLU, Sigmoid, Tanh
from src.nn.losses import Loss, SigmoidCrossEntropy, SoftmaxCrossEntropy, SquaredError, log_softmax
from src.nn.network import MLP, Network, Parameters, backward, forward, parameter_count, with_masks
from src.support.errors import InvalidValue
from tests import oracle

Float = npt.NDArray[np.float64]

ACTIVATIONS: dict[str, Activation] = {
    str(activation): activation
    for activation in (ReLU(), LeakyReLU(), GELU(), Sigmoid(), Tanh(), Identity())
}

# Each loss, and the value that it should have.
LOSSES: dict[str, tuple[Loss, Callable[[Float, npt.NDArray[np.integer]], float]]] = {
    "softmax": (SoftmaxCrossEntropy(), oracle.mean_cross_entropy),
    "smoothed": (
        SoftmaxCrossEntropy(0.1),
        lambda z, labels: oracle.mean_smoothed_cross_entropy(z, labels, 0.1),
    ),
    "sigmoid": (SigmoidCrossEntropy(), oracle.mean_sigmoid_cross_entropy),
    "least squares": (SquaredError(Identity()), oracle.mean_squared_error),
    "squared sigmoid": (
        SquaredError(Sigmoid()),
        lambda z, labels: oracle.mean_squared_error(special.expit(z), labels),
    ),
}

sizes = st.integers(1, 6)
# No stack, a stack of one, a stack of several.
stacks: st.SearchStrategy[tuple[int, ...]] = st.sampled_from([(), (1,), (3,)])
seeds = st.integers(0, 2**32 - 1)


def random_parameters(
    rng: np.random.Generator, network: Network, stack: tuple[int, ...]
) -> Parameters:
    return tuple(
        tuple(rng.normal(0, 0.8, (*stack, *shape)) for shape in layer.parameter_shapes)
        for layer in network
    )


def one_of(parameters: Parameters, index: tuple[int, ...]) -> list[tuple[Float, Float]]:
    return [(layer[0][index], layer[1][index]) for layer in parameters if layer]


@given(seed=seeds, stack=stacks, batch=sizes, fan_in=sizes, fan_out=sizes)
def test_dense_gradients_are_those_of_finite_differences(
    seed: int, stack: tuple[int, ...], batch: int, fan_in: int, fan_out: int
) -> None:
    rng = np.random.default_rng(seed)
    layer = Dense(fan_in, fan_out)
    x, W, b = (
        rng.normal(size=(*stack, batch, fan_in)),
        rng.normal(size=(*stack, fan_in, fan_out)),
        rng.normal(size=(*stack, 1, fan_out)),
    )
    dy = rng.normal(size=(*stack, batch, fan_out))

    def weighted() -> float:
        return float((layer.forward((W, b), x) * dy).sum())

    y = layer.forward((W, b), x)
    dW, db = layer.parameter_gradients(x, dy)
    dx = layer.input_gradient((W, b), x, y, dy)
    for name, gradient, array in (("W", dW, W), ("b", db, b), ("x", dx, x)):
        np.testing.assert_allclose(
            gradient, oracle.central_difference(weighted, array), rtol=1e-6, atol=1e-7, err_msg=name
        )


@pytest.mark.parametrize("name", ACTIVATIONS)
@given(seed=seeds, stack=stacks)
def test_activation_and_its_gradient_agree_with_the_oracle(
    name: str, seed: int, stack: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(seed)
    layer = ACTIVATIONS[name]
    x = rng.normal(0, 3, (*stack, 4, 5))
    x[np.abs(x) < 1e-3] = 0.5  # ReLU has no derivative at 0: no difference is taken across it
    dy = rng.normal(size=x.shape)
    y = layer.forward((), x)
    np.testing.assert_allclose(y, oracle.ACTIVATIONS[name](x), rtol=1e-13, atol=1e-15)
    numeric = oracle.central_difference(lambda: float((layer.forward((), x) * dy).sum()), x)
    np.testing.assert_allclose(layer.input_gradient((), x, y, dy), numeric, rtol=1e-5, atol=1e-7)


def test_relu_passes_nothing_back_at_zero() -> None:
    layer = ACTIVATIONS["relu"]
    x = np.array([[-1.0, 0.0, 2.0]])
    assert layer.input_gradient((), x, layer.forward((), x), np.ones_like(x)).tolist() == [
        [0, 0, 1]
    ]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_saturates_without_a_warning(dtype: type) -> None:
    x: npt.NDArray[Any] = np.array([[-1e4, -200, 0, 200, 1e4]], dtype)
    y = ACTIVATIONS["sigmoid"].forward((), x)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, [[0, 0, 0.5, 1, 1]])


@pytest.mark.parametrize("name", LOSSES)
@given(seed=seeds, stack=stacks, batch=sizes, classes=st.integers(2, 6), own_labels=st.booleans())
def test_a_loss_and_its_gradient_agree_with_the_oracle(
    name: str, seed: int, stack: tuple[int, ...], batch: int, classes: int, own_labels: bool
) -> None:
    rng = np.random.default_rng(seed)
    loss, expected = LOSSES[name]
    logits = rng.normal(0, 4, (*stack, batch, classes))
    labels = rng.integers(
        0, classes, (*stack, batch) if own_labels else batch
    )  # each network's own, or shared by all
    value = loss.value(logits, labels)
    assert value.shape == stack
    each = np.broadcast_to(labels, (*stack, batch))
    for index in np.ndindex(stack):
        np.testing.assert_allclose(
            value[index], expected(logits[index], each[index]), rtol=1e-12, atol=1e-14
        )
    numeric = oracle.central_difference(lambda: float(loss.value(logits, labels).sum()), logits)
    np.testing.assert_allclose(loss.gradient(logits, labels), numeric, rtol=1e-5, atol=1e-7)
    probabilities = loss.probabilities(logits)
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, rtol=1e-12)
    np.testing.assert_array_equal(probabilities.argmax(axis=-1), logits.argmax(axis=-1))


def test_probabilities_are_what_each_loss_takes_the_logits_for() -> None:
    logits = np.array([[2.0, -1.0, 0.5], [0.2, 0.3, 0.1]])
    np.testing.assert_allclose(
        SoftmaxCrossEntropy().probabilities(logits), special.softmax(logits, axis=-1), rtol=1e-12
    )
    each = special.expit(logits)
    shares = each / each.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(SigmoidCrossEntropy().probabilities(logits), shares, rtol=1e-12)
    # By hand: the distribution nearest to (2, −1, ½) is (1, 0, 0). (0.2, 0.3, 0.1) lacks 0.4, which
    # all three share.
    nearest = np.array([[1, 0, 0], [0.2 + 0.4 / 3, 0.3 + 0.4 / 3, 0.1 + 0.4 / 3]])
    np.testing.assert_allclose(SquaredError(Identity()).probabilities(logits), nearest, rtol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_the_least_value_is_reached_where_the_probabilities_are_the_targets(
    smoothing: float,
) -> None:
    loss, labels = SoftmaxCrossEntropy(smoothing), np.array([2])
    logits = np.log(np.maximum(oracle.targets(labels, 4, smoothing), 1e-300))
    np.testing.assert_allclose(loss.least(4), loss.value(logits, labels), atol=1e-12)
    assert SigmoidCrossEntropy().least(4) == SquaredError(Identity()).least(4) == 0


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_losses_keep_their_precision_and_bear_huge_logits(name: str, dtype: type) -> None:
    loss, labels = LOSSES[name][0], np.array([1, 0])
    logits: npt.NDArray[Any] = np.array([[1e4, -1e4, 0], [-1e4, -1e4, -1e4]], dtype)
    for found in (
        loss.value(logits, labels),
        loss.gradient(logits, labels),
        loss.probabilities(logits),
    ):
        assert found.dtype == dtype
        assert np.isfinite(found).all()
    np.testing.assert_allclose(loss.probabilities(logits).sum(axis=-1), 1, rtol=1e-6)


def test_cross_entropy_is_exact_where_a_naive_softmax_overflows() -> None:
    logits = np.array([[1000.0, 0.0, -1000.0]])
    assert SoftmaxCrossEntropy().value(logits, np.array([1])) == 1000.0
    assert np.isfinite(log_softmax(logits)).all()


@given(
    seed=seeds,
    stack=stacks,
    inputs=sizes,
    hidden=st.lists(sizes, max_size=3),
    classes=st.integers(2, 4),
    activation=st.sampled_from(
        ["sigmoid", "tanh", "identity", "gelu"]
    ),  # smooth: ReLU's corners are no place for differences
)
def test_backward_gives_the_gradient_of_the_loss_with_respect_to_every_parameter(
    seed: int, stack: tuple[int, ...], inputs: int, hidden: list[int], classes: int, activation: str
) -> None:
    rng = np.random.default_rng(seed)
    network = MLP(inputs, tuple(hidden), classes, ACTIVATIONS[activation]).layers
    parameters = random_parameters(rng, network, stack)
    x, labels = (
        rng.normal(size=(3, inputs)),
        rng.integers(0, classes, 3),
    )  # one batch, shared by the whole stack
    loss = SoftmaxCrossEntropy()

    values = forward(network, parameters, x)
    for index in np.ndindex(stack):
        np.testing.assert_allclose(
            values[-1][index],
            oracle.logits(one_of(parameters, index), activation, x),
            rtol=1e-10,
            atol=1e-12,
        )

    gradients = backward(network, parameters, values, loss.gradient(values[-1], labels))
    total = lambda: float(loss.value(forward(network, parameters, x)[-1], labels).sum())  # noqa: E731
    for layer, layer_gradients in zip(parameters, gradients, strict=True):
        assert len(layer) == len(layer_gradients)
        for array, gradient in zip(layer, layer_gradients, strict=True):
            numeric = oracle.central_difference(total, array)
            np.testing.assert_allclose(gradient, numeric, rtol=1e-4, atol=1e-7)


@given(seed=seeds, activation=st.sampled_from(sorted(ACTIVATIONS)))
def test_a_stack_computes_what_each_network_computes_alone(seed: int, activation: str) -> None:
    rng = np.random.default_rng(seed)
    network = MLP(5, (4, 3), 3, ACTIVATIONS[activation]).layers
    stacked = random_parameters(rng, network, (4,))
    x, labels = rng.normal(size=(6, 5)), rng.integers(0, 3, 6)
    loss = SoftmaxCrossEntropy()

    def gradients_of(parameters: Parameters) -> Parameters:
        values = forward(network, parameters, x)
        return backward(network, parameters, values, loss.gradient(values[-1], labels))

    together = gradients_of(stacked)
    for k in range(4):
        alone = gradients_of(tuple(tuple(array[k] for array in layer) for layer in stacked))
        for layer, layer_alone in zip(together, alone, strict=True):
            for array, array_alone in zip(layer, layer_alone, strict=True):
                np.testing.assert_allclose(array[k], array_alone, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_is_kept_from_the_pixels_to_the_gradients(activation: str, dtype: type) -> None:
    network = MLP(4, (3,), 2, ACTIVATIONS[activation]).layers
    parameters: Parameters = tuple(
        tuple(np.ones(shape, dtype) for shape in layer.parameter_shapes) for layer in network
    )
    values = forward(network, parameters, np.ones((2, 4), dtype))
    loss = SoftmaxCrossEntropy()
    gradients = backward(network, parameters, values, loss.gradient(values[-1], np.array([0, 1])))
    assert {array.dtype for array in (*values, *(g for layer in gradients for g in layer))} == {
        np.dtype(dtype)
    }


def test_dropout_silences_its_share_of_units_and_scales_up_the_rest() -> None:
    layer = Dropout(50, 0.3)
    mask = layer.mask((4, 1000), np.random.default_rng(0), np.float32)
    assert mask.shape == (4, 1000, 50)
    assert mask.dtype == np.float32
    np.testing.assert_allclose(np.unique(mask), [0, 1 / 0.7], rtol=1e-6)
    assert abs((mask == 0).mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / mask.size)
    assert abs(mask.mean() - 1) < 0.01  # so that nothing need be scaled afterwards


@given(seed=seeds, stack=stacks)
def test_backward_goes_through_the_masks_that_forward_went_through(
    seed: int, stack: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(seed)
    network = MLP(4, (5, 3), 3, Tanh(), dropout=0.4).layers
    assert [str(layer) for layer in network][2] == "dropout 0.4"
    parameters = random_parameters(rng, network, stack)
    x, labels = rng.normal(size=(6, 4)), rng.integers(0, 3, 6)
    masked = with_masks(network, parameters, (*stack, 6), rng)
    values = forward(network, masked, x)
    gradients = backward(
        network, masked, values, SoftmaxCrossEntropy().gradient(values[-1], labels)
    )

    def total() -> float:
        logits = forward(network, masked, x)[-1]
        return float(SoftmaxCrossEntropy().value(logits, labels).sum())

    assert [len(layer) for layer in gradients] == [len(layer) for layer in parameters]
    for layer, layer_gradients in zip(parameters, gradients, strict=True):
        for array, gradient in zip(layer, layer_gradients, strict=True):
            np.testing.assert_allclose(
                gradient, oracle.central_difference(total, array), rtol=1e-4, atol=1e-7
            )
    # Without masks the layer is not there: that is how a network is judged.
    plain = MLP(4, (5, 3), 3, Tanh()).layers
    same = tuple(
        layer
        for layer, step in zip(parameters, network, strict=True)
        if not isinstance(step, Dropout)
    )
    np.testing.assert_array_equal(forward(network, parameters, x)[-1], forward(plain, same, x)[-1])


def test_a_network_is_a_list_of_layers_one_can_draw() -> None:
    model = MLP(784, (16, 16), 10, Sigmoid())
    assert [str(layer) for layer in model.layers] == [
        "dense 784→16",
        "sigmoid",
        "dense 16→16",
        "sigmoid",
        "dense 16→10",
    ]
    assert str(model) == "784 ─ 16 sigmoid ─ 16 sigmoid ─ 10"
    assert parameter_count(model.layers) == 784 * 16 + 16 + 16 * 16 + 16 + 16 * 10 + 10
    assert [str(layer) for layer in MLP(784, (), 10, ReLU()).layers] == [
        "dense 784→10"
    ]  # softmax regression


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: MLP(0, (3,), 10, ReLU()), "inputs"),
        (lambda: MLP(784, (3, 0), 10, ReLU()), "hidden"),
        (lambda: MLP(784, (3,), 1, ReLU()), "outputs"),
        (lambda: MLP(784, (3,), 10, ReLU(), dropout=1.0), "dropout"),
        (lambda: MLP(784, (3,), 10, ReLU(), dropout=-0.1), "dropout"),
        (lambda: LeakyReLU(1.0), "slope"),
        (lambda: LeakyReLU(0.0), "slope"),
        (lambda: SoftmaxCrossEntropy(1.0), "smoothing"),
        (lambda: SoftmaxCrossEntropy(-0.1), "smoothing"),
    ],
)
def test_an_impossible_network_is_refused_by_the_name_of_its_field(
    make: Callable[[], object], field: str
) -> None:
    with pytest.raises(InvalidValue) as caught:
        make()
    assert caught.value.field == field


def test_a_network_may_be_as_small_as_one_input_and_two_classes() -> None:
    assert str(MLP(1, (1,), 2, ReLU(), dropout=0.0)) == "1 ─ 1 relu ─ 2"
    assert MLP(1, (1,), 2, ReLU()).sizes == (1, 1, 2)
    assert str(MLP(1, (1,), 2, ReLU(), dropout=0.25)) == "1 ─ 1 relu ─ 2, dropout 0.25"


# ─── What an activation and a loss declare for the fast engines ───


def wide(dtype: npt.DTypeLike = np.float64) -> npt.NDArray[Any]:
    """Return numbers around 0, among them 0 itself, more of them than count as few."""
    return np.linspace(-8, 8, 601, dtype=dtype)[None]


EVERY_ACTIVATION = [*ACTIVATIONS.values(), LeakyReLU(0.3)]


@pytest.mark.parametrize("activation", EVERY_ACTIVATION, ids=repr)
def test_a_derivative_is_the_oracles(activation: Activation) -> None:
    name = "leaky relu 0.3" if activation == LeakyReLU(0.3) else str(activation)
    x = wide()
    expected = oracle.SLOPES[name](x)
    found = activation.derivative(x, activation.apply(x))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 601), (3, 2, 5)])
@pytest.mark.parametrize("activation", EVERY_ACTIVATION, ids=repr)
def test_the_in_place_forms_compute_what_the_others_do(
    activation: Activation, shape: tuple[int, ...], dtype: npt.DTypeLike
) -> None:
    x = np.resize(wide(dtype)[0, 285:], shape)  # begins shortly before 0
    x.flat[3] = 0
    y = activation.apply(x)
    within = 1e-6 if dtype == np.float32 else 1e-14
    out = np.full_like(x, np.nan)
    activation.apply_into(x, out)
    np.testing.assert_allclose(out, y, rtol=within, atol=within)
    slopes = np.full_like(x, np.nan)
    activation.derivative_into(x, y, slopes)
    np.testing.assert_allclose(slopes, activation.derivative(x, y), rtol=within, atol=within)
    if activation.derivative_from_y:
        over = x.copy()
        activation.apply_into(over, over)
        np.testing.assert_array_equal(over, out)
        activation.derivative_into(y, y, slopes)
        np.testing.assert_allclose(slopes, activation.derivative(x, y), rtol=within, atol=within)
        np.testing.assert_array_equal(activation.derivative(y, y), activation.derivative(x, y))


@pytest.mark.parametrize("activation", EVERY_ACTIVATION, ids=repr)
def test_the_declared_facts_are_those_of_the_curve(activation: Activation) -> None:
    x = wide()
    slopes = activation.derivative(x, activation.apply(x))
    assert slopes.max() == pytest.approx(activation.steepest, abs=2e-3)
    ends = np.array([[-30.0, 30.0]])
    assert activation.saturates == (
        np.abs(activation.derivative(ends, activation.apply(ends))).max() < 1e-9
    )
    jumps = [float(x[0, k]) for k in np.flatnonzero(np.abs(np.diff(slopes[0])) > 0.3)]
    assert jumps == pytest.approx(list(activation.corners), abs=0.03)


@pytest.mark.parametrize("name", LOSSES)
@given(seed=seeds, stack=st.sampled_from([(1,), (3,)]), classes=st.integers(2, 5))
def test_a_loss_gradient_in_place_is_each_samples_own_times_its_factor(
    name: str, seed: int, stack: tuple[int, ...], classes: int
) -> None:
    rng = np.random.default_rng(seed)
    loss, n = LOSSES[name][0], 7
    logits = rng.normal(0, 4, (*stack, n, classes))
    labels = rng.integers(0, classes, (*stack, n))
    factors = rng.uniform(0.01, 2, (*stack, 1, 1))
    expected = loss.gradient(logits, labels) * n * factors
    out = np.full_like(logits, np.nan)
    loss.gradient_into(logits.copy(), labels, factors, out)
    np.testing.assert_allclose(out, expected, rtol=1e-9, atol=1e-12)
    loss.gradient_into(logits, labels, 0.5, out)
    np.testing.assert_allclose(out, loss.gradient(logits, labels) * n * 0.5, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shift", [-900, -80, 0, 40, 80, 900])
def test_a_softmax_gradient_in_place_bears_logits_far_from_0(
    shift: float, dtype: npt.DTypeLike
) -> None:
    logits = np.array([[[1, 2, -1], [0.5, 0, 3]]], dtype)
    logits[0, 0] += shift
    labels, loss = np.array([[0, 1]]), SoftmaxCrossEntropy(0.1)
    out = np.empty_like(logits)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        loss.gradient_into(logits.copy(), labels, 1 / 2, out)
    np.testing.assert_allclose(out, loss.gradient(logits, labels), rtol=1e-4, atol=1e-6)

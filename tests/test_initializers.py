"""The distribution of first weights, and everything that can be wrong with a weight file."""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from src.nn.initializers import (
    Distribution,
    FromFile,
    HeNormal,
    LeCunNormal,
    Normal,
    Random,
    Uniform,
    XavierNormal,
    XavierUniform,
    Zeros,
)
from src.nn.layers import Dense, ReLU
from src.nn.network import MLP
from src.nn.weights import load_weights, save_weights
from src.support.errors import DataError, InvalidValue
from src.support.randomness import stream

FAN_IN, FAN_OUT = 300, 200
XAVIER = math.sqrt(2 / (FAN_IN + FAN_OUT))

# Each distribution, and SciPy's version of it.
CLAIMED = [
    (XavierNormal(), stats.norm(0, XAVIER)),
    (XavierUniform(), stats.uniform(-math.sqrt(3) * XAVIER, 2 * math.sqrt(3) * XAVIER)),
    (HeNormal(), stats.norm(0, math.sqrt(2 / FAN_IN))),
    (LeCunNormal(), stats.norm(0, math.sqrt(1 / FAN_IN))),
    (Normal(0.3, 2.0), stats.norm(0.3, 2.0)),
    (Uniform(-0.5, 0.5), stats.uniform(-0.5, 1)),
    (Uniform(0, 0.01), stats.uniform(0, 0.01)),
]


@pytest.mark.parametrize(
    ("distribution", "claimed"), CLAIMED, ids=[str(drawn) for drawn, _ in CLAIMED]
)
def test_draws_have_the_mean_the_spread_and_the_shape_of_the_distribution(
    distribution: Distribution, claimed: stats.distributions.rv_frozen
) -> None:
    drawn = distribution.draw(np.random.default_rng(0), (FAN_IN, FAN_OUT), FAN_IN, FAN_OUT)
    n = drawn.size
    assert drawn.shape == (FAN_IN, FAN_OUT)
    assert abs(drawn.mean() - claimed.mean()) < 5 * claimed.std() / math.sqrt(n)
    assert abs(drawn.std() / claimed.std() - 1) < 5 / math.sqrt(2 * n)
    # The whole shape: a correct implementation fails this for one seed in ten thousand.
    assert stats.kstest(drawn.ravel(), claimed.cdf).pvalue > 1e-4


def test_zeros_are_zeros() -> None:
    assert not Zeros().draw(np.random.default_rng(0), (3, 4), 3, 4).any()


@pytest.mark.parametrize(
    ("low", "high", "field"),
    [
        (1, 1, "high"),
        (2, 1, "high"),
        (-math.inf, 1, "low"),
        (0, math.nan, "high"),
        (0, math.inf, "high"),
    ],
)
def test_an_empty_range_is_refused(low: float, high: float, field: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        Uniform(low, high)
    assert caught.value.field == field


def test_a_normal_distribution_needs_a_spread() -> None:
    assert Normal(0, 0.5).std == 0.5
    for mean, std, field in ((0, 0, "std"), (0, math.inf, "std"), (math.nan, 1, "mean")):
        with pytest.raises(InvalidValue) as caught:
            Normal(mean, std)
        assert caught.value.field == field


def drawn(
    initializer: Random, dtype: npt.DTypeLike = np.float32, seed: int = 0
) -> list[npt.NDArray[np.floating]]:
    network = MLP(30, (20, 10), 5, ReLU()).layers
    parameters = initializer.initialize(network, stream(seed, "weights"), dtype)
    assert [tuple(a.shape for a in layer) for layer in parameters] == [
        layer.parameter_shapes for layer in network
    ]
    return [array for layer in parameters for array in layer]


def test_output_layer_and_biases_can_be_set_apart() -> None:
    W1, b1, W2, b2, W3, b3 = drawn(Random(Uniform(1, 2), Uniform(3, 4), output=Uniform(5, 6)))
    for array, low in ((W1, 1), (W2, 1), (W3, 5), (b1, 3), (b2, 3), (b3, 3)):
        assert low <= array.min() <= array.max() < low + 1


def test_without_its_own_distribution_the_output_layer_is_drawn_as_the_others() -> None:
    W3 = drawn(Random(Uniform(1, 2), Zeros()))[4]
    assert 1 <= W3.min() <= W3.max() < 2


def test_one_seed_one_start_and_both_precisions_start_alike() -> None:
    first, again, other = (
        drawn(Random(HeNormal(), Zeros())),
        drawn(Random(HeNormal(), Zeros())),
        drawn(Random(HeNormal(), Zeros()), seed=1),
    )
    double = drawn(Random(HeNormal(), Zeros()), np.float64)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])
    assert first[0].dtype == np.float32
    np.testing.assert_array_equal(double[0].astype(np.float32), first[0])


NETWORK = MLP(4, (3,), 2, ReLU()).layers


def arrays() -> dict[str, npt.NDArray[np.generic]]:
    rng = np.random.default_rng(0)
    return {
        "W1": rng.normal(size=(4, 3)),
        "b1": rng.normal(size=3),
        "W2": rng.normal(size=(3, 2)),
        "b2": rng.normal(size=(1, 2)),
    }


def test_weights_come_back_from_the_file_they_were_saved_to(tmp_path: Path) -> None:
    saved = Random(HeNormal(), Uniform(-1, 1)).initialize(NETWORK, stream(0, "weights"), np.float32)
    save_weights(tmp_path / "w.npz", NETWORK, saved)
    loaded = FromFile(tmp_path / "w.npz").initialize(NETWORK, stream(9, "weights"), np.float32)
    assert [[a.tobytes() for a in layer] for layer in loaded] == [
        [a.tobytes() for a in layer] for layer in saved
    ]


def test_biases_may_be_flat_or_rows(tmp_path: Path) -> None:
    held = arrays()
    np.savez(tmp_path / "w.npz", allow_pickle=False, **held)
    (W1, b1), _, (_, b2) = load_weights(tmp_path / "w.npz", NETWORK, np.float64)
    np.testing.assert_array_equal(W1, held["W1"])
    np.testing.assert_array_equal(b1, [held["b1"]])
    np.testing.assert_array_equal(b2, held["b2"])


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"W1": np.zeros((3, 4))}, r"W1 has shape \(3, 4\), the network needs \(4, 3\)"),
        ({"b2": np.zeros(3)}, r"b2 has shape \(3,\), the network needs \(1, 2\)"),
        ({"W2": None}, "lacks W2; the file holds W1, b1, b2, the network needs W1, W2, b1, b2"),
        ({"W3": np.zeros((2, 2))}, "the network has no layer for W3; it needs W1, W2, b1, b2"),
        ({"W1": np.full((4, 3), np.nan)}, "W1 holds NaN or infinity"),
        ({"W1": np.full((4, 3), "x")}, "W1 has type <U1, it must be numbers"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_its_name_and_the_fault(
    tmp_path: Path, change: dict[str, npt.NDArray[np.generic] | None], fault: str
) -> None:
    path = tmp_path / "w.npz"
    np.savez(
        path,
        allow_pickle=False,
        **{name: array for name, array in (arrays() | change).items() if array is not None},
    )
    with pytest.raises(DataError, match=rf"w\.npz: {fault}"):
        load_weights(path, NETWORK, np.float32)


def test_a_file_that_is_missing_damaged_or_pickled_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        load_weights(tmp_path / "none.npz", NETWORK, np.float32)
    (tmp_path / "text.npz").write_text("weights")
    with pytest.raises(DataError, match="not a readable"):
        load_weights(tmp_path / "text.npz", NETWORK, np.float32)
    np.savez(tmp_path / "pickle.npz", W1=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="not a readable"):
        load_weights(tmp_path / "pickle.npz", NETWORK, np.float32)


def test_a_file_without_arrays_is_told_what_the_network_needs(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz")
    with pytest.raises(DataError, match="the file holds no array, the network needs W1"):
        load_weights(tmp_path / "w.npz", NETWORK, np.float32)


def test_only_dense_layers_have_parameters() -> None:
    assert [bool(layer.parameter_shapes) for layer in NETWORK] == [
        isinstance(layer, Dense) for layer in NETWORK
    ]

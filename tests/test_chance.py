"""A network that answers no better than a guess is told so, with the likely reason."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from src.nn.initializers import Initializer, Random, Uniform, XavierNormal, Zeros
from src.nn.layers import ReLU, Sigmoid
from src.nn.losses import SoftmaxCrossEntropy
from src.nn.network import MLP
from src.support.randomness import stream
from src.training.batching import Mini
from src.training.chance import at_chance, is_chance, majority
from src.training.engines.base import Arrays
from src.training.loop import train_one
from src.training.optimizers import SGD
from src.training.training_run import TrainingRun
from tests.conftest import Ended, run


def labels(*counts: int) -> np.ndarray:
    return np.repeat(np.arange(len(counts)), counts)


def test_chance_is_the_most_frequent_class_within_the_sampling_error() -> None:
    even, uneven = labels(100, 100), labels(150, 50)
    assert majority(uneven) == 0.75
    assert is_chance(0.74, even) is False
    assert is_chance(0.74, uneven) is True
    assert is_chance(0.80, uneven) is True
    assert is_chance(0.90, uneven) is False
    assert is_chance(0.10, labels(*[36] * 10)) is True
    assert is_chance(0.01, even) is True  # worse than a guess is no better
    for right in range(201):
        expected = binom.sf(right - 1, 200, 0.75) >= 0.001
        assert is_chance(right / 200, uneven) == expected


def test_a_set_that_can_not_tell_is_not_asked() -> None:
    assert is_chance(1.0, labels(2, 1)) is None
    assert is_chance(1.0, labels(50)) is None
    assert is_chance(1.0, labels(5, 5)) is False  # a guess gets all right in 0.001 of cases


def blobs(samples: int, scale: float, rng: np.random.Generator) -> Arrays:
    """Return three classes in four dimensions, far apart in units of ``1 / scale``."""
    own = np.arange(samples) % 3
    x = np.eye(4)[own] + 0.05 * rng.normal(size=(samples, 4))
    return Arrays(x, own, scale)


def told(
    initializer: Initializer,
    *,
    lr: float = 0.5,
    scale: float = 1.0,
    epochs: int = 10,
    shuffled: bool = False,
) -> str | None:
    rng = np.random.default_rng(0)
    train, val = blobs(60, scale, rng), blobs(60, scale, rng)
    if shuffled:
        train, val = (Arrays(rng.normal(size=(60, 4)), one.labels) for one in (train, val))
    network = MLP(4, (64,), 3, ReLU() if shuffled else Sigmoid()).layers
    first = initializer.initialize(network, stream(0, "weights"), "float64")
    settings = TrainingRun(
        network,
        {"train": train, "val": val},
        loss=SoftmaxCrossEntropy(),
        batching=Mini(10),
        optimizer=SGD(),
        lr=lr,
        epochs=epochs,
        seed=0,
    )
    return at_chance(settings, first, list(train_one(settings, first)))


XAVIER = Random(XavierNormal(), Zeros())


def test_nothing_is_said_of_a_network_that_learns() -> None:
    assert told(XAVIER) is None


@pytest.mark.parametrize(
    ("initializer", "changes", "reason"),
    [
        (Random(Zeros(), Zeros()), {}, "all units of layer 1 start with equal weights"),
        (XAVIER, {"scale": 1 / 255}, "the inputs reach only 0.00"),
        (XAVIER, {"scale": 255.0, "lr": 1e-9}, "set data.scale=1"),
        (XAVIER, {"lr": 1e-7}, "the training loss has hardly moved (1."),
        (XAVIER, {"lr": 500.0}, "a smaller lr than 500 may help"),
        (Random(Uniform(-300, 300), Zeros()), {"lr": 1e-6}, "or another initializer may help"),
    ],
)
def test_the_likely_reason_is_named(
    initializer: Initializer, changes: dict[str, float], reason: str
) -> None:
    said = told(initializer, **changes)  # type: ignore[arg-type]
    assert said is not None
    assert said.startswith("val/accuracy 0.")
    assert "no better than guessing (the most frequent class has 0.3333 of the samples): " in said
    assert reason in said


def test_what_is_learned_by_heart_is_told_apart() -> None:
    said = told(XAVIER, shuffled=True, epochs=400)
    assert said is not None
    assert "so what it has learned does not hold for other samples" in said


def iris(path: Path) -> Path:
    from sklearn.datasets import load_iris

    data = load_iris()
    table = np.column_stack([data.target, data.data])
    np.savetxt(path, table, delimiter=",", fmt="%g")
    return path


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    folder = tmp_path_factory.mktemp("iris")
    data = ["data=csv", f"data.path={iris(folder / 'iris.csv')}", "model.inputs=4"]
    return run(folder, *data, "model=relu2_small", "model.outputs=3", "epochs=20")


@pytest.mark.slow
def test_iris_in_the_range_of_pixels_is_told_its_scale(ended: Ended) -> None:
    said = " ".join(ended.out.split())
    assert "is no better than guessing (the most frequent class has 0.3636 of the samples)" in said
    assert "the inputs reach only 0.031; set data.scale=1 " in said


@pytest.mark.slow
def test_a_network_of_zeros_is_told_in_a_sweep_and_in_its_comparison(tmp_path: Path) -> None:
    swept = run(tmp_path, "-m", "model=relu2", "initializer=zeros,xavier", "epochs=3")
    said = " ".join(swept.out.split())
    assert "at chance: val/accuracy 0.1" in said
    assert said.count("all units of layer 1 start with equal weights") == 1
    compared = " ".join((swept.folders[0].parent / "report.html").read_text().split())
    assert "all units of layer 1 start with equal weights" in compared

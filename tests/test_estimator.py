"""The estimator is held to scikit-learn's own checks, and to the trainer that it wraps."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from src.estimator import NetworkClassifier
from src.nn.initializers import FromFile, HeNormal, Random, Zeros
from src.nn.layers import GELU, LeakyReLU, Tanh
from src.nn.losses import SigmoidCrossEntropy, SoftmaxCrossEntropy
from src.nn.network import MLP
from src.support.errors import Diverged
from src.support.randomness import stream
from src.training.batching import Mini
from src.training.engines.base import Arrays
from src.training.optimizers import SGD, Adam
from src.training.schedules import Constant, Cosine, Plateau
from src.training.scoring import score
from src.training.stopping import EarlyStopping, Never, Target
from tests.conftest import ROOT
from tests.test_training import follow

X, Y = load_iris(return_X_y=True)
SCALED = (X - X.mean(axis=0)) / X.std(axis=0)
NAMES = np.array(["setosa", "versicolor", "virginica"])


def fitted(x: Any = SCALED, y: Any = Y, **changes: Any) -> NetworkClassifier:
    """A small network on the irises, trained for a moment."""
    return NetworkClassifier(**{"hidden": (8,), "epochs": 5, "random_state": 0, **changes}).fit(
        x, y
    )


def bytes_of(model: NetworkClassifier) -> list[bytes]:
    return [array.tobytes() for layer in model.parameters_ for array in layer]


@parametrize_with_checks([NetworkClassifier()])  # type: ignore[untyped-decorator]
def test_scikit_learns_checks(
    estimator: NetworkClassifier, check: Callable[[NetworkClassifier], None]
) -> None:
    check(estimator)


@pytest.mark.slow
def test_none_of_the_checks_fails_or_is_skipped_or_warns() -> None:
    """In a process of its own: SciPy must know of the array API when it is imported."""
    script = (
        "from sklearn.utils.estimator_checks import check_estimator\n"
        "from src.estimator import NetworkClassifier\n"
        "results = check_estimator(NetworkClassifier())\n"
        "assert len(results) >= 50\n"
        "assert {result['status'] for result in results} == {'passed'}, results"
    )
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=ROOT,
        env={**os.environ, "SCIPY_ARRAY_API": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


def test_digits_are_learned_out_of_the_box_in_a_pipeline() -> None:
    images, digits = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(
        images, digits, test_size=0.25, stratify=digits, random_state=0
    )
    pipeline = make_pipeline(StandardScaler(), NetworkClassifier(random_state=0)).fit(x, y)
    assert pipeline.score(x_test, y_test) >= 0.95
    assert (
        NetworkClassifier(random_state=0).fit(x, y).score(x_test, y_test) >= 0.95
    )  # nothing scaled


@pytest.mark.slow
def test_a_grid_search_finds_what_works() -> None:
    grid = {
        "networkclassifier__lr": np.array([1e-6, 0.01]),
        "networkclassifier__activation": ["tanh", LeakyReLU(0.1)],
    }
    pipeline = make_pipeline(
        StandardScaler(), NetworkClassifier(hidden=(8,), epochs=40, random_state=0)
    )
    search = GridSearchCV(pipeline, grid, cv=3, n_jobs=2).fit(X, NAMES[Y])
    assert search.best_params_["networkclassifier__lr"] == 0.01
    assert search.best_score_ > 0.9
    accuracies = search.cv_results_["mean_test_score"]
    assert accuracies[search.cv_results_["param_networkclassifier__lr"] == 1e-6].max() < 0.8


def test_cross_validation_of_probabilities() -> None:
    scores = cross_val_score(
        NetworkClassifier(epochs=30, random_state=0), SCALED, Y, cv=3, scoring="roc_auc_ovr"
    )
    assert scores.min() > 0.95


@pytest.mark.parametrize(
    "names", [NAMES, NAMES.astype(object), np.array([-1, 7, 30])], ids=["text", "object", "numbers"]
)
def test_classes_may_have_any_names(names: npt.NDArray[Any]) -> None:
    plain, named = fitted(epochs=30), fitted(y=names[Y], epochs=30)
    np.testing.assert_array_equal(named.classes_, names)
    assert bytes_of(named) == bytes_of(plain)
    np.testing.assert_array_equal(named.predict(SCALED), names[plain.predict(SCALED)])
    assert named.score(SCALED, names[Y]) > 0.9


def test_columns_may_have_names() -> None:
    table = pd.DataFrame(SCALED, columns=list("abcd"))
    model = fitted(table, pd.Series(Y))
    assert list(model.feature_names_in_) == list("abcd")
    assert bytes_of(model) == bytes_of(fitted())
    np.testing.assert_array_equal(model.predict_proba(table), fitted().predict_proba(SCALED))


CHOICES: list[tuple[str, str, Any]] = [
    ("activation", "gelu", GELU()),
    ("activation", "tanh", Tanh()),
    ("initializer", "he", Random(HeNormal(), Zeros())),
    ("loss", "sigmoid_cross_entropy", SigmoidCrossEntropy()),
    ("optimizer", "momentum", SGD(momentum=0.9)),
    ("optimizer", "adam", Adam()),
    ("schedule", "cosine", Cosine()),
    ("schedule", "plateau", Plateau(metric="val/loss", factor=0.5, patience=5)),
    ("stopping", "early", EarlyStopping("val/loss", 10)),
]


@pytest.mark.parametrize(("choice", "name", "value"), CHOICES)
def test_a_name_is_the_object_that_it_stands_for(choice: str, name: str, value: Any) -> None:
    by_name, by_object = fitted(**{choice: name}), fitted(**{choice: value})
    assert bytes_of(by_name) == bytes_of(by_object)
    assert by_name.history_ == by_object.history_
    assert clone(by_object).get_params()[choice] == value


@pytest.mark.parametrize(
    "changes",
    [
        {"activation": "sigmoid"},
        {"initializer": "he"},
        {"loss": "squared_error"},
        {"optimizer": "sgd"},
        {"lr": 0.01},
        {"schedule": "cosine"},
        {"stopping": EarlyStopping("val/loss", 2)},
        {"dropout": 0.5},
        {"hidden": (9,)},
        {"batch_size": 16},
        {"epochs": 6},
        {"dtype": "float32"},
        {"random_state": 1},
    ],
    ids=str,
)
def test_every_setting_takes_effect(changes: dict[str, Any]) -> None:
    assert bytes_of(fitted(**changes)) != bytes_of(fitted())


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_it_is_the_trainer_called_directly(dtype: str) -> None:
    model = fitted(
        hidden=(7, 6),
        activation="gelu",
        dropout=0.2,
        initializer="he",
        loss=SoftmaxCrossEntropy(0.1),
        batch_size=20,
        optimizer=SGD(momentum=0.8),
        lr=0.05,
        epochs=6,
        schedule=Cosine(warmup=1),
        dtype=dtype,
        random_state=3,
    )
    network = MLP(4, (7, 6), 3, GELU(), 0.2).layers
    parameters = Random(HeNormal(), Zeros()).initialize(network, stream(3, "weights"), dtype)
    history = list(
        follow(
            network,
            parameters,
            {"train": Arrays(SCALED.astype(dtype), Y)},
            loss=SoftmaxCrossEntropy(0.1),
            batching=Mini(20),
            optimizer=SGD(momentum=0.8),
            lr=0.05,
            epochs=6,
            seed=3,
            schedule=Cosine(warmup=1),
            stopping=Never(),
        )
    )
    assert model.network_ == network
    assert bytes_of(model) == [
        array.tobytes() for layer in history[-1].parameters for array in layer
    ]
    assert model.loss_curve_ == [epoch.scores["train"].loss for epoch in history]
    assert model.predict_proba(SCALED).dtype == dtype
    assert (model.n_iter_, model.kept_epoch_, model.loss_) == (6, 6, model.loss_curve_[-1])
    last = history[-1]
    assert model.history_[-1] == {
        "epoch": 6,
        "train/loss": last.scores["train"].loss,
        "train/accuracy": last.scores["train"].accuracy,
        "updates": 48,
        "samples": 900,
        "lr": last.lr,
    }


def test_early_stopping_keeps_the_weights_of_the_best_epoch() -> None:
    """Drawn here again, the validation set gives the kept weights their epoch's score."""
    model = fitted(
        epochs=200, lr=0.1, stopping=EarlyStopping("val/loss", 7), validation_fraction=0.2
    )
    _, x, _, labels = train_test_split(SCALED, Y, test_size=0.2, stratify=Y, random_state=0)
    losses = [row["val/loss"] for row in model.history_]
    assert model.kept_epoch_ == int(np.argmin(losses)) + 1 == model.n_iter_ - 7 < 193
    kept = model.history_[model.kept_epoch_ - 1]
    assert model.loss_ == kept["train/loss"]
    found = score(model.network_, model.parameters_, Arrays(x, labels), SoftmaxCrossEntropy())
    assert (found.loss, found.accuracy) == (kept["val/loss"], kept["val/accuracy"])


@pytest.mark.parametrize(
    ("changes", "trained"),
    [
        ({}, 150),
        ({"stopping": EarlyStopping("train/loss", 10)}, 150),
        ({"stopping": "early"}, 135),
        ({"schedule": "plateau", "validation_fraction": 0.2}, 120),
    ],
)
def test_samples_are_set_apart_only_where_a_validation_metric_is_watched(
    changes: dict[str, Any], trained: int
) -> None:
    first = fitted(**changes).history_[0]
    assert first["samples"] == trained
    assert ("val/loss" in first) == (trained < 150)


@pytest.mark.parametrize(
    ("size", "updates"), [(32, 5), (1, 150), ("full", 1), (10**6, 1), (np.int64(50), 3)]
)
def test_batches(size: Any, updates: int) -> None:
    assert fitted(batch_size=size, epochs=1).history_[0]["updates"] == updates


def test_equal_random_states_give_equal_bytes() -> None:
    settings: dict[str, Any] = {"dropout": 0.2, "stopping": "early"}
    first, again, other = (fitted(random_state=seed, **settings) for seed in (5, np.int64(5), 6))
    assert bytes_of(first) == bytes_of(again) != bytes_of(other)
    assert pickle.dumps(first) == pickle.dumps(first.fit(np.asfortranarray(SCALED), Y))
    drawn = [fitted(random_state=np.random.RandomState(seed)) for seed in (0, 0, 1)]
    assert bytes_of(drawn[0]) == bytes_of(drawn[1]) != bytes_of(drawn[2])
    assert bytes_of(fitted(random_state=None)) != bytes_of(fitted(random_state=None))


def test_a_pickle_answers_as_the_original() -> None:
    model = fitted(activation=LeakyReLU(0.2))
    restored = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(restored.predict_proba(SCALED), model.predict_proba(SCALED))
    assert restored.get_params() == model.get_params()


@pytest.mark.parametrize(
    "loss", ["softmax_cross_entropy", "sigmoid_cross_entropy", "squared_error"]
)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_what_is_predicted_is_most_probable(loss: str, dtype: str) -> None:
    model = fitted(y=NAMES[Y], loss=loss, dtype=dtype, epochs=80)
    probabilities = model.predict_proba(SCALED)
    np.testing.assert_array_equal(model.predict(SCALED), NAMES[probabilities.argmax(axis=1)])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    assert model.score(SCALED, NAMES[Y]) > 0.9
    model.set_params(loss="none", dtype="none")  # what is set after a fit is for the next one
    np.testing.assert_array_equal(model.predict_proba(SCALED), probabilities)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"activation": "rellu"}, "activation=rellu: no such activation; did you mean relu?"),
    ({"optimizer": "momentun"}, "optimizer=momentun: no such optimizer; did you mean momentum?"),
    ({"stopping": "earl"}, "stopping=earl: no such stopping; did you mean early?"),
    ({"optimizer": SGD}, "must be the name of an option or an object of class Optimizer"),
    (
        {"schedule": None},
        "schedule=None: must be the name of an option or an object of class Schedule",
    ),
    ({"loss": Tanh()}, "an object of class Loss"),
    ({"hidden": 100}, "hidden=100: must be a list"),
    ({"hidden": (5, 0)}, "hidden=[5, 0]: every layer needs 1 unit or more"),
    ({"hidden": (5, "a")}, "hidden[1]=a: must be a whole number"),
    ({"dropout": 1}, "dropout=1.0: must be 0 or more and below 1"),
    ({"batch_size": 0}, "batch_size=0: must be 1 or more, or full"),
    ({"batch_size": "ful"}, "batch_size=ful: must be 1 or more, or full"),
    ({"lr": 0}, "lr=0.0: must be a positive, finite number"),
    ({"lr": "fast"}, "lr=fast: must be a number"),
    ({"epochs": 0}, "epochs=0: must be 1 or more"),
    ({"epochs": 2.5}, "epochs=2.5: must be a whole number"),
    ({"validation_fraction": 1.0}, "validation_fraction=1.0: must lie between 0 and 1"),
    (
        {"validation_fraction": 0.001, "stopping": "early"},
        "validation_fraction=0.001: 150 samples can't be divided",
    ),
    ({"dtype": "float46"}, "dtype=float46: must be float64 or float32; did you mean float64?"),
    ({"random_state": -1}, "Seed must be between 0 and"),
    ({"initializer": FromFile(Path("none.npz"))}, "none.npz: no such file"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=[str(changes) for changes, _ in WRONG])
def test_a_wrong_value_is_a_value_error_that_says_what_is_right(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        fitted(**changes)
    assert message in str(raised.value)


def test_one_class_is_refused() -> None:
    with pytest.raises(
        ValueError, match="y holds one class only, setosa: a classifier needs two or more"
    ):
        fitted(y=NAMES[np.zeros(150, dtype=int)])


def test_divergence_is_told_and_leaves_nothing_that_could_be_taken_for_a_fit() -> None:
    model = NetworkClassifier(activation="identity", optimizer="sgd", lr=1e200, random_state=0)
    with pytest.raises(Diverged, match="a smaller lr may help"):
        model.fit(SCALED, Y)
    with pytest.raises(NotFittedError):
        model.predict(SCALED)


def test_a_target_that_is_not_reached_warns() -> None:
    with pytest.warns(ConvergenceWarning, match="the target is 1e-09") as caught:
        model = fitted(stopping=Target("train/loss", 1e-9))
    assert model.n_iter_ == 5
    assert Path(caught[0].filename).name == "test_estimator.py"
    assert fitted(stopping=Target("train/loss", 0.5), epochs=100, schedule=Constant()).n_iter_ < 100

"""A network as a scikit-learn estimator, for pipelines, cross-validation and grid searches."""

import inspect
import math
import typing
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from numbers import Integral
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from src.config.reader import convert, option
from src.nn.initializers import Initializer
from src.nn.layers import Activation, Array
from src.nn.losses import Loss
from src.nn.network import MLP, forward
from src.support.errors import InvalidValue, UserError, require
from src.support.randomness import stream
from src.support.threads import one_blas_thread
from src.training.batching import Batching, Full, Mini
from src.training.engines.base import Arrays
from src.training.loop import train_one
from src.training.optimizers import Optimizer
from src.training.schedules import Schedule
from src.training.scoring import Score
from src.training.stopping import Stopping
from src.training.training_run import TrainingRun, watched


@contextmanager
def _value_errors() -> Iterator[None]:
    """Turn a UserError of the block into a ValueError, as users of scikit-learn expect."""
    try:
        yield
    except UserError as error:
        raise ValueError(str(error)) from None


class NetworkClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc] # scikit-learn ships no types
    """A multilayer perceptron as a scikit-learn classifier, trained by ``src.training.loop.train``.

    Each choice is the name of an option under ``conf/`` ("momentum") or an object
    (``SGD(momentum=0.8)``). ``batch_size`` is a number of samples, at most all of them, or "full".
    Where ``stopping`` or ``schedule`` watches a val/ metric, a stratified ``validation_fraction``
    of the samples becomes the validation set; otherwise all samples are trained on. An integer
    ``random_state`` is the seed as ``train`` takes it: equal seeds produce equal bytes.

    The defaults should serve without tuning. Adam's step size hardly depends on the scale of the
    gradients. It therefore learns unscaled features too, if more slowly, where vanilla SGD may
    diverge. On a few hundred samples, 100 epochs at lr 0.003 reach about the same result as 200 at
    the usual 0.001. In double precision the probabilities of a sample do not depend on the other
    samples, up to rounding.

    After ``fit``: ``classes_``; ``n_features_in_``; ``feature_names_in_`` where the columns have
    names; ``network_`` and ``parameters_`` (for ``src.nn.network.forward``); ``history_`` (one dict
    per epoch); ``loss_curve_`` (its train/loss); ``n_iter_`` (the number of epochs trained);
    ``kept_epoch_`` (the epoch, from 1, whose weights are kept) and ``loss_`` (its train/loss).
    """

    def __init__(
        self,
        *,
        hidden: Sequence[int] = (100,),
        activation: str | Activation = "relu",
        dropout: float = 0.0,
        initializer: str | Initializer = "xavier",
        loss: str | Loss = "softmax_cross_entropy",
        batch_size: int | str = 32,
        optimizer: str | Optimizer = "adam",
        lr: float = 0.003,
        epochs: int = 100,
        schedule: str | Schedule = "constant",
        stopping: str | Stopping = "never",
        validation_fraction: float = 0.1,
        dtype: str = "float64",
        random_state: int | np.random.RandomState | None = None,
    ):
        self.hidden = hidden
        self.activation = activation
        self.dropout = dropout
        self.initializer = initializer
        self.loss = loss
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.lr = lr
        self.epochs = epochs
        self.schedule = schedule
        self.stopping = stopping
        self.validation_fraction = validation_fraction
        self.dtype = dtype
        self.random_state = random_state

    @_value_errors()
    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike) -> Self:
        """Train a new network on ``X (n, features)`` and ``y (n,)``; return this estimator.

        The classes in ``y`` may be numbers or strings. Raises ValueError for a wrong parameter or
        wrong data, and Diverged. Warns with ConvergenceWarning where the target of ``stopping`` is
        not reached.
        """
        chosen = _Settings.of(self)
        # Batches gather rows: that is fast in C order, and slow in a data frame's column order.
        x, targets = validate_data(self, X, y, dtype=chosen.dtype, order="C")
        check_classification_targets(targets)
        classes, labels = np.unique(targets, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(
                f"y holds one class only, {classes[0]}: a classifier needs two or more"
            )
        drawn = check_random_state(self.random_state)  # raises ValueError for a wrong seed
        seed = int(
            self.random_state
            if isinstance(self.random_state, Integral)
            else drawn.randint(2**31 - 1)
        )

        network = MLP(
            x.shape[1], chosen.hidden, len(classes), chosen.activation, chosen.dropout
        ).layers
        parameters = chosen.initializer.initialize(network, stream(seed, "weights"), chosen.dtype)
        run = TrainingRun(
            network,
            chosen.sets(x, labels, seed),
            loss=chosen.loss,
            batching=chosen.batching,
            optimizer=chosen.optimizer,
            lr=chosen.lr,
            epochs=chosen.epochs,
            seed=seed,
            schedule=chosen.schedule,
            stopping=chosen.stopping,
            exact=any(
                metric.startswith("train/") for metric in chosen.metrics
            ),  # so that it is of the weights kept
        )
        epochs = train_one(run, parameters)
        scores: list[Mapping[str, Score]] = []
        history: list[dict[str, float]] = []
        for epoch in epochs:
            scores.append(epoch.scores)
            named = {
                f"{name}/{key}": value
                for name, score in epoch.scores.items()
                for key, value in asdict(score).items()
            }
            counts = {"updates": epoch.updates, "samples": epoch.samples, "lr": epoch.lr}
            history.append(
                {"epoch": epoch.number, **named, **counts}
            )  # no seconds: equal fits leave equal bytes
            if epoch.kept:
                parameters, kept = epoch.parameters, epoch.number
        if shortfall := chosen.stopping.shortfall(watched(chosen.stopping.watch, scores)):
            warnings.warn(shortfall, ConvergenceWarning, stacklevel=3)

        self.classes_ = classes
        self.network_, self.parameters_, self._loss = network, parameters, chosen.loss
        self.history_, self.loss_curve_ = history, [row["train/loss"] for row in history]
        self.n_iter_, self.kept_epoch_, self.loss_ = len(history), kept, self.loss_curve_[kept - 1]
        return self

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return the most probable class (n,) of each row of ``X (n, features)``.

        Raises what ``predict_proba`` raises.
        """
        logits = self._logits(X)
        classes: npt.NDArray[Any] = self.classes_[logits.argmax(axis=1)]
        return classes

    def predict_proba(self, X: npt.ArrayLike) -> Array:
        """Return the probabilities (n, classes) for ``X (n, features)``.

        The columns are in the order of ``classes_``. Raises NotFittedError before ``fit``, and
        ValueError where X has other features than in ``fit``.
        """
        logits = self._logits(X)
        probabilities: Array = self._loss.probabilities(logits)
        return probabilities

    def _logits(self, X: npt.ArrayLike) -> Array:
        check_is_fitted(self, "parameters_")
        x = validate_data(self, X, dtype=self.parameters_[0][0].dtype, reset=False)
        with one_blas_thread():
            return forward(self.network_, self.parameters_, x)[-1]


@dataclass(frozen=True)
class _Settings:
    """The constructor's parameters under the same names, converted for training."""

    hidden: tuple[int, ...]
    activation: Activation
    dropout: float
    initializer: Initializer
    loss: Loss
    batch_size: int | str
    optimizer: Optimizer
    lr: float
    epochs: int
    schedule: Schedule
    stopping: Stopping
    validation_fraction: float
    dtype: Literal["float64", "float32"]

    @staticmethod
    def of(estimator: NetworkClassifier) -> "_Settings":
        """Return an estimator's parameters. Raises ConfigError or InvalidValue for a wrong one."""
        hints = typing.get_type_hints(_Settings)
        return _Settings(
            **{name: _typed(name, getattr(estimator, name), kind) for name, kind in hints.items()}
        )

    def __post_init__(self) -> None:
        size, share = self.batch_size, self.validation_fraction
        right = size >= 1 if isinstance(size, int) else size == "full"
        require(right, "batch_size", size, "must be 1 or more, or full for all samples at once")
        require(0 < self.lr < math.inf, "lr", self.lr, "must be a positive, finite number")
        require(self.epochs >= 1, "epochs", self.epochs, "must be 1 or more")
        require(0 < share < 1, "validation_fraction", share, "must lie between 0 and 1")

    @property
    def metrics(self) -> list[str]:
        """The metrics that the stopping rule and the schedule watch."""
        return [watch.metric for watch in (self.stopping.watch, self.schedule.watch) if watch]

    def sets(self, x: Array, labels: npt.NDArray[np.int64], seed: int) -> dict[str, Arrays]:
        """Return the training set and, where a metric needs it, the validation set.

        Raises InvalidValue where the samples can't be divided.
        """
        if not any(metric.startswith("val/") for metric in self.metrics):
            return {"train": Arrays(x, labels)}
        share = self.validation_fraction
        try:
            split = train_test_split(x, labels, test_size=share, stratify=labels, random_state=seed)
        except ValueError as error:  # too few samples, in all or of one class
            raise InvalidValue(
                "validation_fraction", share, f"{len(labels)} samples can't be divided: {error}"
            ) from None
        return {"train": Arrays(split[0], split[2]), "val": Arrays(split[1], split[3])}

    @property
    def batching(self) -> Batching:
        """The batching; a batch size above the number of samples means all of them."""
        return Mini(self.batch_size) if isinstance(self.batch_size, int) else Full()


def _typed(name: str, value: Any, kind: Any) -> Any:
    """Return a parameter's value as its type; a string in place of an object names an option."""
    if not inspect.isabstract(kind):
        return convert(_plain(value), kind, name)
    if isinstance(value, str):
        return option(kind, value)
    require(
        isinstance(value, kind),
        name,
        value,
        f"must be the name of an option or an object of class {kind.__name__}",
    )
    return value


def _plain(value: Any) -> Any:
    """Return NumPy's numbers, as in search grids, as Python's, and any sequence as a list."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value

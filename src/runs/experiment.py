"""One run as a typed value: everything that decides its result, and its identity."""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from src.data import Dataset, Source, Split
from src.nn.initializers import Initializer
from src.nn.layers import Array
from src.nn.losses import Loss
from src.nn.network import MLP, Network, Parameters, forward, parameter_count
from src.support.errors import InvalidValue, require, suggest, within
from src.support.randomness import stream
from src.support.serialization import to_plain
from src.support.threads import one_blas_thread
from src.training.batching import Batching
from src.training.diagnostics import LayerState
from src.training.engines.base import Arrays
from src.training.loop import train_one
from src.training.optimizers import Optimizer
from src.training.schedules import Schedule
from src.training.stopping import EarlyStopping, Stopping, Target
from src.training.training_run import Epoch, Progress, TrainingRun

_MOST_EPOCHS = 10**9


@dataclass(frozen=True)
class Experiment:
    """The choices that decide what a run computes.

    Equal experiments on equal data and weight files produce equal bytes.
    """

    model: MLP
    initializer: Initializer
    loss: Loss
    batching: Batching
    optimizer: Optimizer
    schedule: Schedule
    stopping: Stopping
    data: Source
    lr: float
    epochs: int
    seed: int
    dtype: Literal["float32", "float64"]
    train_metrics: Literal["running", "exact"]
    engine: Literal["fast", "plain"]

    def __post_init__(self) -> None:
        require(0 < self.lr < math.inf, "lr", self.lr, "must be a positive, finite number")
        require(self.epochs >= 1, "epochs", self.epochs, "must be 1 or more")
        require(
            self.epochs <= _MOST_EPOCHS, "epochs", self.epochs, f"must be {_MOST_EPOCHS:,} or less"
        )
        require(self.seed >= 0, "seed", self.seed, "must be 0 or more")
        with within("optimizer"):
            self.optimizer.check(np.dtype(self.dtype))
        self._check_stopping()

    def _check_stopping(self) -> None:
        """Raise InvalidValue for a stopping rule that can't do what it promises."""
        stopping = self.stopping
        if isinstance(stopping, EarlyStopping) and stopping.restore_best:
            of_kept_weights = stopping.metric.startswith("val/") or self.train_metrics == "exact"
            require(
                of_kept_weights,
                "stopping.metric",
                stopping.metric,
                "is measured before each update, not with the weights that are kept: "
                "set train_metrics=exact",
            )
        if isinstance(stopping, Target) and stopping.metric == "train/loss":
            least = self.loss.least(self.model.outputs)
            require(
                stopping.value > least,
                "stopping.value",
                stopping.value,
                f"this loss never falls below {least:.4g}: set a greater value",
            )

    @property
    def digest(self) -> str:
        """32 hexadecimal digits: two experiments that differ in any choice have different ones."""
        canonical = json.dumps(to_plain(self), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:32]

    def prepare(self, dataset: Dataset) -> "Prepared":
        """Return the experiment with its data and its first weights: all that is left is to train.

        Raises InvalidValue or DataError where the choices and the data don't fit together.
        """
        self._check_fit(dataset)
        network = self.model.layers
        return Prepared(self, dataset, network, self._first_weights(network))

    def _check_fit(self, dataset: Dataset) -> None:
        """Raise InvalidValue where a choice doesn't fit the data."""
        name, features, classes = dataset.name, dataset.features, dataset.classes
        shape = "×".join(map(str, dataset.shape))
        pixels = f"{name} has images of {shape} = {features} pixels: set model.inputs={features}"
        require(self.model.inputs == features, "model.inputs", self.model.inputs, pixels)
        labels = f"{name} has labels up to {classes - 1}: set model.outputs={classes}"
        require(self.model.outputs >= classes, "model.outputs", self.model.outputs, labels)
        with within("batching"):
            self.batching.check(len(dataset.train))
        parts = [part for part, _ in dataset.splits()]
        for key, watch in (("schedule", self.schedule.watch), ("stopping", self.stopping.watch)):
            if watch:
                part, measure = watch.metric.split("/")
                near = suggest(watch.metric, [f"{other}/{measure}" for other in parts])
                missing = f"{name} is split without a {part} set{near}"
                require(part in parts, f"{key}.metric", watch.metric, missing)

    def _first_weights(self, network: Network) -> Parameters:
        """Draw or read the first weights. Raises InvalidValue where memory can't hold them."""
        count = parameter_count(network)
        rule = f"{count:,} parameters don't fit into memory"
        # Weights are drawn in double precision. NumPy refuses greater arrays with a ValueError.
        addressable = count * np.dtype(np.float64).itemsize <= np.iinfo(np.intp).max
        require(addressable, "model.hidden", list(self.model.hidden), rule)
        try:
            return self.initializer.initialize(network, stream(self.seed, "weights"), self.dtype)
        except MemoryError:
            raise InvalidValue("model.hidden", list(self.model.hidden), rule) from None


@dataclass(frozen=True)
class Prepared:
    """An experiment with its data loaded and its first weights drawn: ready to train."""

    experiment: Experiment
    dataset: Dataset
    network: Network
    parameters: Parameters

    def train(
        self,
        inspect_every: int | None = None,
        start: Progress | None = None,
    ) -> Iterator[Epoch]:
        """Yield the record of each epoch; every ``inspect_every`` epochs with the layers' state.

        Training begins with the first epoch, or goes on from ``start``. Raises Diverged.
        """
        run = self.training_run(inspect_every)
        yield from train_one(run, start or self.parameters, engine=self.experiment.engine)

    def training_run(self, inspect_every: int | None = None) -> TrainingRun:
        """Return the settings of the training run."""
        chosen = self.experiment
        return TrainingRun(
            self.network,
            {name: self._arrays(split) for name, split in self.dataset.splits()},
            loss=chosen.loss,
            batching=chosen.batching,
            optimizer=chosen.optimizer,
            lr=chosen.lr,
            epochs=chosen.epochs,
            seed=chosen.seed,
            schedule=chosen.schedule,
            stopping=chosen.stopping,
            exact=chosen.train_metrics == "exact",
            inspect_every=inspect_every,
        )

    def inspect(self) -> tuple[LayerState, ...]:
        """Return the state of the layers before the first update."""
        run = self.training_run()
        with one_blas_thread(), np.errstate(all="ignore"):
            state = run.optimizer.start(self.parameters)
            return run.look(self.parameters, state, slice(0, run.batch_size), run.lr)

    def _arrays(self, split: Split) -> Arrays:
        return Arrays(split.images, split.labels, self.dataset.scale, self.experiment.dtype)

    def scaled(self, images: npt.NDArray[Any]) -> Array:
        """Return images as the network sees them: in its precision and multiplied by the scale."""
        dtype = np.dtype(self.experiment.dtype)
        pixels: Array = images.astype(dtype) * dtype.type(self.dataset.scale)
        return pixels

    def predict(
        self, parameters: Parameters, images: npt.NDArray[Any]
    ) -> tuple[npt.NDArray[np.int64], Array]:
        """Return the labels (n,) and the class probabilities (n, classes) of images (n, features).

        The images are in the range that their source has, as a rule 0 to 255.
        """
        with one_blas_thread():
            logits = forward(self.network, parameters, self.scaled(images))[-1]
            return logits.argmax(axis=-1), self.experiment.loss.probabilities(logits)

"""One run as a typed value: everything that decides its result, and its identity."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from src.batching import Batching
from src.data import Dataset, Source
from src.errors import InvalidValue, require, within
from src.nn.initializers import Initializer
from src.nn.layers import Array
from src.nn.losses import Loss, SoftmaxCrossEntropy
from src.nn.network import MLP, Network, Parameters, forward, parameter_count
from src.optimizers import Optimizer
from src.randomness import stream
from src.training import Arrays, Epoch, train


@dataclass(frozen=True)
class Experiment:
    """The choices that decide what a run computes. Equal experiments on equal data and weight files give equal bytes."""

    model: MLP
    initializer: Initializer
    batching: Batching
    optimizer: Optimizer
    data: Source
    lr: float
    epochs: int
    seed: int
    dtype: Literal["float32", "float64"]
    train_metrics: Literal["running", "exact"]

    def __post_init__(self) -> None:
        require(0 < self.lr < math.inf, "lr", self.lr, "must be a positive, finite number")
        require(self.epochs >= 1, "epochs", self.epochs, "must be 1 or more")
        require(self.seed >= 0, "seed", self.seed, "must be 0 or more")

    @property
    def digest(self) -> str:
        """32 hexadecimal digits that differ where any choice differs."""
        canonical = json.dumps(_plain(self), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:32]

    def prepare(self, dataset: Dataset) -> "Prepared":
        """Bring data and network together.

        Raises InvalidValue or DataError where they don't fit, so that nothing is begun that can't be done.
        """
        name, features, classes = dataset.name, dataset.features, dataset.classes
        pixels = (
            f"{name} has images of {'×'.join(map(str, dataset.shape))} = {features} pixels: set model.inputs={features}"
        )
        require(self.model.inputs == features, "model.inputs", self.model.inputs, pixels)
        labels = f"{name} has labels up to {classes - 1}: set model.outputs={classes}"
        require(self.model.outputs >= classes, "model.outputs", self.model.outputs, labels)
        with within("batching"):
            self.batching.check(len(dataset.train))
        network = self.model.layers
        try:
            parameters = self.initializer.initialize(network, stream(self.seed, "weights"), self.dtype)
        except (MemoryError, ValueError):  # the second from NumPy, for sizes past any memory
            too_many = f"{parameter_count(network):,} parameters don't fit into memory"
            raise InvalidValue("model.hidden", list(self.model.hidden), too_many) from None
        return Prepared(self, dataset, network, parameters, SoftmaxCrossEntropy())


@dataclass(frozen=True)
class Prepared:
    """An experiment whose data is loaded and whose first parameters are drawn: all that is left is to train."""

    experiment: Experiment
    dataset: Dataset
    network: Network
    parameters: Parameters
    loss: Loss

    def train(self) -> Iterator[Epoch]:
        """Yield each epoch's record. Raises Diverged."""
        chosen = self.experiment
        sets = {name: Arrays(self.scaled(split.images), split.labels) for name, split in self.dataset.splits()}
        yield from train(
            self.network,
            self.parameters,
            sets,
            loss=self.loss,
            batching=chosen.batching,
            optimizer=chosen.optimizer,
            lr=chosen.lr,
            epochs=chosen.epochs,
            seed=chosen.seed,
            exact=chosen.train_metrics == "exact",
        )

    def scaled(self, images: npt.NDArray[Any]) -> Array:
        """Return images as the network sees them: in its precision, multiplied by the data's scale."""
        dtype = np.dtype(self.experiment.dtype)
        pixels: Array = images.astype(dtype) * dtype.type(self.dataset.scale)
        return pixels

    def probabilities(self, parameters: Parameters, images: npt.NDArray[Any]) -> Array:
        """Return the class probabilities, of shape (n, classes), for images as their source holds them."""
        return self.loss.probabilities(forward(self.network, parameters, self.scaled(images))[-1])


def _plain(value: Any) -> Any:
    """Turn a value into JSON's types; a configured object becomes its class's name and its fields."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"class": type(value).__name__, **fields}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value

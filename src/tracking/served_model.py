"""A trained network as MLflow loads and serves it; a copy of this file is part of each model."""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from src.nn.layers import Activation
from src.nn.losses import Loss
from src.nn.network import MLP, forward
from src.nn.weights import load_weights
from src.support.serialization import from_plain


class Classifier:
    """A network with its weights, read from the folder that holds both."""

    def __init__(self, folder: Path) -> None:
        settings = json.loads((folder / "network.json").read_text(encoding="utf-8"))
        self.scale: float = settings["scale"]
        self.dtype = np.dtype(settings["dtype"])
        for plugin in settings["plugins"]:  # classes of the user's own, shipped with the model
            importlib.import_module(f"{__name__.split('.')[0]}.plugins.{plugin}")
        classes: list[type] = [MLP, Activation, Loss]
        self.model: MLP = from_plain(settings["model"], classes)
        self.loss: Loss = from_plain(settings["loss"], classes)
        self.parameters = load_weights(folder / "weights.npz", self.model.layers, self.dtype)

    def predict(self, images: Any, params: Any = None) -> dict[str, npt.NDArray[Any]]:
        """Return ``label (n,)`` and ``probabilities (n, classes)`` of images.

        ``images (n, features)`` are numbers of any dtype, in the range of the training data: an
        array, a list of lists or a data frame. Raises ValueError for any other shape or type.
        """
        pixels = np.asarray(images)
        if pixels.ndim != 2 or pixels.shape[1] != self.model.inputs:
            raise ValueError(
                f"images of shape {pixels.shape}: the shape must be (n, {self.model.inputs})"
            )
        if pixels.dtype.kind not in "buif":
            raise ValueError(f"images of dtype {pixels.dtype}: pixels must be numbers")
        x = pixels.astype(self.dtype) * self.dtype.type(self.scale)
        logits = forward(self.model.layers, self.parameters, x)[-1]
        return {"label": logits.argmax(axis=-1), "probabilities": self.loss.probabilities(logits)}


def _load_pyfunc(path: str) -> Classifier:
    """Return the network in a folder; MLflow calls the function of this name."""
    return Classifier(Path(path))

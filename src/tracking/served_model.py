"""A trained network as an MLflow model: this file is stored with the weights and run wherever the model is loaded."""

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.pyfunc.model import PythonModel

from src.nn.layers import Activation
from src.nn.losses import Loss
from src.nn.network import MLP, forward
from src.nn.weights import load_weights
from src.support.serialization import from_plain


class Classifier:
    """Takes ``(n, features)`` pixels in the range of the training data; gives each image's label and probabilities."""

    def load_context(self, context: Any) -> None:
        """Read the network and its weights; MLflow calls this once."""
        settings = json.loads(Path(context.artifacts["network"]).read_text(encoding="utf-8"))
        self.scale: float = settings["scale"]
        self.dtype = np.dtype(settings["dtype"])
        classes: list[type] = [MLP, *Activation.__subclasses__(), *Loss.__subclasses__()]
        self.network = from_plain(settings["model"], classes).layers
        self.loss: Loss = from_plain(settings["loss"], classes)
        self.parameters = load_weights(Path(context.artifacts["weights"]), self.network, self.dtype)

    # Unannotated: MLflow would read a schema out of type hints, and not the right one.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Return ``label (n,)`` and ``probabilities (n, classes)``; MLflow has checked the input's shape."""
        x = np.asarray(model_input).astype(self.dtype) * self.dtype.type(self.scale)
        logits = forward(self.network, self.parameters, x)[-1]
        return {"label": logits.argmax(axis=-1), "probabilities": self.loss.probabilities(logits)}


class Model(Classifier, PythonModel):
    """The classifier as MLflow wants it; apart, since MLflow would wrap a ``predict`` of its own in checks of such hints."""


mlflow.models.set_model(Model())

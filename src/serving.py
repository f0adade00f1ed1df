"""A trained network as an MLflow model: this file is stored with the weights and run wherever the model is loaded."""

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.pyfunc.model import PythonModel

from src.nn.losses import SoftmaxCrossEntropy
from src.nn.network import MLP, forward
from src.nn.weights import load_weights


class Classifier(PythonModel):
    """Takes ``(n, features)`` pixels in the range of the training data; gives each image's label and probabilities."""

    def load_context(self, context: Any) -> None:
        settings = json.loads(Path(context.artifacts["network"]).read_text(encoding="utf-8"))
        self.scale: float = settings["scale"]
        self.dtype = np.dtype(settings["dtype"])
        self.network = MLP(**{**settings["model"], "hidden": tuple(settings["model"]["hidden"])}).layers
        self.parameters = load_weights(Path(context.artifacts["weights"]), self.network, self.dtype)

    # Unannotated, since MLflow would take a type hint for the schema, which the signature gives.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        x = np.asarray(model_input).astype(self.dtype) * self.dtype.type(self.scale)
        probabilities = SoftmaxCrossEntropy().probabilities(forward(self.network, self.parameters, x)[-1])
        return {"label": probabilities.argmax(axis=-1), "probabilities": probabilities}


mlflow.models.set_model(Classifier())

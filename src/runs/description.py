"""Describes what a run learned from and what it trained, in JSON's types."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from src.data import Dataset
from src.runs.experiment import Prepared
from src.support.serialization import to_plain


def of_dataset(dataset: Dataset) -> dict[str, Any]:
    """Return the name, the digest, the types and the sizes of a dataset."""
    train = dataset.train
    return {
        "name": dataset.name,
        "digest": dataset.digest,
        "description": str(dataset),
        "images": [str(train.images.dtype), list(train.images.shape)],
        "labels": [str(train.labels.dtype), list(train.labels.shape)],
    }


def of_network(prepared: Prepared) -> dict[str, Any]:
    """Return what a served model must know of its network, beside the weights."""
    chosen = prepared.experiment
    parts = (chosen.model, chosen.loss)
    return {
        "model": to_plain(chosen.model),
        "loss": to_plain(chosen.loss),
        "scale": prepared.dataset.scale,
        "dtype": chosen.dtype,
        "outputs": chosen.model.outputs,
        "plugins": sorted({module for part in parts for module in _foreign_modules(part)}),
    }


def _foreign_modules(value: Any) -> Iterator[str]:
    """Yield the modules outside ``src`` that define a configured object or a part of it."""
    if dataclasses.is_dataclass(value):
        top = type(value).__module__.split(".")[0]
        if top != "src":
            yield top
        for field in dataclasses.fields(value):
            yield from _foreign_modules(getattr(value, field.name))

"""Draws the pictures of a run from the files in its folder, at the end of the run or later."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from src.data import Split
from src.nn.weights import load_weights
from src.runs.experiment import Experiment, Prepared
from src.runs.folder import PREDICTIONS, WEIGHTS
from src.runs.history import columns, read_history
from src.runs.job import Job, read_curve
from src.runs.pictures import charts, images
from src.runs.pictures.charts import Values
from src.runs.pictures.confusion import confusion
from src.runs.pictures.style import add_caption, save
from src.runs.predictions import Predictions
from src.support.errors import DataError, UserError
from src.training import diagnostics

_MOST_SAMPLES = 60  # in one picture


def draw(
    folder: Path,
    job: Job,
    prepared: Prepared,
    name: str,
    *,
    samples: Sequence[int] = (),
    into: Path | None = None,
) -> list[Path]:
    """Draw every picture for which the folder holds what is needed; return the files written.

    ``samples.png`` needs the data only. ``curves.png`` and ``layers.png`` need ``history.csv``,
    ``confusion.png`` and ``predictions.png`` need ``predictions.npz``, ``first_layer.png`` needs
    ``weights.npz``: a run that failed leaves the first only.

    Args:
        folder: Of the run.
        job: The configuration of the run.
        prepared: Its data and its network.
        name: Of the run, for the caption.
        samples: Numbers of predicted samples, for ``chosen_samples.png``.
        into: The folder of the pictures, by default that of the run. It must exist.

    Raises:
        UserError: A file in the folder is damaged, the data is not that of the run, or a sample
            that was asked for does not exist.
    """
    paths = []
    for title, figure in _figures(folder, job, prepared, samples):
        add_caption(figure, name, describe(job.experiment))
        paths.append((into or folder) / f"{title}.png")
        save(figure, paths[-1])
    return paths


def describe(experiment: Experiment) -> str:
    """Return the settings of an experiment in one line."""
    return ", ".join(
        [
            str(experiment.model),
            f"initializer {experiment.initializer}",
            f"batching {_brief(experiment.batching)}",
            f"optimizer {_brief(experiment.optimizer)}",
            f"lr {experiment.lr:g}",
            f"epochs {experiment.epochs}",
            f"seed {experiment.seed}",
            f"data {experiment.data.name}",
        ]
    )


def _brief(value: Any) -> str:
    """Return a configured object as its constructor call, without what is 0, false or null."""
    fields = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
    settings = ", ".join(f"{name}={setting}" for name, setting in fields if setting)
    return f"{type(value).__name__}({settings})" if settings else type(value).__name__


def _figures(
    folder: Path, job: Job, prepared: Prepared, samples: Sequence[int]
) -> Iterator[tuple[str, Figure]]:
    """Yield the pictures that can be drawn, each with its name."""
    dataset = prepared.dataset
    asked = _predictions(folder, prepared)
    if samples:
        _require_samples(samples, asked, folder)
    yield "samples", images.samples(dataset.train.images, dataset.train.labels, dataset.shape)

    history = columns(read_history(folder))
    if history:
        curve = job.reference.curve if job.reference else None
        yield "curves", charts.curves(history, {curve.metric: read_curve(curve)} if curve else None)
        if any(column.startswith("layer") for column in history):
            yield "layers", charts.layers(_measured(history, prepared))
    if asked:
        predictions, split = asked
        yield "confusion", confusion(predictions, prepared.experiment.model.outputs)
        yield "predictions", images.predictions(split.images, predictions, dataset.shape)
        if samples:
            chosen = images.chosen_samples(split.images, predictions, samples, dataset.shape)
            yield "chosen_samples", chosen
    weights = folder / WEIGHTS
    if weights.exists():
        parameters = load_weights(weights, prepared.network, prepared.experiment.dtype)
        yield "first_layer", images.first_layer(parameters[0][0], dataset.shape)


def _predictions(folder: Path, prepared: Prepared) -> tuple[Predictions, Split] | None:
    """Return the kept predictions and the samples that they are of, if the run left any."""
    path = folder / PREDICTIONS
    if not path.exists():
        return None
    kept = Predictions.load(path)
    split = dict(prepared.dataset.splits()).get(kept.part)
    if split is not None:
        now = Predictions.of(kept.part, split, kept.predicted, kept.probabilities)
        if now.samples == kept.samples:
            return kept, split
    raise DataError(
        f"{path}: its {kept.part} samples differ from those that {prepared.dataset.name} holds "
        "now: restore the data that the run was trained with"
    )


def _require_samples(
    samples: Sequence[int], asked: tuple[Predictions, Split] | None, folder: Path
) -> None:
    """Raise UserError unless every sample that was asked for was predicted."""
    if asked is None:
        raise UserError(
            f"{folder}: holds no predictions.npz, since the run did not finish: "
            "samples can be chosen of a finished run only"
        )
    predictions, split = asked
    for number in samples:
        if not 0 <= number < len(split):
            raise UserError(
                f"samples: {number} is not in the {predictions.part} set of {folder}: "
                f"choose numbers from 0 to {len(split) - 1}"
            )
    if len(samples) > _MOST_SAMPLES:
        raise UserError(f"samples: {len(samples)} are too many: choose up to {_MOST_SAMPLES}")


def _measured(history: Mapping[str, Values], prepared: Prepared) -> dict[int, dict[str, float]]:
    """Return the metrics of the layers by epoch; those of epoch 0 are measured again."""
    measured = {0: diagnostics.measurements(prepared.inspect())}
    names = [column for column in history if column.startswith("layer")]
    for row, epoch in enumerate(history["epoch"]):
        found = {name: float(history[name][row]) for name in names}
        finite = {name: value for name, value in found.items() if np.isfinite(value)}
        if finite:
            measured[int(epoch)] = finite
    return measured

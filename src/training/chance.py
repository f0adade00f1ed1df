"""Tells whether a trained network answers better than a guess, and what is likely in its way."""

from collections.abc import Sequence

import numpy as np

from src.nn.layers import Dense
from src.nn.losses import Labels
from src.nn.network import Parameters
from src.training.diagnostics import are_alike
from src.training.engines.base import Arrays
from src.training.scoring import score
from src.training.training_run import INSPECTED, Epoch, TrainingRun

# A guess gets as many answers right as a network at chance with this probability at most.
_LEVEL = 0.001
_LOW, _HIGH = 0.1, 20.0  # inputs whose greatest one is outside are scaled wrongly
_RISE, _STILL = 1.1, 0.05  # of the loss, compared with the untrained network's
_BY_HEART = 0.5  # by so much more is right of the training set


def majority(labels: Labels) -> float:
    """Return the share of the most frequent class: what the best constant answer gets right."""
    return float(np.bincount(labels).max()) / len(labels)


def is_chance(accuracy: float, labels: Labels, level: float = _LEVEL) -> bool | None:
    """Tell whether an accuracy on these labels is within the sampling error of a guess.

    The guess is always the most frequent class; the test is the one-sided binomial test. None if
    the set can't tell: it is so small, or of one class, that even a perfect score could be chance.
    """
    from scipy.special import bdtrc  # its import takes long, and no training needs it

    share, samples = majority(labels), len(labels)
    if bdtrc(samples - 1, samples, share) >= level:
        return None
    return bool(bdtrc(round(accuracy * samples) - 1, samples, share) >= level)


def at_chance(run: TrainingRun, first: Parameters, epochs: Sequence[Epoch]) -> str | None:
    """Return in a sentence that a finished run is at chance, with the likely reason, or None.

    Judged by the kept weights on the validation set, or on the training set where that one can't
    tell. Nothing is said of a run that has learned a little of its training samples, unless there
    is a reason why it learns no more.

    Args:
        run: The settings, with the sets.
        first: The weights before training.
        epochs: All epochs of the run.
    """
    kept = next(epoch for epoch in reversed(epochs) if epoch.kept)
    accuracies = {name: kept.scores[name].accuracy for name in ("val", "train") if name in run.sets}
    judged = {name: is_chance(value, run.sets[name].labels) for name, value in accuracies.items()}
    part = next((name for name, found in judged.items() if found is not None), None)
    if part is None or not judged[part]:
        return None
    reason = _reason(run, first, epochs, part, has_fitted=judged["train"] is False)
    if reason is None:
        return None
    share = majority(run.sets[part].labels)
    return (
        f"{part}/accuracy {accuracies[part]:.4f} is no better than guessing (the most frequent "
        f"class has {share:.4f} of the samples): {reason}"
    )


def _reason(
    run: TrainingRun, first: Parameters, epochs: Sequence[Epoch], part: str, *, has_fitted: bool
) -> str | None:
    """Return the likely reason why a network is at chance on a set, or None.

    One that ``has_fitted`` its training samples a little may only need more epochs.
    """
    if fault := _equal_units(run, first) or _wrong_range(run.data):
        return fault
    if has_fitted:
        return _by_heart(epochs[-1], part)
    return _lost_again(run, epochs, part) or _loss_movement(run, first, epochs)


def _equal_units(run: TrainingRun, first: Parameters) -> str | None:
    """Name the first hidden layer whose units all start equal."""
    hidden = [i for i, layer in enumerate(run.network) if isinstance(layer, Dense)][:-1]
    for number, i in enumerate(hidden, 1):
        if are_alike(first[i][0]):
            return (
                f"all units of layer {number} start with equal weights, and equal gradients keep "
                "them equal; choose another initializer"
            )
    return None


def _wrong_range(data: Arrays) -> str | None:
    """Say that the inputs are far too small or too large, with the scale that would be right."""
    raw = max(float(data.x.max()), -float(data.x.min()))
    highest = raw * data.scale
    if _LOW <= highest <= _HIGH:
        return None
    if raw == 0:
        return "all inputs are 0"
    scale = "1" if _LOW <= raw <= _HIGH else f"1/{raw:g}"
    how = "only " if highest < _LOW else ""
    return f"the inputs reach {how}{highest:.3g}; set data.scale={scale}"


def _by_heart(epoch: Epoch, part: str) -> str | None:
    """Say that a network has learned its training samples only, if it has."""
    learned, other = epoch.scores["train"].accuracy, epoch.scores[part].accuracy
    if learned < other + _BY_HEART:
        return None
    return (
        f"train/accuracy is {learned:.4f}, so what it has learned does not hold for other "
        "samples; check the labels, or train on more samples"
    )


def _lost_again(run: TrainingRun, epochs: Sequence[Epoch], part: str) -> str | None:
    """Name the epoch at which the network was better than a guess, if there was one."""
    best = max(epochs, key=lambda epoch: epoch.scores[part].accuracy)
    accuracy = best.scores[part].accuracy
    if is_chance(accuracy, run.sets[part].labels, _LEVEL / len(epochs)) is not False:
        return None
    return f"it had {accuracy:.4f} after epoch {best.number} and lost it; a smaller lr may help"


def _loss_movement(run: TrainingRun, first: Parameters, epochs: Sequence[Epoch]) -> str:
    """Judge lr by how the training loss has moved since before training."""
    sample = Arrays(
        run.data.x[:INSPECTED], run.data.labels[:INSPECTED], run.data.scale, run.data.dtype
    )
    with np.errstate(all="ignore"):
        untrained = score(run.network, first, sample, run.loss).loss
    losses = [epoch.scores["train"].loss for epoch in epochs]
    last, highest = losses[-1], max(losses)
    if highest > _RISE * untrained:
        return (
            f"the training loss rose to {highest:.4g} from {untrained:.4g} before training; "
            f"a smaller lr than {run.lr:g} may help"
        )
    if abs(untrained - last) < _STILL * untrained:
        return (
            f"the training loss has hardly moved ({untrained:.4g} before training, {last:.4g} at "
            f"the end); more epochs, a larger lr than {run.lr:g} or another initializer may help"
        )
    return (
        f"the training loss fell from {untrained:.4g} to {last:.4g} without that; more epochs, "
        "another lr or another initializer may help"
    )

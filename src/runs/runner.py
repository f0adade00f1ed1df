"""Trains one run by itself; checks gradients."""

import contextlib
import logging
from collections.abc import Callable

from src.nn.gradcheck import Check, check_gradient
from src.runs.context import RunContext
from src.runs.experiment import Prepared
from src.runs.job import Job
from src.runs.recorder import Finished, recording
from src.support.errors import WrongGradient
from src.support.signals import raise_if_ending
from src.training.training_run import Epoch

log = logging.getLogger(__name__)

_CHECKED = 10  # training samples, for the check of the gradient

# Opens a display of progress for a number of epochs; it yields the function that shows an epoch.
Display = Callable[[int], contextlib.AbstractContextManager[Callable[[Epoch], None]]]


def execute(job: Job, prepared: Prepared, context: RunContext, display: Display) -> Finished:
    """Train a run and write it into its folder. One that was interrupted goes on.

    Raises TrainingFailed; then, too, the end of the run is in the folder.
    """
    with recording(job, prepared, context) as recorder:
        with display(job.experiment.epochs) as show:
            for epoch in prepared.train(job.diagnose, recorder.start):
                recorder.add(epoch)
                if recorder.is_due or recorder.is_requested:
                    recorder.checkpoint()
                show(epoch)
                raise_if_ending()
        recorder.finish()
    return recorder.finished


def gradcheck(prepared: Prepared) -> Check:
    """Check the gradient of an experiment at its initial weights. Raises WrongGradient."""
    train = prepared.dataset.train
    images, labels = prepared.scaled(train.images[:_CHECKED]), train.labels[:_CHECKED]
    check = check_gradient(
        prepared.network, prepared.parameters, prepared.experiment.loss, images, labels
    )
    log.info("gradient: %s", check)
    if not check.passed:
        raise WrongGradient(f"the gradient is wrong: {check}")
    return check

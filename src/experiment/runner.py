"""Trains one run by itself and keeps it; checks gradients."""

import contextlib
import logging
from collections.abc import Callable, Mapping

from src.experiment.experiment import Prepared
from src.experiment.job import Job
from src.experiment.open_run import record
from src.experiment.recorder import Finished
from src.experiment.run_context import RunContext
from src.nn.gradcheck import Check, check_gradient
from src.support.errors import WrongGradient
from src.support.signals import raise_if_ending
from src.training.training_run import Epoch, Progress

log = logging.getLogger(__name__)

_CHECKED = 10  # training samples, for the check of the gradient

# Opens a display of progress for a number of epochs; it yields the function that shows an epoch.
Display = Callable[[int], contextlib.AbstractContextManager[Callable[[Epoch], None]]]


def execute(job: Job, prepared: Prepared, run_context: RunContext, display: Display) -> Finished:
    """Train a run; keep its history, weights, pictures and result in its folder and in MLflow.

    A run that was interrupted goes on from its last checkpoint.

    Raises UserError if MLflow's store can't be opened, and TrainingFailed. In both cases the
    result is in the folder.
    """
    with record(job, prepared, run_context) as recorder:

        def within_epoch(come: Mapping[int, Progress]) -> None:
            recorder.within_epoch(come[0])
            raise_if_ending()

        with display(job.experiment.epochs) as show:
            for epoch in prepared.train(job.diagnose, recorder.start, within_epoch):
                recorder.epoch(epoch)
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

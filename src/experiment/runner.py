"""One run from its first epoch to its last picture."""

import contextlib
import logging
from collections.abc import Callable

from src.experiment.experiment import Prepared
from src.experiment.job import Job
from src.experiment.recorder import Finished, RunContext, record
from src.nn.gradcheck import Check, check_gradient
from src.support.errors import WrongGradient
from src.training.training_run import Epoch

log = logging.getLogger(__name__)

_CHECKED = 10  # training samples that the gradient is checked with

# Opens a display of progress over so many epochs and gives the function that shows one.
Display = Callable[[int], contextlib.AbstractContextManager[Callable[[Epoch], None]]]


def execute(job: Job, prepared: Prepared, run_context: RunContext, display: Display) -> Finished:
    """Train, track, draw, and leave in the run's folder the history, the weights, the pictures and the result.

    Raises UserError where the store can't be opened, and TrainingFailed; a run that had begun leaves its result even then.
    """
    with record(job, prepared, run_context) as recorder:
        with display(job.experiment.epochs) as show:
            for epoch in prepared.train(job.diagnose):
                recorder.epoch(epoch)
                show(epoch)
        recorder.finish()
    return recorder.finished


def gradcheck(prepared: Prepared) -> Check:
    """Check the gradient of an experiment at its first weights. Raises WrongGradient."""
    train = prepared.dataset.train
    images, labels = prepared.scaled(train.images[:_CHECKED]), train.labels[:_CHECKED]
    check = check_gradient(
        prepared.network, prepared.parameters, prepared.experiment.loss, images, labels
    )
    log.info("gradient: %s", check)
    if not check.passed:
        raise WrongGradient(f"the gradient is wrong: {check}")
    return check

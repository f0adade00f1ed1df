"""Trains a configured run from a notebook or a script and returns the result."""

import contextlib
import logging
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobStatus, run_job
from omegaconf import DictConfig

from src.config.arguments import overrides as written_out
from src.config.composition import compose, composer
from src.config.explain import COMPOSITION_ERRORS, explain
from src.config.hydra_internals import context_without_callbacks, value_or_error
from src.config.preflight import check, claim
from src.config.sweep_settings import refuse_in_single_run
from src.nn.layers import Array
from src.nn.network import Network, Parameters
from src.run import single_run
from src.runs.experiment import Prepared
from src.runs.predictions import Predictions
from src.runs.summary import measurements
from src.support.errors import ConfigError
from src.terminal import report
from src.tracking.process import start
from src.tracking.told import ids

# Hydra's state and BLAS's thread limit belong to the whole process.
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Trained:
    """A run that has finished: the trained network, its scores, and where they are kept."""

    network: Network
    parameters: Parameters  # of the epoch that was kept
    history: list[dict[str, float]]  # one record per epoch, under MLflow's names
    metrics: Mapping[str, float]  # of the kept epoch; val/best/… are the best of any epoch
    predictions: Predictions  # for the test set
    folder: Path
    run_id: str | None  # in MLflow; None if it was offline or away
    prepared: Prepared

    def predict(self, images: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Return the predicted labels (n,) of ``images (n, features)``.

        Pixels are in the range of the training data.
        """
        return self.prepared.predict(self.parameters, images)[0]

    def predict_proba(self, images: npt.NDArray[Any]) -> Array:
        """Return the class probabilities (n, classes) of ``images (n, features)``."""
        return self.prepared.predict(self.parameters, images)[1]


def train(*overrides: str, show: bool = True) -> Trained:
    """Train the run that ``python -m src.run`` trains with these overrides, and return it.

    The run is kept in the same places: its folder and MLflow. With ``show=False`` nothing is
    printed. Calls from several threads wait for each other.

    Raises ConfigError or DataError before anything is created, and TrainingFailed if training
    fails or diverges.
    """
    start(overrides)  # of the mirror, which imports MLflow meanwhile
    with _one_at_a_time, composer():
        given = written_out(overrides)
        refuse_in_single_run(given)
        try:
            config = compose(given, with_hydra=True)
        except COMPOSITION_ERRORS as error:
            raise ConfigError(explain(error, given)) from None
        job, prepared = check(config)
        folder = Path(config.hydra.run.dir).absolute()
        claim(job, folder)

        def task(config: DictConfig) -> Any:
            with _log(Path(HydraConfig.get().runtime.output_dir) / "run.log"):
                return single_run(config, report.progress)

        with contextlib.nullcontext() if show else report.silence():
            ended = run_job(
                task,
                config,
                "hydra.run.dir",
                None,
                context_without_callbacks(),
                configure_logging=False,
            )
    if ended.status is not JobStatus.COMPLETED:
        raise value_or_error(ended)
    finished, known = ended.return_value, ids(folder)
    return Trained(
        prepared.network,
        finished.parameters,
        [{"epoch": epoch.number, **measurements(epoch)} for epoch in finished.history],
        finished.record.metrics,
        finished.predictions,
        folder,
        known[1] if known else None,
        prepared,
    )


@contextlib.contextmanager
def _log(path: Path) -> Iterator[None]:
    """Write the log lines of this package into a file; other loggers are left alone."""
    logger = logging.getLogger("src")
    level, handler = logger.level, logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()

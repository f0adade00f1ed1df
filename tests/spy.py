"""A callback that writes down what Hydra tells of each job."""

import json
import os
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class Spy(Callback):
    """Leaves a file a job: what was told when it started and when it ended."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._write(config, "start", os.environ.get("SPIED"))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        value = job_return._return_value
        self._write(
            config,
            "end",
            [job_return.status.name, value if isinstance(value, float) else str(value)],
        )

    def _write(self, config: DictConfig, event: str, told: Any) -> None:
        folder = Path(config.hydra.runtime.output_dir)
        known = {
            "told": told,
            "name": HydraConfig.get().job.name,
            "trained": (folder / "result.json").exists(),
        }
        (self.folder / f"{config.hydra.job.num}.{event}").write_text(json.dumps(known))

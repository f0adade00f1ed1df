"""Composes a configuration outside Hydra's own entry point: for messages, for other commands and for notebooks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from src.support.paths import CONF


@contextmanager
def composer() -> Iterator[None]:
    """Set Hydra up for the block; whatever was set up before is set aside."""
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(CONF), job_name="run", version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = before


def compose(overrides: Sequence[str], *, with_hydra: bool = False) -> DictConfig:
    """Return what the overrides compose to, if asked with Hydra's own part. Within ``composer`` only."""
    return hydra.compose("config", list(overrides), return_hydra_config=with_hydra)

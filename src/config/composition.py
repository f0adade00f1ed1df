"""Composes a configuration outside Hydra's entry point: for messages, other commands, Python."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import hydra
from omegaconf import DictConfig

from src.config.hydra_checks import install
from src.config.hydra_internals import hydra_set_aside
from src.support.paths import CONF

# Here, because whoever composes or runs a configuration imports this module.
install()


@contextmanager
def composer() -> Iterator[None]:
    """Initialize Hydra for the block; afterwards the Hydra of before is back."""
    with (
        hydra_set_aside(),
        hydra.initialize_config_dir(str(CONF), job_name="run", version_base="1.3"),
    ):
        yield


def compose(overrides: Sequence[str], *, with_hydra: bool = False) -> DictConfig:
    """Return the configuration that the overrides give; ``with_hydra`` includes Hydra's own node.

    Works within ``composer`` only. Raises one of ``COMPOSITION_ERRORS``.
    """
    return hydra.compose("config", list(overrides), return_hydra_config=with_hydra)

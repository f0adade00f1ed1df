"""A job of a sweep between its composition, which happens once, and its training elsewhere."""

import pickle
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from src.runs.job import Job
from src.runs.record import Identity
from src.sweep.grouping import Member
from src.sweep.plan import Wanted


@dataclass(frozen=True)
class Composed:
    """A job's configuration: that of a job of the same kind, and what this job sets otherwise.

    The jobs of a kind share the first part. So thousands of jobs fit into memory, and what is sent
    for a stack holds it once.
    """

    kind: bytes  # a pickled configuration, compressed
    values: Mapping[str, Any] = field(default_factory=dict)  # by dotted key

    @staticmethod
    def of(config: DictConfig) -> "Composed":
        """Return a configuration in a few kilobytes."""
        return Composed(zlib.compress(pickle.dumps(config), level=1))

    def with_values(self, values: Mapping[str, Any]) -> "Composed":
        """Return a configuration that sets these values otherwise."""
        return replace(self, values={**self.values, **values})

    def config(self) -> DictConfig:
        """Return the configuration as a fresh object, Hydra's own node included."""
        config: DictConfig = pickle.loads(zlib.decompress(self.kind))  # noqa: S301 (ours)
        set_values(config, self.values)
        return config


def set_values(config: DictConfig, values: Mapping[str, Any]) -> None:
    """Set values of a configuration by their dotted keys."""
    with open_dict(config):
        for key, value in values.items():
            OmegaConf.update(config, key, value, merge=True)


@dataclass(frozen=True)
class SweepJob:
    """A job of a sweep, composed and checked.

    It holds no weights and no data, so that thousands of them fit into memory.
    """

    number: int
    overrides: tuple[str, ...]
    folder: Path
    job: Job
    member: Member
    composed: Composed
    identity: Identity

    @property
    def wanted(self) -> Wanted:
        """The job as the plan of its sweep knows it."""
        return Wanted(self.overrides, self.identity)

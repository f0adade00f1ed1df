"""A job of a sweep between its composition, which happens once, and its training elsewhere."""

import pickle
import zlib
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from src.experiment.job import Job
from src.experiment.run_folder import Identity
from src.sweep.grouping import Member
from src.sweep.plan import Wanted


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
    packed: bytes  # the configuration
    identity: Identity

    @property
    def wanted(self) -> Wanted:
        """The job as the plan of its sweep knows it."""
        return Wanted(self.overrides, self.identity)

    def config(self) -> DictConfig:
        """Return the configuration, Hydra's own node included."""
        return unpack(self.packed)


def pack(config: DictConfig) -> bytes:
    """Return a configuration in a few kilobytes."""
    return zlib.compress(pickle.dumps(config), level=1)


def unpack(packed: bytes) -> DictConfig:
    """Return a fresh copy of the configuration that was packed."""
    config: DictConfig = pickle.loads(zlib.decompress(packed))  # noqa: S301 (packed by us)
    return config

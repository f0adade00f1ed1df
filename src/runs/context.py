"""What a run is asked: its folder, its name, and the command that asked for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RunContext:
    """What a run is asked: its folder, its name, and the command that asked for it."""

    folder: Path  # exists
    name: str
    overrides: Sequence[str]
    # Every resolved setting by its dotted key, and every choice by its group.
    settings: Mapping[str, Any]
    position: str = ""  # in its sweep, such as 3/64
    sweep_id: str | None = None
    varied: Sequence[str] = ()  # the settings in which the runs of its sweep differ
    stack: Sequence[int] = ()  # the numbers of the jobs trained in one stack with it, and its own
    stack_position: int | None = None  # its place among them, from 0
    goes_on: bool = False  # whether the folder holds this run already, begun by another process
    is_exact: bool = True  # whether epochs that are computed again must have equal bytes
    start_at: int | None = None  # goes on after this epoch; None: after its last checkpoint
    away_from: Path | None = None  # the run's folder in its sweep, on another machine

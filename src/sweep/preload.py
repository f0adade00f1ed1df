"""Imports what every run needs, for the process that a sweep's workers are forked from."""

import src.config.explain
import src.sweep.sharing
import src.sweep.stack  # noqa: F401
from src.tracking.store import preload

preload()

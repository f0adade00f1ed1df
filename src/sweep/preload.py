"""Imports what every run needs, for the process that a sweep's workers are forked from."""

from src.support import signals

signals.outlive_signals()
with signals.leaving_with_parent():  # a sweep that is refused ends while this goes on
    import src.config.explain
    import src.sweep.sharing
    import src.sweep.stack  # noqa: F401

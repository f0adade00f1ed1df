"""Everything that is printed, under one name: ``report.opening(…)``, ``report.problem(…)``."""

from src.terminal.comparison import (
    comparison_answer,
    comparison_details,
    comparison_pair,
    comparison_table,
)
from src.terminal.console import fact, never_fail, problem, show_log, silence, waiting
from src.terminal.progress import progress, sweep_progress
from src.terminal.run import chance, claims, closing, findings, opening, whereabouts
from src.terminal.sweep import (
    forecast,
    job_line,
    planned,
    pruned,
    rung,
    study,
    sweep_plan,
    sweep_table,
)

__all__ = [
    "chance",
    "claims",
    "closing",
    "comparison_answer",
    "comparison_details",
    "comparison_pair",
    "comparison_table",
    "fact",
    "findings",
    "forecast",
    "job_line",
    "never_fail",
    "opening",
    "planned",
    "problem",
    "progress",
    "pruned",
    "rung",
    "show_log",
    "silence",
    "study",
    "sweep_plan",
    "sweep_progress",
    "sweep_table",
    "waiting",
    "whereabouts",
]

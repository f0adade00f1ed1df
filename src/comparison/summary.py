"""Writes the summary of a sweep into its folder: report, leaderboard, and what MLflow gets."""

from pathlib import Path
from typing import TYPE_CHECKING

from src.comparison.page import write_page
from src.support.files import write_whole
from src.tracking.summary import LEADERBOARD, REPORT, SweepSummary

if TYPE_CHECKING:
    from src.comparison.comparison import Comparison


def write_summary(comparison: "Comparison", folder: Path, sweep_id: str, best: Path | None) -> Path:
    """Write the summary of a sweep; return the report's path.

    ``best`` is the folder of the run whose network is logged as a model.
    """
    report = folder / REPORT
    write_page(comparison, report)
    first = [*comparison.differing, "mean", "low", "high", "n", "test_mean", "tied"]
    frame = comparison.configurations.drop(columns="group")
    table = frame[[*first, *(name for name in frame if name not in first)]].reset_index()
    write_whole(folder / LEADERBOARD, table.to_json(orient="split", index=False, indent=1).encode())
    runs = comparison.runs
    own = runs["configuration"].to_dict()
    of_configuration: dict[str, list[str]] = {name: [] for name in runs["configuration"].unique()}
    for number, kept in enumerate(comparison.kept):
        if number in own and kept.folder:
            of_configuration[own[number]].append(str(kept.folder.relative_to(folder)))
    SweepSummary(
        sweep_id,
        "\n\n".join([*comparison.answer, *comparison.notes]),
        comparison.metric,
        list(comparison.differing),
        list(of_configuration.values()),
        str(best.relative_to(folder)) if best else None,
        float(runs["seconds"].sum()),
    ).write(folder)
    return report

"""What a sweep prints: how its runs are grouped, each run as it ends, and the leaderboard."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from src.runs.record import Record
from src.terminal.comparison import comparison_answer, comparison_table
from src.terminal.console import console, count, fact, paragraph, say, table

if TYPE_CHECKING:  # they import SciPy and pandas
    from src.comparison.comparison import Comparison

_ACCURACIES = [f"{part}/accuracy" for part in ("train", "val", "test")]


def sweep_plan(groups: Iterable[int], workers: int, place: str | None = None) -> None:
    """Print how the runs of a sweep are grouped, given the number of runs in each group.

    ``place`` names the cluster whose workers train them.
    """
    sizes = Counter(groups)
    parts = [_groups(size, number) for size, number in sorted(sizes.items(), reverse=True)]
    runs = sum(size * number for size, number in sizes.items())
    where = f"{count(workers, 'worker')} of {place}" if place else _processes(workers)
    fact("sweep", f"{count(runs, 'run')}: {', '.join(parts)}; {where}")


def _processes(workers: int) -> str:
    return count(workers, "process", "processes")


def _groups(size: int, number: int) -> str:
    if size > 1:
        return f"{count(number, 'stack')} of {size}"
    return f"{number} by {'itself' if number == 1 else 'themselves'}"


def planned(runs: int, states: Sequence[str]) -> None:
    """Print how many runs a sweep has, and how many are in which state."""
    counted = Counter(states)
    parts = ", ".join(f"{number} {state}" for state, number in counted.items())
    fact("plan", f"{count(runs, 'run')}: {parts}")


def forecast(stacks: Iterable[tuple[int, int, float]], workers: int, seconds: float) -> None:
    """Print the stacks of a sweep, each by its runs, epochs and seconds, and the whole time."""
    shown = table("stacks", "runs each", "epochs", "seconds each")
    alike: dict[tuple[int, int, str], int] = {}
    for size, length, duration in stacks:
        key = (size, length, f"{duration:.1f}")
        alike[key] = alike.get(key, 0) + 1
    for (runs, epochs, each), number in alike.items():
        shown.add_row(str(number), str(runs), str(epochs), each)
    console().print(shown)
    processes = count(workers, "process", "processes")
    whole = f"{seconds:.0f} seconds" if seconds < 100 else f"{seconds / 60:.0f} minutes"
    fact("time", f"about {whole} in {processes}, if this machine has nothing else to do")
    fact("", "from a few epochs of each kind of stack; early stops and pruned runs make it shorter")


def job_line(result: Record, position: str) -> None:
    """Print one run of a sweep in one line."""
    if result.status == "PRUNED":
        outcome = (result.failure or "", "dim")
    elif result.value is None:
        outcome = (f"{result.status}: {result.failure or ''}", "red")
    else:
        outcome = (f"{result.metric} {result.value:.4f}", "")
    say(f"{position}  {result.name}  ", outcome, f"  {result.seconds:.1f} s")
    if result.chance:
        paragraph("", f"at chance: {result.chance}")


def rung(sentence: str) -> None:
    """Print what was decided at a rung of a sweep."""
    fact("rung", sentence)


def pruned(runs: tuple[int, int], epochs: tuple[int, int], idle: int) -> None:
    """Print how many of a sweep's runs were pruned, and how many of their epochs that saved.

    ``idle`` of these epochs were computed all the same.
    """
    (left, all_runs), (saved, all_epochs) = runs, epochs
    if not left:
        return
    less = f"{saved:,} of {all_epochs:,} epochs less"
    fact("saved", f"{left} of {all_runs} runs left early: {less} ({saved / all_epochs:.0%})")
    if idle:
        fact(
            "",
            f"{idle:,} of these were computed along in stacks, so that the others keep "
            "their bytes; sweep.exact=false saves them, too",
        )


def study(
    name: str,
    counts: Mapping[str, int],
    best: tuple[Mapping[str, object], float] | None,
    importances: Mapping[str, float],
) -> None:
    """Print what has come of a study: its trials by state, the best, and what matters."""
    states = ", ".join(f"{number} {state}" for state, number in counts.items())
    fact("study", f"{name}: {count(sum(counts.values()), 'trial')}, {states}")
    if best:
        chosen = " ".join(_written(key, value) for key, value in best[0].items())
        fact("best", f"{chosen}: {best[1]:.4f}")
    if importances:
        shares = ", ".join(f"{key} {share:.0%}" for key, share in importances.items())
        trials = count(counts.get("complete", 0), "finished trial")
        fact("importance", f"{shares} of the variance, in a forest that Optuna fits to {trials}")
        fact("", "(functional ANOVA; the noise of the seeds is not told apart)")


def _written(key: str, value: object) -> str:
    """Return a parameter of a study as an override; that of a list is one already."""
    return f"{key}={value:.4g}" if isinstance(value, int | float) else str(value)


def sweep_table(
    results: Sequence[Record], sweep_id: str, comparison: "Comparison | None" = None
) -> None:
    """Print the leaderboard of a sweep, the failed runs with their overrides, and the answer.

    A row is a configuration where some have several seeds, else a run.
    """
    finished = _ranked(results)
    if comparison and (comparison.configurations["n"] > 1).any():
        comparison_table(comparison)
    elif finished:
        _print_ranking(finished)
    left = [result for result in results if result.status == "PRUNED"]
    for result in results:
        if result.value is None and result not in left:
            overrides = " ".join(result.overrides)
            say((result.status, "red"), f"  {overrides}: {result.failure or ''}")
    early = f", {len(left)} left early" if left else ""
    fact("runs", f"{len(finished)} of {len(results)} finished{early}, sweep_id {sweep_id}")
    if comparison:
        comparison_answer(comparison)


def _ranked(results: Sequence[Record]) -> list[tuple[float, Record]]:
    """Return the finished runs with their values, the best first."""
    finished = [(result.value, result) for result in results if result.value is not None]
    finished.sort(key=lambda pair: pair[0] if pair[1].metric.endswith("loss") else -pair[0])
    return finished


def _print_ranking(finished: Sequence[tuple[float, Record]]) -> None:
    metrics = {result.metric for _, result in finished}
    shared = metrics.pop() if len(metrics) == 1 else None  # different metrics have no common order
    others = [
        key
        for key in _ACCURACIES
        if key != shared and any(key in result.metrics for _, result in finished)
    ]
    rank = "rank" if shared else ""
    ranking = table(rank, "run", shared or "metric", *others, "seconds", left="run")
    for number, (value, result) in enumerate(finished, 1):
        ranking.add_row(
            str(number) if shared else "",
            result.name,
            f"{value:.4f}" if shared else f"{result.metric} {value:.4f}",
            *(f"{result.metrics[key]:.4f}" if key in result.metrics else "" for key in others),
            f"{result.seconds:.1f}",
        )
    console().print(ranking)

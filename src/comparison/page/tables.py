"""The page's tables: which columns they have, and how each cell reads and sorts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from src.comparison.page.wording import (
    NOTHING,
    duration,
    number,
    real,
    setting,
    share,
    span,
)
from src.comparison.verdict import count, probability

if TYPE_CHECKING:
    from src.comparison.comparison import Comparison

_STATUSES = {"killed": "interrupted"}

# How many configurations have a colour of their own in the charts.
COLOURS = 7

# The layers of so many configurations are shown, from the best one on: the page stays small.
EXAMINED = 100


# The intervals of so many configurations fit their common scale.
_SCALED = 20


@dataclass(frozen=True)
class Cell:
    """What a cell says, and the number by which it is sorted, if it has one."""

    text: str
    value: float | None = None
    kind: str = ""  # a class of the style sheet
    link: str = ""
    note: str = ""  # shown when the pointer rests on the cell

    @property
    def sorted_by(self) -> str:
        """The number by which the cell is sorted; nothing if its text says it."""
        if self.value is None:
            return ""
        try:
            float(self.text)
        except ValueError:
            return f"{self.value:.9g}"
        return ""


@dataclass(frozen=True)
class Row:
    """A row, and what it stands for."""

    cells: list[Cell]
    configuration: str
    run: int | None = None


@dataclass(frozen=True)
class Interval:
    """A mean and its interval as shares of the width of a drawing."""

    mean: float
    low: float
    high: float


def leaderboard(comparison: "Comparison") -> tuple[list[str], list[Row]]:
    """Return the titles and the rows of the configurations' table, from the best to the worst."""
    titles = [
        "Configuration",
        "mean",
        *comparison.differing,
        "95% interval",
        "against the first",
        "test mean",
        "runs",
        "sd",
        "lowest",
        "highest",
        "seconds",
    ]
    frame = comparison.configurations
    rows = []
    for position, (label, row) in enumerate(
        zip(frame.index, frame.to_dict("records"), strict=True)
    ):
        settings = [_setting(row[name]) for name in comparison.differing]
        lowest, highest = sorted_ends(row["worst"], row["best"])
        cells = [
            Cell(str(label), position + 1, "label"),
            _number(row["mean"], "mean"),
            *settings,
            Cell(span(row["low"], row["high"]), real(row["low"]), "number interval"),
            _verdict(row) if position else _first(row, frame["tied"].iloc[1:].any()),
            _number(row["test_mean"]),
            _finished(row),
            _number(row["sd"]),
            _number(lowest),
            _number(highest),
            Cell(duration(row["seconds"]), real(row["seconds"]), "number"),
        ]
        rows.append(Row(cells, str(label)))
    return titles, rows


def sorted_ends(worst: Any, best: Any) -> tuple[float | None, float | None]:
    """Return the lowest and the highest of the two, whichever of them is the better one."""
    ends = [end for end in (real(worst), real(best)) if end is not None]
    return (min(ends), max(ends)) if ends else (None, None)


def intervals(comparison: "Comparison") -> dict[str, Interval]:
    """Return for each configuration its mean and interval on one scale.

    The scale spans the better half, and at most the first 20, so that bad configurations do not
    hide how the good ones differ. What lies outside is put at its end, 0 or 1.
    """
    frame = comparison.configurations
    known = frame[frame["mean"].notna()]
    if known.empty:
        return {}
    low = known["low"].fillna(known["mean"])
    high = known["high"].fillna(known["mean"])
    better = slice(0, max(2, min(_SCALED, (len(known) + 1) // 2)))
    start, end = float(low.iloc[better].min()), float(high.iloc[better].max())
    width = (end - start) or abs(end) or 1.0
    start, end = start - 0.04 * width, end + 0.04 * width

    def place(value: float) -> float:
        return min(max((value - start) / (end - start), 0.0), 1.0)

    return {
        str(label): Interval(
            place(known["mean"][label]),
            place(low[label]),
            place(high[label]),
        )
        for label in known.index
    }


def runs(comparison: "Comparison") -> tuple[list[str], list[Row]]:
    """Return the titles and the rows of the table of single runs."""
    titles = [
        "Run",
        "configuration",
        *_replicate(comparison),
        "status",
        comparison.metric,
        "test",
        "epochs",
        "seconds",
    ]
    return titles, [
        Row(
            [
                _run(row),
                Cell(str(row["configuration"]), _rank(row["configuration"])),
                *(_setting(row[name]) for name in _replicate(comparison)),
                _status(row),
                _number(row["value"]),
                _number(row["test"]),
                Cell(setting(real(row["epochs"])), real(row["epochs"]), "number"),
                Cell(duration(row["seconds"]), real(row["seconds"]), "number"),
            ],
            str(row["configuration"]),
            run,
        )
        for run, row in _numbered(comparison)
    ]


def _replicate(comparison: "Comparison") -> list[str]:
    """Return the columns that tell the runs of a configuration from each other."""
    return ["division", "seed"] if comparison.has_divisions else ["seed"]


def failures(comparison: "Comparison") -> tuple[list[str], list[Row]]:
    """Return the titles and the rows of the runs that did not finish, with the reason of each."""
    titles = ["Run", "status", "reason", "configuration", *_replicate(comparison)]
    found = []
    for run, row in _numbered(comparison):
        if status(row) == "finished":
            continue
        reason = row["failure"] if isinstance(row["failure"], str) else ""
        cells = [
            _run(row),
            _status(row),
            Cell(reason or "no reason was kept", kind="reason"),
            Cell(str(row["configuration"]), _rank(row["configuration"])),
            *(_setting(row[name]) for name in _replicate(comparison)),
        ]
        found.append(Row(cells, str(row["configuration"]), run))
    return titles, found


def explanations(comparison: "Comparison") -> tuple[list[str], list[Row]]:
    """Return the titles and the rows of why configurations are behind the first one."""
    configurations = comparison.configurations
    titles = ["Configuration", "mean", *comparison.differing, "why it is behind the first"]
    return titles, [
        Row(
            [
                Cell(str(label), _rank(label), "label"),
                _number(configurations["mean"][label]),
                *(_setting(configurations[name][label]) for name in comparison.differing),
                Cell(sentence, kind="reason"),
            ],
            str(label),
        )
        for label, sentence in list(comparison.explanations.items())[:EXAMINED]
    ]


def diagnosis(comparison: "Comparison") -> tuple[list[str], list[Row]]:
    """Return the titles and the rows of the layers' states, beside the configurations' means."""
    titles = [
        "Configuration",
        "mean",
        *comparison.differing,
        "layer",
        "dead units",
        "saturated units",
        "update / weight",
        "gradient, first",
        "gradient, last",
    ]
    configurations = comparison.configurations
    known = {str(label): row for label, row in configurations.head(EXAMINED).iterrows()}
    rows = []
    for row in comparison.reasons().to_dict("records"):
        label = str(row["configuration"])
        if (own := known.get(label)) is None:
            continue
        rows.append(
            Row(
                [
                    Cell(label, _rank(label), "label"),
                    _number(own["mean"]),
                    *(_setting(own[name]) for name in comparison.differing),
                    _setting(row["layer"]),
                    _share(row["dead"]),
                    _share(row["saturated"]),
                    *(
                        Cell(_short(row[name]), real(row[name]), "number")
                        for name in ("update_ratio", "gradient_first", "gradient_last")
                    ),
                ],
                label,
            )
        )
    return titles, rows


def _numbered(comparison: "Comparison") -> Iterable[tuple[int, Mapping[Any, Any]]]:
    """Return the rows of all runs, each with the number by which the curves know it."""
    frame = comparison.runs
    numbers = (int(number) for number in frame.index)
    return zip(numbers, frame.to_dict("records"), strict=True)


def _number(value: Any, kind: str = "") -> Cell:
    return Cell(number(value), real(value), f"number {kind}".strip())


def _short(value: Any) -> str:
    figure = real(value)
    return NOTHING if figure is None else f"{figure:.2g}"


def _share(value: Any) -> Cell:
    figure = real(value)
    kind = "number" + (" many" if figure is not None and figure >= 0.25 else "")
    return Cell(share(value), figure, kind)


def _setting(value: Any) -> Cell:
    return Cell(setting(value), real(value), "setting")


def _first(row: Mapping[Any, Any], shared: bool) -> Cell:
    """Say whether the first configuration is the best, or others may be as good."""
    if real(row["mean"]) is None:
        return Cell("no finished run", kind="verdict")
    return Cell("leads" if shared else "the best", 2.0, "verdict best")


def _verdict(row: Mapping[Any, Any]) -> Cell:
    """Say whether a configuration is worse than the first one, or may be as good."""
    if real(row["mean"]) is None:
        return Cell("no finished run", kind="verdict")
    over_seeds, on_samples = real(row["p"]), real(row["p_samples"])
    if row["diverged"] and over_seeds is None:
        return Cell("last: a run diverged", kind="verdict")
    if over_seeds is None:  # the seeds are too few
        return Cell(NOTHING, kind="verdict")
    note = f"this pair alone: {probability(row['p_alone'])}; corrected: {probability(over_seeds)}"
    if on_samples is not None:
        note += f"; on the test samples: {probability(on_samples)}"
    # Both tests must tell the two apart, so that the larger value decides.
    p = max(over_seeds, on_samples or 0)
    if row["tied"]:
        return Cell(f"may be as good ({probability(p)})", 1 + p, "verdict tied", note=note)
    return Cell(f"worse ({probability(p)})", p, "verdict", note=note)


def _finished(row: Mapping[Any, Any]) -> Cell:
    """Say how many runs finished, and what became of the others."""
    lost = [
        f"{int(row[name])} {name}" for name in ("diverged", "failed", "pruned") if real(row[name])
    ]
    if not lost:
        return Cell(str(int(row["n"])), float(row["finished"]), "number")
    said = f"{int(row['finished'])} of {int(row['n'])}"
    return Cell(f"{said}: {', '.join(lost)}", float(row["finished"]), "number lost")


def status(row: Mapping[Any, Any]) -> str:
    """Return what became of a run, in one word."""
    if row["diverged"]:
        return "diverged"
    said = str(row["status"]).lower()
    return _STATUSES.get(said, said)


def _status(row: Mapping[Any, Any]) -> Cell:
    said = status(row)
    return Cell(said, kind="" if said == "finished" else "lost")


def _run(row: Mapping[Any, Any]) -> Cell:
    """Return the cell of a run's name, with the link to its page in MLflow."""
    link = row["link"] if isinstance(row["link"], str) else ""
    # A store from elsewhere may hold any text: only the address of a web page becomes a link.
    link = link if link.startswith(("http://", "https://")) else ""
    return Cell(str(row["name"]), kind="name", link=link)


def _rank(label: Any) -> float | None:
    digits = str(label).lstrip("C")
    return float(digits) if digits.isdigit() else None


def summary(comparison: "Comparison") -> str:
    """Return how many runs and configurations the page compares, and by what."""
    amount = count(len(comparison.runs), "run")
    groups = count(len(comparison.configurations), "configuration")
    budget = f" at {comparison.budget}" if comparison.budget else ""
    direction = "higher" if comparison.larger_is_better else "lower"
    return f"{amount} of {groups}, by {comparison.metric}{budget}: {direction} is better"

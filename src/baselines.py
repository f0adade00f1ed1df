"""Runs every published recipe over several seeds and compares ours with what was published."""

from src.support import signals

if __name__ == "__main__":  # the imports below take a second, and show no traceback of a signal
    signals.leave_at_once_on_signals()

import argparse
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from src.config.composition import compose, composer
from src.config.reader import read
from src.runs.history import columns, read_history
from src.runs.job import Reference, read_curve
from src.runs.pictures.charts import published_curve
from src.runs.pictures.style import save
from src.runs.record import Record
from src.support.paths import CONF
from src.sweep.plan import Plan
from src.terminal import report

Curves = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Claim:
    """One published figure and ours: the mean over the seeds, and their standard deviation."""

    recipe: str
    metric: str
    published: float | None  # None where there is nothing but ours
    mean: float
    spread: float
    tolerance: float

    @property
    def verdict(self) -> str:
        """``as published`` within the tolerance, else ``better`` or ``worse``, or nothing."""
        if self.published is None:
            return ""
        gain = self.mean - self.published
        gain = -gain if self.metric.endswith("loss") else gain
        if abs(gain) <= self.tolerance:
            return "as published"
        return "better" if gain > 0 else "worse"


@dataclass(frozen=True)
class CurveClaim:
    """A published curve and ours: how far the mean of ours is from it at most, from an epoch on."""

    recipe: str
    metric: str
    start: int
    distance: float
    tolerance: float

    @property
    def verdict(self) -> str:
        """``as published`` within the tolerance, else ``worse``."""
        return "as published" if self.distance <= self.tolerance else "worse"


def recipes() -> dict[str, Reference]:
    """Return what each recipe with a ``reference:`` says was published."""
    found = {}
    with composer():
        for path in sorted((CONF / "experiment").glob("*.yaml")):
            reference = read(compose([f"experiment={path.stem}"])).reference
            if reference:
                found[path.stem] = reference
    return found


def claims(
    recipe: str, reference: Reference, metrics: Sequence[dict[str, float]], metric: str
) -> list[Claim]:
    """Return a recipe's claims, given each seed's metrics; without figures only ``metric``."""
    figures: dict[str, float | None] = {**reference.figures} or {metric: None}
    found = []
    for name, published in figures.items():
        ours = np.array([measured[name] for measured in metrics])
        spread = float(ours.std(ddof=1)) if len(ours) > 1 else 0.0
        found.append(
            Claim(
                recipe,
                name,
                published,
                float(ours.mean()),
                spread,
                reference.tolerance.get(name, 0.0),
            )
        )
    return found


def curve_claim(recipe: str, reference: Reference, ours: Curves) -> CurveClaim | None:
    """Return the claim of a recipe's published curve, given ``ours (seeds, epochs)``."""
    if reference.curve is None:
        return None
    epochs, published = (np.array(values) for values in read_curve(reference.curve))
    compared = epochs >= reference.curve.start
    mean = ours.mean(axis=0)[epochs[compared].astype(int) - 1]
    distance = float(np.abs(mean - published[compared]).max())
    return CurveClaim(
        recipe, reference.curve.metric, reference.curve.start, distance, reference.curve.tolerance
    )


def markdown(found: Sequence[Claim | CurveClaim]) -> str:
    """Return the table as docs/results.md shows it."""
    rows = [("recipe", "metric", "published", "ours", "tolerance", "verdict"), ("---",) * 6]
    rows += [_cells(claim) for claim in found]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cells(claim: Claim | CurveClaim) -> tuple[str, str, str, str, str, str]:
    if isinstance(claim, CurveClaim):
        title = f"{claim.metric}, curve from epoch {claim.start}"
        apart = f"{claim.distance:.4f} apart at most"
        return claim.recipe, title, "curve", apart, f"{claim.tolerance:.4f}", claim.verdict
    published = "" if claim.published is None else f"{claim.published:.4f}"
    tolerance = "" if claim.published is None else f"{claim.tolerance:.4f}"
    return (
        claim.recipe,
        claim.metric,
        published,
        f"{claim.mean:.4f} ± {claim.spread:.4f}",
        tolerance,
        claim.verdict,
    )


# What may be set without making another recipe of it.
_FREE = ("data.path=", "data.test_path=", "tracking.", "engine=", "dtype=")


def main() -> None:
    """Run the named recipes, or all.

    Exit codes: 0 every verdict met, 1 one was not, 2 wrong arguments, else as ``src.run``.
    """
    parser = argparse.ArgumentParser(prog="python -m src.baselines", description=main.__doc__)
    parser.add_argument(
        "names", nargs="*", help="recipes, by default all; and settings such as data.path=FOLDER"
    )
    parser.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="seeds 0 to N-1 (default: 3)"
    )
    parser.add_argument(
        "--jobs", type=int, default=2, metavar="N", help="runs at a time (default: 2)"
    )
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), metavar="FOLDER")
    asked = parser.parse_intermixed_args()
    published = recipes()
    settings = [name for name in asked.names if "=" in name]
    chosen = list(dict.fromkeys(name for name in asked.names if "=" not in name)) or list(published)
    if unknown := [name for name in chosen if name not in published]:
        parser.error(f"no such recipe as {', '.join(unknown)}; there are {', '.join(published)}")
    if changed := [
        setting for setting in settings if not setting.startswith(_FREE) or "," in setting
    ]:
        parser.error(
            f"{' '.join(changed)}: changes the recipe; what may be set is {', '.join(_FREE)}"
        )
    if asked.seeds < 1 or asked.jobs < 1:
        parser.error("--seeds and --jobs must be 1 or more")

    folder = (
        asked.outputs / "baselines" / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{secrets.token_hex(3)}"
    )
    seeds = ",".join(map(str, range(asked.seeds)))
    sweep = ["-m", f"experiment={','.join(chosen)}", f"seed={seeds}", f"outputs={asked.outputs}"]
    launcher = [f"hydra.launcher.workers={asked.jobs}", f"hydra.sweep.dir={folder}"]
    code = _run([*sweep, *launcher, *(f"++{setting}" for setting in settings)])
    if code:
        sys.exit(code)
    sys.exit(0 if judge(folder, {name: published[name] for name in chosen}) else 1)


def _run(arguments: Sequence[str]) -> int:
    """Run the sweep and return its exit code; a signal to this process ends the sweep."""
    child = subprocess.Popen([sys.executable, "-m", "src.run", *arguments])

    def forward(number: int, _: object) -> None:
        child.send_signal(number)

    forwarded = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, *signals.CHECKPOINT)
    before = {number: signal.signal(number, forward) for number in forwarded}
    # The terminal has sent Ctrl-C to the sweep, too: let that end well.
    before[signal.SIGINT] = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        return child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def judge(folder: Path, published: dict[str, Reference]) -> bool:
    """Show and keep the claims of a sweep's runs; return whether all are met."""
    plan = Plan.load(folder)
    assert plan is not None
    found: list[Claim | CurveClaim] = []
    for recipe, reference in published.items():
        folders = [
            folder / str(k) for k, job in enumerate(plan.overrides) if f"experiment={recipe}" in job
        ]
        results = [Record.load(place) for place in folders]
        found += claims(
            recipe, reference, [dict(result.metrics) for result in results], results[0].metric
        )
        if reference.curve:
            histories = [columns(read_history(place)) for place in folders]
            ours = np.array([history[reference.curve.metric] for history in histories])
            found += filter(None, [curve_claim(recipe, reference, ours)])
            figure = published_curve(
                ours, *read_curve(reference.curve), recipe, reference.curve.metric
            )
            save(figure, folder / f"{recipe}.png")
    report.claims([_cells(claim) for claim in found])
    (folder / "baselines.md").write_text(markdown(found), encoding="utf-8")
    report.fact("folder", str(folder))
    return not any(claim.verdict == "worse" for claim in found)


if __name__ == "__main__":
    main()

"""Makes up sweeps of many kinds, and writes what a comparison says of each into one file.

``python -m tests.sentences`` writes tests/sentences.md. A person reads it from top to bottom.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from src.comparison.comparison import Comparison
from src.comparison.kept import KeptRun

FILE = Path(__file__).with_suffix(".md")
SIZES = {"train": 1077, "val": 360, "test": 360}
_DIVERGED = "training loss inf in epoch 3, after 99 updates; a smaller lr may help"

Score = float | str | None  # a status such as FAILED stands for a run without a score


@dataclass
class Sweep:
    """A made-up sweep: the scores of each configuration by its settings as they are typed."""

    title: str
    scores: Mapping[str, Sequence[Score]]
    metric: str = "val/accuracy"
    divisions: int = 1  # the scores are those of the seeds of each division in turn
    at: str | None = None
    predictions: bool = False  # whether test samples were answered, as well as the scores say
    pairs: Sequence[tuple[str, str]] = ()
    hides_seeds: bool = False  # as the runs of another program
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def runs(self, folder: Path) -> Iterator[KeptRun]:
        """Yield its runs; ``folder`` takes their files."""
        number = itertools.count()
        for typed, scores in self.scores.items():
            settings = dict(part.split("=") for part in typed.split())
            per_division = len(scores) // self.divisions
            for place, score in enumerate(scores):
                division, seed = divmod(place, per_division)
                own = {**settings, "seed": str(seed), "data.split.seed": str(division)}
                if self.hides_seeds:
                    own = settings
                run = KeptRun(
                    name=f"{typed} seed={seed}",
                    settings={**own, "model.outputs": "10"},
                    status="FINISHED",
                    metric=self.metric,
                    epochs=len(self.curves[typed]) + 1 if self.curves else 20,
                    seconds=1.0,
                    overrides=[f"{key}={value}" for key, value in own.items()],
                    sizes=SIZES,
                    data=f"digest {division}",
                    code="code",
                )
                yield self._ended(run, score, typed, folder, next(number))

    def _ended(self, run: KeptRun, score: Score, typed: str, folder: Path, number: int) -> KeptRun:
        if not isinstance(score, float):
            status = score or "FAILED"
            if status == "DIVERGED":
                return replace(run, status="FAILED", failure=_DIVERGED)
            return replace(run, status=status)
        measure = self.metric.rpartition("/")[2]
        files = folder / str(number)
        files.mkdir()
        if self.curves:
            _write_history(files, self.metric, self.curves[typed], score)
        if self.predictions:
            _write_predictions(files, score, number)
        test = round(score * 360 - 2) / 360 if measure == "accuracy" else score * 1.05
        return replace(run, metrics={self.metric: score, f"test/{measure}": test}, files=files)


def _write_history(folder: Path, metric: str, curve: Sequence[float], last: float) -> None:
    rows = [
        f"{epoch},{value},{epoch * 34},{epoch}" for epoch, value in enumerate([*curve, last], 1)
    ]
    text = "\n".join([f"epoch,{metric},updates,time", *rows]) + "\n"
    (folder / "history.csv").write_text(text)


def _write_predictions(folder: Path, score: float, number: int) -> None:
    labels = np.arange(360) % 10
    hard = np.random.default_rng(number).permutation(60)[: round((1 - score) * 360)]
    predicted = labels.copy()
    predicted[hard] = (labels[hard] + 1) % 10
    np.savez(
        folder / "predictions.npz",
        part=np.array("test"),
        samples=np.array("digest"),
        labels=labels.astype(np.uint8),
        predicted=predicted.astype(np.uint8),
    )


def around(mean: float, seeds: int, spread: float = 0.004, start: int = 0) -> list[Score]:
    """Return scores of so many seeds around a mean, in steps of 1/360."""
    random = np.random.default_rng(round(mean * 1e6) + start)
    values = mean + spread * random.standard_normal(seeds)
    return [float(round(min(value, 1.0) * 360) / 360) for value in values]


def losses(mean: float, seeds: int, spread: float = 0.04) -> list[Score]:
    """Return losses of so many seeds around a mean."""
    random = np.random.default_rng(round(mean * 1e6))
    return [float(value) for value in mean * np.exp(spread * random.standard_normal(seeds))]


def grid(means: Mapping[str, float], seeds: int, spread: float = 0.004) -> dict[str, list[Score]]:
    """Return the scores of configurations with these means."""
    return {typed: around(mean, seeds, spread, n) for n, (typed, mean) in enumerate(means.items())}


def divided(means: Mapping[str, float], divisions: int, seeds: int) -> dict[str, list[Score]]:
    """Return scores over divisions that move all configurations alike."""
    random = np.random.default_rng(divisions * 10 + seeds)
    moved = np.repeat(0.01 * random.standard_normal(divisions), seeds)
    found: dict[str, list[Score]] = {}
    for typed, mean in means.items():
        values = mean + moved + 0.003 * random.standard_normal(divisions * seeds)
        found[typed] = [float(round(min(value, 1.0) * 360) / 360) for value in values]
    return found


_SIX = {
    "model=relu2 lr=0.03": 0.987,
    "model=relu2 lr=0.1": 0.986,
    "model=relu2 lr=0.3": 0.985,
    "model=sigmoid3 lr=0.03": 0.957,
    "model=sigmoid3 lr=0.1": 0.955,
    "model=sigmoid3 lr=0.3": 0.940,
}
_EQUAL = {f"lr={lr}": 0.96 for lr in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)}


def sweeps() -> list[Sweep]:
    """Return the made-up sweeps."""
    two = {"model=relu2": 0.985, "model=sigmoid3": 0.957}
    three = {"lr=0.1": 0.97, "lr=0.03": 0.968, "lr=0.01": 0.92}
    return [
        Sweep("Two configurations, five seeds, a clear gap", grid(two, 5)),
        Sweep(
            "Two configurations, three seeds, no gap", grid({"lr=0.1": 0.965, "lr=0.2": 0.964}, 3)
        ),
        Sweep(
            "Two configurations with the same scores", {"lr=0.1": [0.95] * 3, "lr=0.2": [0.95] * 3}
        ),
        Sweep(
            "Two configurations, each without any spread",
            {"lr=0.1": [0.95] * 3, "lr=0.2": [0.9] * 3},
        ),
        Sweep("Two configurations, two seeds", grid(two, 2)),
        Sweep("Two configurations, one seed", grid(two, 1)),
        Sweep(
            "Two configurations, ten seeds, a small gap",
            grid({"lr=0.1": 0.968, "lr=0.2": 0.963}, 10),
        ),
        Sweep("One configuration, five seeds", {"lr=0.1": around(0.96, 5)}),
        Sweep("One configuration, one seed", {"lr=0.1": around(0.96, 1)}),
        Sweep("Three configurations: two tie, one is worse", grid(three, 5)),
        Sweep("Three configurations, three seeds, one best", grid({**three, "lr=0.03": 0.94}, 3)),
        Sweep("Six configurations: one model is best at any learning rate", grid(_SIX, 5)),
        Sweep("The same with three seeds", grid(_SIX, 3)),
        Sweep("The same with one seed", grid(_SIX, 1)),
        Sweep("Six equal configurations", grid(_EQUAL, 5)),
        Sweep(
            "Twenty configurations from bad to good",
            grid({f"lr={n / 100:g}": 0.9 + 0.004 * n for n in range(1, 21)}, 5),
        ),
        Sweep(
            "A hundred configurations",
            grid(
                {
                    f"model.hidden=[{width}] lr={lr:g}": 0.97
                    - 0.1 * abs(np.log10(lr) + 1)
                    - 1 / width
                    for width in (10, 20, 40, 80, 160)
                    for lr in np.geomspace(0.01, 1, 20).round(3)
                },
                3,
            ),
        ),
        Sweep(
            "The best score is that of a configuration with a diverged run",
            {
                "lr=0.01": around(0.901, 3),
                "lr=0.02": [*around(0.9505, 2), "DIVERGED"],
                "lr=0.005": around(0.85, 3),
            },
        ),
        Sweep(
            "Two configurations with diverged runs are ahead, one with a single run left",
            {
                "lr=0.01": around(0.901, 3),
                "lr=0.02": ["DIVERGED", *around(0.9505, 1), "DIVERGED"],
                "lr=0.03": ["DIVERGED", *around(0.9405, 2)],
            },
        ),
        Sweep("A configuration diverges in all runs", {**grid(two, 3), "lr=20": ["DIVERGED"] * 3}),
        Sweep("All runs diverge", {"lr=20": ["DIVERGED"] * 3, "lr=30": ["DIVERGED"] * 3}),
        Sweep(
            "Every configuration has a diverged run",
            {"lr=20": ["DIVERGED", *around(0.9, 2)], "lr=30": ["DIVERGED", *around(0.8, 2)]},
        ),
        Sweep(
            "All but one configuration failed", {"lr=0.1": around(0.9, 3), "lr=0.2": ["FAILED"] * 3}
        ),
        Sweep(
            "Interrupted: one is still running, one was killed",
            {"lr=0.1": around(0.9, 3), "lr=0.2": [*around(0.92, 1), "RUNNING", "KILLED"]},
        ),
        Sweep(
            "Unbalanced: five seeds, three and one",
            {"lr=0.1": around(0.95, 5), "lr=0.2": around(0.93, 3), "lr=0.3": around(0.96, 1)},
        ),
        Sweep(
            "One configuration varies ten times as much",
            {**grid(three, 5), "lr=1": around(0.95, 5, 0.04)},
        ),
        Sweep("Accuracies near 1", {"lr=0.1": [1.0, 1.0], "lr=0.2": [359 / 360, 1.0]}),
        Sweep(
            "Accuracies near 1 beside others",
            {"lr=0.1": [1.0] * 3, "lr=0.01": around(0.96, 3, 0.03)},
        ),
        Sweep(
            "Losses, one best",
            {"lr=0.1": losses(0.1, 5), "lr=0.03": losses(0.2, 5), "lr=0.01": losses(0.3, 5)},
            "val/loss",
        ),
        Sweep(
            "Losses that tie", {"lr=0.1": losses(0.1, 3), "lr=0.2": losses(0.101, 3)}, "val/loss"
        ),
        Sweep(
            "Losses, one seed", {"lr=0.1": losses(0.1, 1), "lr=0.2": losses(0.12, 1)}, "val/loss"
        ),
        Sweep(
            "Ten divisions of the data",
            divided({"model=relu2": 0.965, "model=relu2_small": 0.95}, 10, 1),
            divisions=10,
            pairs=[("C1", "C2")],
        ),
        Sweep(
            "Three divisions with three seeds each",
            divided({"lr=0.1": 0.96, "lr=0.2": 0.955, "lr=0.3": 0.93}, 3, 3),
            divisions=3,
        ),
        Sweep(
            "Two divisions with five seeds each, equal",
            divided({"lr=0.1": 0.96, "lr=0.2": 0.96}, 2, 5),
            divisions=2,
        ),
        Sweep(
            "Test samples do not bear out the seeds",
            grid({"lr=0.1": 0.968, "lr=0.2": 0.962}, 5, 0.001),
            predictions=True,
            pairs=[("C1", "C2")],
        ),
        Sweep(
            "Test samples bear out the seeds",
            grid(three, 5, 0.002),
            predictions=True,
            pairs=[("C1", "C3"), ("C2", "C3")],
        ),
        Sweep("Chosen by the test set", grid(two, 5), "test/accuracy"),
        Sweep(
            "At a budget that one configuration does not reach",
            grid(two, 3),
            at="epochs=11",
            curves={"model=relu2": [0.5] * 10, "model=sigmoid3": [0.5] * 8},
        ),
        Sweep(
            "At a budget",
            grid(two, 3),
            at="epochs=5",
            curves={
                "model=relu2": [0.5, 0.7, 0.8, 0.9, 0.92],
                "model=sigmoid3": [0.5, 0.6, 0.7, 0.75, 0.8],
            },
        ),
        Sweep(
            "Most configurations were pruned",
            {**grid(two, 3), **{f"lr={n}": ["PRUNED"] * 3 for n in range(1, 7)}},
        ),
        Sweep("Runs that do not say their seed", grid(two, 3), hides_seeds=True),
    ]


def said(sweep: Sweep) -> str:
    """Return what a comparison says of a sweep, as Markdown."""
    with TemporaryDirectory() as folder:
        comparison = Comparison(list(sweep.runs(Path(folder))), at=sweep.at)
        frame = comparison.configurations
        lines = [f"## {sweep.title}", ""]
        for label, row in frame.head(8).iterrows():
            mark = "≈" if row["tied"] and label != "C1" else " "
            numbers = f"{row['mean']:.4f}  {row['low']:.4f}–{row['high']:.4f}  p {row['p']:.3f}"
            lines.append(f"    {label} {mark} {comparison.says(str(label)):32} {numbers}")
        more = len(frame) - 8
        if more > 0:
            lines.append(f"    and {more} more")
        lines += ["", *comparison.answer]
        lines += [f"- {label}: {why}" for label, why in comparison.explanations.items()]
        lines += [f"- {note}" for note in comparison.notes]
        from src.comparison.wording import pair_on_samples, pair_over_seeds

        for pair in sweep.pairs:
            found = comparison.pair(*pair)
            lines += [f"- {pair_over_seeds(found, comparison.metric)}"]
            lines += [f"- {pair_on_samples(found)}"]
    return "\n".join(lines) + "\n"


def written() -> str:
    """Return the whole file."""
    head = (
        "# What a comparison says\n\n"
        "Made-up sweeps, and every sentence that is said of them. `python -m tests.sentences` "
        "writes this file; a test compares it. Read it from top to bottom: no sentence may have to "
        "be read twice.\n"
    )
    return "\n".join([head, *map(said, sweeps())])


if __name__ == "__main__":
    FILE.write_text(written(), encoding="utf-8")

"""A made-up comparison with known numbers, for tests of what is shown of one."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from src.comparison.comparison import Comparison, Pair
from src.comparison.importance import GRID, NOISE
from src.comparison.statistics import Samples

METRICS = ("train/loss", "val/loss", "train/accuracy", "val/accuracy")


@dataclass
class StandIn:
    """What ``Comparison`` offers, from frames that a test can look into and change."""

    differing: list[str]
    configurations: pd.DataFrame
    runs: pd.DataFrame
    epochs: pd.DataFrame
    effects: pd.DataFrame
    layers: pd.DataFrame
    matrices: dict[str, npt.NDArray[np.int64]]
    shares: dict[str, npt.NDArray[np.float64]]  # of right networks, for each test sample
    labels: npt.NDArray[np.int64]
    pixels: npt.NDArray[np.uint8]
    answer: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    explanations: dict[str, str] = field(default_factory=dict)
    provenance: dict[str, str] = field(default_factory=dict)
    common: dict[str, str] = field(default_factory=dict)
    metric: str = "val/accuracy"
    larger_is_better: bool = True
    has_divisions: bool = False
    budget: str | None = None

    @property
    def comparison(self) -> Comparison:
        """The same, typed as what it stands for."""
        return cast("Comparison", self)

    @property
    def class_names(self) -> list[str]:
        return [str(digit) for digit in range(10)]

    def curves(self, metrics: Sequence[str] = METRICS) -> pd.DataFrame:
        columns = ["run", "configuration", "epoch", "updates", "samples", "seconds", *metrics]
        return self.epochs[columns]

    def importance(self) -> pd.DataFrame:
        return self.effects

    def front(self) -> pd.DataFrame:
        frame = self.configurations.reset_index()[["configuration", "seconds", "mean"]]
        frame = frame.rename(columns={"mean": "value"})
        dominated = [
            bool(((frame["seconds"] < one.seconds) & (frame["value"] > one.value)).any())
            for one in frame.itertuples()
        ]
        return frame.assign(on_front=~np.array(dominated))

    def reasons(self) -> pd.DataFrame:
        return self.layers

    def confusion(self, label: str) -> npt.NDArray[np.int64] | None:
        return self.matrices.get(label)

    def disagreement(self, a: str, b: str) -> pd.DataFrame:
        frame = pd.DataFrame(
            {
                "sample": np.arange(len(self.labels)),
                "label": self.labels,
                "a": self.shares[a],
                "b": self.shares[b],
            }
        )
        return frame[frame["a"] != frame["b"]]

    def pair(self, a: str, b: str) -> Pair:
        right, wrong = (int((self.shares[one] > 0.5).sum()) for one in (a, b))
        gap = self.configurations["mean"][a] - self.configurations["mean"][b]
        samples = Samples(right, wrong, len(self.labels), 3, 0.01, -0.02, 0.04, 0.5, "made up")
        return Pair(a, b, gap, gap - 0.01, gap + 0.01, 0.04, 0.4, 15, "seeds", samples)

    def image(self, sample: int) -> npt.NDArray[np.uint8] | None:
        return self.pixels[sample] if sample < len(self.pixels) else None


def compared(
    settings: Mapping[str, Sequence[Any]],
    *,
    seeds: int = 3,
    epochs: int = 10,
    diverging: int = 1,
    predictions: int = 4,
) -> StandIn:
    """Return the comparison of a made-up grid; the runs of the last ``diverging`` ones diverge."""
    random = np.random.default_rng(0)
    choices = [
        dict(zip(settings, values, strict=True)) for values in itertools.product(*settings.values())
    ]
    worth = 0.99 - 0.4 * np.linspace(0, 1, len(choices)) ** 1.5
    rows: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    curves: list[pd.DataFrame] = []
    for rank, own in enumerate(random.permutation(len(choices))):
        label, chosen = f"C{rank + 1}", choices[own]
        diverged = rank >= len(choices) - diverging
        values, durations = [], []
        for seed in range(seeds):
            number = len(runs)
            noise = random.normal(0, 0.002)
            epoch = np.arange(1, (epochs // 2 if diverged else epochs) + 1)
            reached = np.clip((worth[rank] + noise) * (1 - 0.8 * np.exp(-epoch / 3)), 0, 1)
            loss = np.exp(epoch) if diverged else -np.log(reached)
            seconds = epoch * random.uniform(0.01, 0.02) * (1 + rank % 5)
            curve = {
                "run": number,
                "configuration": label,
                "epoch": epoch,
                "updates": epoch * 45,
                "samples": epoch * 1437,
                "seconds": seconds,
                "train/loss": loss * 0.9,
                "val/loss": loss,
                "train/accuracy": np.round(np.clip(reached * 1.01, 0, 1) * 1437) / 1437,
                "val/accuracy": np.round(reached * 180) / 180,
            }
            if diverged:
                curve["val/loss"] = np.append(loss[:-1], np.inf)
            curves.append(pd.DataFrame(curve))
            value = np.nan if diverged else float(np.asarray(curve["val/accuracy"])[-1])
            values.append(value)
            durations.append(float(seconds[-1]))
            runs.append(
                {
                    "run_id": f"{number:032x}",
                    "folder": f"outputs/runs/{number}",
                    "name": " ".join(f"{k}={v}" for k, v in chosen.items()) + f" seed={seed}",
                    "configuration": label,
                    "seed": seed,
                    "status": "FAILED" if diverged else "FINISHED",
                    "diverged": diverged,
                    "failure": "diverged in epoch 5: val/loss is inf; lower lr=3"
                    if diverged
                    else "",
                    "value": value,
                    "test": value - 0.01,
                    "epochs": len(epoch),
                    "seconds": durations[-1],
                    "link": f"http://127.0.0.1:5000/#/experiments/1/runs/{number:032x}",
                    **chosen,
                }
            )
        known = pd.Series(values)
        half = 4.303 * known.std() / np.sqrt(seeds)
        rows.append(
            {
                **chosen,
                "n": seeds,
                "finished": int(known.notna().sum()),
                "diverged": seeds if diverged else 0,
                "failed": 0,
                "pruned": 0,
                "mean": known.mean(),
                "sd": known.std(),
                "low": known.mean() - half,
                "high": known.mean() + half,
                "best": known.max(),
                "worst": known.min(),
                "test_mean": known.mean() - 0.01,
                "seconds": float(np.mean(durations)),
                "tied": rank < 3,
                "p_samples": np.nan,
                "p_alone": np.nan if rank == 0 or diverged else 0.2 / (1 + rank) ** 3,
                "p": np.nan if rank == 0 or diverged else 0.4 / (1 + rank) ** 3,
            }
        )
    index = pd.Index([f"C{rank + 1}" for rank in range(len(rows))], name="configuration")
    configurations = pd.DataFrame(rows, index=index)
    labels = np.arange(180) % 10
    pixels = np.zeros((180, 28, 28), np.uint8)
    for sample in range(180):  # a bar for each digit
        pixels[sample, 4:24, 2 + 2 * labels[sample] : 5 + 2 * labels[sample]] = 255
    shares, matrices = {}, {}
    for label in index[:predictions]:
        right = random.random((seeds, 180)) < worth[0]
        shares[label] = right.mean(axis=0)
        matrix = np.zeros((10, 10), np.int64)
        answers = np.where(right, labels, (labels + 1 + random.integers(0, 9, (seeds, 180))) % 10)
        np.add.at(matrix, (np.broadcast_to(labels, answers.shape), answers), 1)
        matrices[label] = matrix
    names = list(settings)
    effects = [*names, *(f"{a} × {b}" for a, b in itertools.combinations(names, 2)), NOISE]
    weights = 0.5 ** np.arange(len(effects))
    best = configurations.iloc[0]
    return StandIn(
        differing=names,
        configurations=configurations,
        runs=pd.DataFrame(runs),
        epochs=pd.concat(curves, ignore_index=True),
        effects=pd.DataFrame(
            {
                "effect": effects,
                "share": weights / weights.sum(),
                "low": 0.5 * weights / weights.sum(),
                "high": 1.1 * weights / weights.sum(),
                "method": GRID,
            }
        ),
        layers=pd.DataFrame(
            [
                {
                    "configuration": label,
                    "layer": layer,
                    "dead": 0.0,
                    "saturated": 0.1 * layer * (label != "C1"),
                    "update_ratio": 0.0021 / layer,
                    "gradient_first": 0.4 / layer,
                    "gradient_last": 0.05 / layer,
                }
                for label in index
                for layer in (1, 2)
            ]
        ),
        matrices=matrices,
        shares=shares,
        labels=labels,
        pixels=pixels,
        answer=[
            f"C1 ({', '.join(f'{name}={best[name]}' for name in names)}) is the best.",
            "C2 and C3 may be as good. All others are worse.",
        ],
        notes=["The best of 12 was chosen by the validation set."],
        explanations={"C3": "20% of the units of layer 2 are saturated (C1: 0%)"},
        provenance={"command": "python -m src.run -m model=relu2 lr=0.1", "numpy": np.__version__},
        common={"data": "digits", "epochs": str(epochs)},
    )

"""Says which configuration is best, by how much and how surely: numbers first, then sureness."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from src.comparison.frames import Frames
from src.comparison.statistics import LEVEL

VISIBLE = 0.00005  # what a difference of scores must reach to be seen in four digits
_NAMED = 3  # configurations that are named beside the best


def count(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number:,} {noun if number == 1 else noun + 's'}"


def probability(p: float) -> str:
    """Return a p-value as ``p = 0.031`` or ``p < 0.001``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def typed(row: pd.Series, keys: Sequence[str]) -> str:
    """Return settings as they are typed, without those that the configuration lacks."""
    return " ".join(f"{key}={shown(row[key])}" for key in keys if not _is_missing(row[key]))


def _is_missing(value: object) -> bool:
    return value is None or value == "" or value != value


def shown(value: object) -> str:
    """Return the value of a setting as it is typed."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def replicates(comparison: Frames, label: str) -> str:
    """Return over how many seeds, or divisions and seeds, the score of a configuration is."""
    runs = comparison.runs
    own = runs[(runs["configuration"] == label) & runs["value"].notna()]
    if not comparison.has_divisions:
        return count(len(own), "seed")
    sizes = own.groupby("division").size()
    if sizes.empty or sizes.max() == 1:
        return count(len(sizes), "division")
    each = (
        f"{sizes.min()} to {sizes.max()} seeds"
        if sizes.min() < sizes.max()
        else (count(int(sizes.max()), "seed"))
    )
    return f"{count(len(sizes), 'division')} with {each} each"


class Verdict:
    """The sentences that name the best configuration and those that may be as good."""

    def __init__(self, comparison: Frames) -> None:
        self._comparison = comparison
        frame = comparison.configurations
        self._best = frame.iloc[0]
        others = frame.iloc[1:]
        self._unsound = others[(others["finished"] > 0) & (others["diverged"] > 0)]
        rivals = others[others["finished"] > 0]
        if not self._best["diverged"]:
            rivals = rivals[rivals["diverged"] == 0]
        self._tied, self._worse = rivals[rivals["tied"]], rivals[~rivals["tied"]]
        self._rivals = rivals

    def __str__(self) -> str:
        if self._rivals.empty:
            said = self._alone()
        elif self._rivals["p"].isna().all():
            said = self._untested()
        elif self._tied.empty:
            said = self._clear()
        elif self._worse.empty:
            said = self._open()
        else:
            said = self._partly()
        return " ".join([*said, *self._ahead_but_diverged()])

    def _alone(self) -> list[str]:
        comparison = self._comparison
        has = f"{self._subject()} has {self._score()}{self._evidence()}."
        if len(comparison.configurations) == 1:
            return [has, "There is no other configuration to compare it with."]
        if comparison.budget:
            return [has, f"No other configuration reached {comparison.budget}."]
        if not self._unsound.empty:
            return [has, "All other configurations have a diverged run."]
        return [has, "No other configuration has a finished run."]

    def _untested(self) -> list[str]:
        second = self._rivals.iloc[0]
        second_has = f"{self._name(second)} is second with {second['mean']:.4f}."
        if self._gap(second) < VISIBLE:
            second_has = f"{self._name(second)} has the same."
        finished = self._comparison.configurations["finished"]
        why = "With so few seeds, a difference may be chance."
        if finished.max() <= 1:
            over = "division" if self._comparison.has_divisions else "seed"
            why = f"With one {over} each, a difference may be chance."
        elif self._best["finished"] == 1:
            why = "The first has one seed, so its lead may be chance."
        return [self._leads(), second_has, why]

    def _leads(self) -> str:
        score = f"{self._score(': ')}{self._evidence()}"
        return f"{self._name(self._best)} has the {self._most()} {score}."

    def _clear(self) -> list[str]:
        head = f"{self._name(self._best)} is best: {self._score()}{self._evidence()}."
        second = self._worse.iloc[0]
        by = f"by {self._gap(second):.4f} ({self._p(second)})"
        if len(self._worse) == 1:
            return [head, f"{self._name(second)} is worse {by}."]
        third = self._worse.iloc[1]
        others = f"The other {len(self._worse) - 1} are worse, too."
        if len(self._worse) == 2:
            others = f"{self._name(third)} is worse by {self._gap(third):.4f} ({self._p(third)})."
        return [head, f"{self._name(second)} is second, worse {by}.", others]

    def _open(self) -> list[str]:
        comparison, last = self._comparison, self._tied.iloc[-1]
        if len(self._tied) == 1:
            ours = f"{self._name(self._best)} has {self._score()}{self._evidence()}."
            theirs = f"{self._name(last)} has {last['mean']:.4f}"
            if self._gap(last) < VISIBLE:
                return ["There is no clear winner.", ours, f"{theirs}, too."]
            if last["p"] < LEVEL:
                scores = f"Their scores differ by more than chance ({probability(last['p'])})"
                answers = f"but their answers to the test samples do not ({self._p(last)})"
                return ["There is no clear winner.", f"{ours} {theirs}.", f"{scores}, {answers}."]
            chance = f"the difference of {self._gap(last):.4f} may be chance ({self._p(last)})"
            return ["There is no clear winner.", ours, f"{theirs}: {chance}."]
        number = len(self._tied) + 1
        lowest = "lowest" if comparison.larger_is_better else "highest"
        return [
            f"There is no clear winner among {number} configurations.",
            "Their differences may be chance.",
            self._leads(),
            f"{self._name(last)} has the {lowest}: {last['mean']:.4f}.",
        ]

    def _partly(self) -> list[str]:
        common = self._separating()
        if not common:
            as_good = self._as_good(self._comparison.differing)
            return [self._leads(), as_good, self._others_are_worse()]
        rest = [key for key in self._comparison.differing if key not in common]
        return [
            f"{typed(self._best, common)} is best.",
            f"It has {self._score()} with {typed(self._best, rest)}{self._evidence()}.",
            self._as_good(rest),
            self._others_are_worse(),
        ]

    def _as_good(self, keys: Sequence[str]) -> str:
        """Name the configurations that may be as good as the best, by these settings."""
        named = [
            f"{typed(row, keys) or label} ({row['mean']:.4f})"
            for label, row in self._tied.head(_NAMED).iterrows()
        ]
        more = len(self._tied) - len(named)
        if more:
            named.append(f"{more} more")
        listed = named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"
        return f"{listed} may be as good."

    def _others_are_worse(self) -> str:
        worse = self._worse
        p = self._p(worse.loc[worse[["p", "p_samples"]].max(axis=1).idxmax()])
        gaps = [self._gap(row) for _, row in worse.iterrows()]
        if len(worse) == 1:
            return f"{self._name(worse.iloc[0])} is worse by {gaps[0]:.4f} ({p})."
        most = p if p.startswith("p <") else p.replace("p =", "p ≤")
        return f"The other {len(worse)} are worse, by {min(gaps):.4f} or more ({most})."

    def _separating(self) -> list[str]:
        """Return the settings that the best and its ties share, if no worse one has all of them."""
        top = pd.concat([self._best.to_frame().T, self._tied])
        shared = [key for key in self._comparison.differing if top[key].map(str).nunique() == 1]
        rest = [key for key in self._comparison.differing if key not in shared]
        frame = self._comparison.configurations
        others = frame.drop(top.index)
        if not shared or not rest or any(_is_missing(self._best[key]) for key in shared):
            return []
        alike = np.ones(len(others), bool)
        for key in shared:
            alike &= (others[key].map(str) == str(self._best[key])).to_numpy()
        return [] if alike.any() else shared

    def _ahead_but_diverged(self) -> list[str]:
        """Name what scored better than the best in the runs that did not diverge."""
        if self._best["diverged"]:
            return []
        ahead = [row for _, row in self._unsound.iterrows() if self._gap(row) < -VISIBLE]
        if not ahead:
            return []
        first = ahead[0]
        lost = f"{int(first['diverged'])} of its {int(first['n'])} runs diverged"
        has = f"{self._name(first)} has {first['mean']:.4f}, but ranks last because {lost}."
        if len(ahead) == 1:
            return [has]
        return [has, f"{len(ahead) - 1} more with diverged runs also scored higher."]

    def _subject(self) -> str:
        return self._name(self._best) if self._comparison.differing else "The configuration"

    def _name(self, row: pd.Series) -> str:
        return typed(row, self._comparison.differing) or str(row.name)

    def _most(self) -> str:
        return "highest" if self._comparison.larger_is_better else "lowest"

    def _score(self, between: str = " ") -> str:
        budget = self._comparison.budget
        at = f" at {budget}" if budget else ""
        return f"{self._comparison.metric}{between}{self._best['mean']:.4f}{at}"

    def _gap(self, row: pd.Series) -> float:
        """Return by how much a configuration is worse than the best."""
        gap = float(self._best["mean"] - row["mean"])
        return gap if self._comparison.larger_is_better else -gap

    def _p(self, row: pd.Series) -> str:
        """Return the p-value of the difference: the larger one of seeds and samples."""
        return probability(float(np.nanmax([row["p"], row["p_samples"]])))

    def _evidence(self) -> str:
        """Return in parentheses the interval of the best and its test score."""
        comparison, best = self._comparison, self._best
        found = [replicates(comparison, str(best.name))]
        if np.isfinite(best["low"]):
            found = [f"95% interval {best['low']:.4f} to {best['high']:.4f} over {found[0]}"]
        if np.isfinite(best["test_mean"]) and not comparison.metric.startswith("test/"):
            measure = comparison.metric.rpartition("/")[2]
            found.append(f"test/{measure} {best['test_mean']:.4f}")
        return f" ({'; '.join(found)})"

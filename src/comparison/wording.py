"""Says in sentences what a comparison found: the answer, what to know beside it, and why."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from src.comparison import reasons
from src.comparison.frames import Frames, Pair
from src.comparison.importance import HIGHER, LEFT, NOISE
from src.comparison.provenance import seeds_command

_EFFECTS = 4  # named in the second sentence
_LEAST_SHARE = 0.005
_VISIBLE = 0.00005
# What no single setting or pair explains, in words.
_RESTS = {NOISE: "the seed", HIGHER: "three or more settings together", LEFT: "the rest"}


def described(comparison: Frames, label: str) -> str:
    """Return a configuration in words: its settings as they are typed."""
    return settings(comparison, comparison.configurations.loc[label])


def settings(comparison: Frames, row: pd.Series) -> str:
    """Return the settings of a row of a frame, as they are typed."""
    return _typed(row, comparison.differing) or "the configuration"


def _typed(row: pd.Series, keys: Sequence[str]) -> str:
    """Return settings as they are typed, without those that the configuration lacks."""
    return " ".join(f"{key}={_shown(row[key])}" for key in keys if not _is_missing(row[key]))


def _is_missing(value: object) -> bool:
    return value is None or value == "" or value != value


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def count(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number:,} {noun if number == 1 else noun + 's'}"


def probability(p: float) -> str:
    """Return a p-value as ``p = 0.031`` or ``p < 0.001``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def answer(comparison: Frames) -> list[str]:
    """Return the two sentences at the top of a comparison."""
    frame = comparison.configurations
    if not frame["finished"].any():
        return [f"None of the {count(int(frame['n'].sum()), 'run')} has a {comparison.metric}."]
    return [_which(comparison), *_what_matters(comparison)]


def _which(comparison: Frames) -> str:
    frame = comparison.configurations
    best = frame.iloc[0]
    name, score, sure = described(comparison, "C1"), _score(comparison, best), _sure(comparison)
    others = frame.iloc[1:]
    others = others[others["finished"] > 0]
    if others.empty:
        left = "no other configuration has a run that finished"
        return f"{name} has {score}; {left}, so there is nothing to compare it with{sure}."
    ahead = _ahead(comparison, best, others)
    if others["p"].isna().all():
        reason = (
            "each configuration has one seed"
            if (frame["finished"] <= 1).all()
            else "too few seeds are known"
        )
        return f"{name} leads with {score}, {ahead}; {reason}, so this may be chance{sure}."
    tied = int(others["tied"].sum())
    if tied == 0:
        return f"{name} is the best: {score}, {ahead}, which is more than chance explains{sure}."
    if tied == len(others):
        which = {1: "the other"}.get(len(others), f"any of the other {len(others)}")
        return f"{name} leads with {score}, {ahead}, but can't be told from {which}{sure}."
    which = f"{tied} of the other {len(others)}"
    return f"{name} leads with {score}, {ahead}, but {which} can't be told from it{sure}."


def _score(comparison: Frames, row: pd.Series) -> str:
    at = f" at {comparison.budget}" if comparison.budget else ""
    return f"{comparison.metric} {row['mean']:.4f}{at}"


def _ahead(comparison: Frames, best: pd.Series, others: pd.DataFrame) -> str:
    """Return the margin over the second, which is named by what it has otherwise."""
    second = others.iloc[0]
    differing = comparison.differing
    keys = [key for key in differing if str(second[key]) != str(best[key])]
    typed = _typed(second, keys) or str(others.index[0])
    name = typed if len(keys) == len(differing) else f"the same with {typed}"
    gap = abs(best["mean"] - second["mean"])
    return f"{gap:.4f} ahead of {name}" if gap >= _VISIBLE else f"level with {name}"


def _sure(comparison: Frames) -> str:
    """Return what else is known of the best, in parentheses: its interval and its test score."""
    best = comparison.configurations.iloc[0]
    over = count(int(best["finished"]), "seed")
    if np.isfinite(best["low"]):
        over = f"95% interval {best['low']:.4f} to {best['high']:.4f} over {over}"
    found = [over]
    if np.isfinite(best["test_mean"]) and not comparison.metric.startswith("test/"):
        measure = comparison.metric.rpartition("/")[2]
        found.append(f"test/{measure} {best['test_mean']:.4f}")
    return f" ({'; '.join(found)})"


def _what_matters(comparison: Frames) -> list[str]:
    effects = comparison.importance()
    if effects.empty:
        return []
    rest = effects[effects["effect"].isin(_RESTS)]
    known = effects.drop(rest.index)
    named = known[known["share"] >= _LEAST_SHARE].head(_EFFECTS)
    if named.empty:
        return ["No setting explains the variance between runs."]
    parts = [f"{row.effect} {row.share:.0%}" for row in named.itertuples()]
    visible = rest[rest["share"] >= _LEAST_SHARE]
    others = [f"{_RESTS[row.effect]} {row.share:.0%}" for row in visible.itertuples()]
    first = named.iloc[0]
    about = "about " if "estimated" in first["method"] else ""
    share = f"explains {about}{first['share']:.0%} of the variance between runs"
    text = f"{first['effect']} matters most: it {share}{_range(comparison, first)}"
    chance = rest[rest["effect"] == NOISE]["share"].max()
    if chance > first["share"]:
        text = f"The seed matters more than any setting: {first['effect']} {share}"
    following = ", ".join([*parts[1:], *others])
    return [f"{text}, then {following}." if following else f"{text}."]


def _range(comparison: Frames, effect: pd.Series) -> str:
    """Return the mean at the best and at the worst value of a setting, in parentheses.

    Nothing where the effect is no single setting, or the runs are no full grid, in which other
    settings could be the cause.
    """
    key, frame = effect["effect"], comparison.configurations
    if key not in comparison.differing or "exact" not in effect["method"]:
        return ""
    means = frame["mean"].groupby(frame[key].map(_shown)).mean().dropna()
    ends = means.sort_values(ascending=not comparison.larger_is_better, kind="stable")
    best, worst = ends.index[0], ends.index[-1]
    return f" (on average {ends[best]:.4f} with {best}, {ends[worst]:.4f} with {worst})"


def explanations(comparison: Frames) -> dict[str, str]:
    """Return why configurations are worse than the best, by label, where it shows."""
    frame = comparison.configurations
    found: dict[str, str] = {}
    worse = list(frame.index[1:])
    found |= reasons.sentences(comparison.reasons(), "C1", worse)
    shares = reasons.still_learning(comparison.history, comparison.runs["configuration"])
    classes = len(comparison.class_names)
    guesses = reasons.guessing(comparison.history, comparison.runs["configuration"], classes)
    for label in worse:
        n, diverged = int(frame["n"][label]), int(frame["diverged"][label])
        guessed = int(guesses.get(label, 0))
        if diverged:
            found[label] = f"{diverged} of {n} diverged"
        elif label not in found and guessed:
            who = "it never does" if guessed == n else f"{guessed} of {n} never do"
            found[label] = f"{who} better than guessing one of {classes} classes"
        elif label not in found and not frame["tied"][label]:
            share = float(shares.get(label, np.nan))
            if reasons.is_still_learning(share, float(shares.get("C1", np.nan))):
                found[label] = (
                    f"{share:.0%} of the fall of its loss came in the last tenth of training: "
                    "more epochs would help"
                )
    return {label: found[label] for label in worse if label in found}


def notes(comparison: Frames) -> list[str]:
    """Return what a reader must know beside the numbers, a sentence each."""
    return [
        note
        for part in (_seeds, _faster, _selection, _tests, _unfinished, _kept, _origin)
        for note in part(comparison)
    ]


def advice(comparison: Frames) -> str | None:
    """Return what single seeds leave open, with the command that adds seeds, or None."""
    frame = comparison.configurations
    single = int(((frame["finished"] == 1) & (frame["n"] == 1)).sum())
    if not single:
        return None
    if single == len(frame):
        text = "Each configuration has one seed: no interval exists."
    else:
        text = (
            f"{single} of {count(len(frame), 'configuration')} {'has' if single == 1 else 'have'} "
            "one seed: no interval exists."
        )
    labels = comparison.runs["configuration"]
    configurations = [
        [comparison.kept[i] for i in labels.index[labels == label]] for label in frame.index
    ]
    added = seeds_command(comparison.kept, configurations)
    return f"{text} This adds four seeds: {added}" if added else text


def _seeds(comparison: Frames) -> list[str]:
    text = advice(comparison)
    return [text] if text else []


def _faster(comparison: Frames) -> list[str]:
    """Name the fastest of those that may be as good as the best, if it takes half as long.

    Its mean must lie in the interval of the best: many that vary much can't be told from it.
    """
    frame = comparison.configurations
    best = frame["seconds"].iloc[0]
    ends = frame["low"].iloc[0], frame["high"].iloc[0]
    tied = frame[frame["tied"] & frame["p"].notna() & frame["mean"].between(*ends)]
    tied = tied[tied["seconds"] <= best / 2]
    if tied.empty:
        return []
    label = str(tied["seconds"].idxmin())
    row = tied.loc[label]
    text = (
        f"Of those within the interval of the best, {described(comparison, label)} ({label}) is "
        f"the fastest: {row['seconds']:.2g} s instead of {best:.2g} s per run, with "
        f"{comparison.metric} {row['mean']:.4f}."
    )
    return [text]


def _selection(comparison: Frames) -> list[str]:
    found: list[str] = []
    part = comparison.metric.partition("/")[0]
    if len(comparison.configurations) < 2:
        return found
    if part == "val" and comparison.runs["test"].notna().any():
        found.append("The best is chosen by the validation set and reported on the test set.")
    elif part == "val":
        found.append("There is no test set: the best is chosen and reported on the same samples.")
    else:
        found.append(f"The best is chosen by {comparison.metric}, which flatters it.")
    gain, number = comparison.optimism, len(comparison.configurations)
    if gain is not None and gain >= _VISIBLE:
        found.append(
            f"Being the best of {number} flatters its mean by about {gain:.4f}: chosen without one "
            "seed, the best falls by so much on the seed left out."
        )
    elif gain is not None:
        found.append(
            f"Being the best of {number} does not flatter its mean: chosen without one seed, the "
            "best is as good on the seed left out."
        )
    return found


def _tests(comparison: Frames) -> list[str]:
    frame = comparison.configurations
    found = []
    if np.isfinite(frame["low"]).any():
        found.append(
            "Intervals are Student's t over seeds, since the spread is known from few seeds only."
        )
    if frame["p"].notna().any():
        found.append(
            "A configuration is told from the best if their seeds differ by more than chance "
            "(two-sided t tests, Holm's correction for all pairs)"
            + (
                " and so do their answers to the same test samples (McNemar's test)."
                if frame["p_samples"].notna().any()
                else "."
            )
        )
    return found


def _unfinished(comparison: Frames) -> list[str]:
    runs = comparison.runs
    found = []
    missing = runs[runs["value"].isna()]
    ended = {
        "diverged": int(missing["diverged"].sum()),
        "failed": int(((missing["status"] == "FAILED") & ~missing["diverged"]).sum()),
        "interrupted": int((missing["status"] == "KILLED").sum()),
        "still running": int((missing["status"] == "RUNNING").sum()),
        "pruned": int((missing["status"] == "PRUNED").sum()),
    }
    said = [f"{number} {word}" for word, number in ended.items() if number]
    if said:
        found.append(
            f"Of {count(len(runs), 'run')}, {', '.join(said)}; means are over those that finished."
        )
    others = len(missing) - sum(ended.values())
    if others and comparison.budget:
        found.append(f"{count(others, 'run')} ended before {comparison.budget}: not counted.")
    elif others:
        found.append(f"{count(others, 'run')} finished without a {comparison.metric}.")
    if ended["diverged"]:
        found.append("Configurations of which a run diverged are listed last.")
    return found


def _kept(comparison: Frames) -> list[str]:
    found = []
    if comparison.repeated:
        repeat = "repeats" if comparison.repeated == 1 else "repeat"
        found.append(
            f"{count(comparison.repeated, 'run')} {repeat} another one, equal in settings, data "
            "and seed: the last of each counts."
        )
    frame = comparison.configurations
    without = len(comparison.history) == 0
    if without:
        found.append("No history is kept: there are no curves.")
    if frame["p_samples"].isna().all() and frame["finished"].any() and len(frame) > 1:
        if comparison.budget:
            reason = "predictions are those of the kept weights, not at this budget"
        else:
            reason = "no predictions of the same test samples are kept, or the test set chooses"
        found.append(f"There is no test over samples: {reason}.")
    return found


def _origin(comparison: Frames) -> list[str]:
    found = []
    runs = comparison.kept
    if len({run.code for run in runs if run.code}) > 1:
        found.append("The runs were computed by different versions of the code.")
    divisions: dict[str, set[str]] = {}
    for run in runs:
        divisions.setdefault(run.settings.get("data.split.seed", ""), set()).add(run.data)
    if any(len(digests - {""}) > 1 for digests in divisions.values()):
        found.append("The runs learned from different data: their scores are of different samples.")
    if any(not run.settings.get("seed") for run in runs):
        found.append("Some runs do not say their seed: they count as replicates, unpaired.")
    return found


def pair_over_seeds(pair: Pair, metric: str) -> str:
    """Return in a sentence how the seeds of two configurations differ."""
    if not np.isfinite(pair.difference):
        return f"{metric} can't be compared: one of them has no run that finished."
    said = f"{metric} differs by {pair.difference:+.4f} ({pair.first} minus {pair.second})"
    if not np.isfinite(pair.low):
        return f"{said}; there is no interval: it needs two seeds of each, and a spread."
    ends = f"95% interval {pair.low:+.4f} to {pair.high:+.4f}"
    how = "paired over seeds" if pair.paired else "Welch's test, since the seeds are not the same"
    return f"{said}, {ends}, {probability(pair.p)}, {how}."


def pair_on_samples(pair: Pair) -> str:
    """Return in a sentence how two configurations differ on the same test samples."""
    samples = pair.samples
    if samples is None:
        return "No predictions of the same test samples are kept."
    summed = f", summed over {samples.networks} networks each" if samples.networks > 1 else ""
    return (
        f"Of {samples.samples:,} test samples {pair.first} alone is right on {samples.only_first} "
        f"and {pair.second} alone on {samples.only_second}{summed}: the test accuracy differs by "
        f"{samples.difference:+.4f}, 95% interval {samples.low:+.4f} to {samples.high:+.4f}, "
        f"{probability(samples.p)}, {samples.method}."
    )

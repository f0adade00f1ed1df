"""Says in sentences what a comparison found: the answer, what to know beside it, and why."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from src.comparison import reasons
from src.comparison.frames import Frames, Pair
from src.comparison.importance import FOREST, GRID, HIGHER, LEFT, NOISE
from src.comparison.provenance import seeds_command
from src.comparison.statistics import LEVEL
from src.comparison.verdict import VISIBLE, Verdict, count, probability, shown, typed

_EFFECTS = 4  # named in the second sentence
_LEAST_SHARE = 0.005
# What no single setting or pair explains, in words.
_RESTS = {NOISE: "the seed", HIGHER: "three or more settings together", LEFT: "the rest"}


def described(comparison: Frames, label: str) -> str:
    """Return a configuration in words: its settings as they are typed."""
    return settings(comparison, comparison.configurations.loc[label])


def settings(comparison: Frames, row: pd.Series) -> str:
    """Return the settings of a row of a frame, as they are typed."""
    return typed(row, comparison.differing) or "the configuration"


def answer(comparison: Frames) -> list[str]:
    """Return the paragraphs at the top of a comparison: which is best, and what matters."""
    frame = comparison.configurations
    if not frame["finished"].any():
        return [f"None of the {count(int(frame['n'].sum()), 'run')} has a {comparison.metric}."]
    return [str(Verdict(comparison)), *_what_matters(comparison)]


def _what_matters(comparison: Frames) -> list[str]:
    effects = comparison.importance()
    if effects.empty:
        return []
    rest = effects[effects["effect"].isin(_RESTS)]
    known = effects.drop(rest.index)
    first, others = known.iloc[0], known.iloc[1:]
    place = _analysed(comparison)
    if not first["low"] > 0:
        return [_begun(place, _nothing_shown(comparison, first))]
    ends = f"{first['low']:.0%} to {first['high']:.0%}"
    about = "about " if first["method"].startswith(FOREST) else ""
    share = f"explains {about}{_percent(first['share'])} ({ends}) of the variance between runs"
    if len(others) and others["high"].max() < first["low"]:
        share = f"matters most: it {share}"
    name = (
        first["effect"] if first["effect"] in comparison.differing else _combined(first["effect"])
    )
    text = f"{name} {share}{_range(comparison, first)}"
    text = f"{place}{text}" if name == first["effect"] else _begun(place, text)
    if len(known) == 1 and NOISE in set(rest["effect"]):
        rest_is = f"; the rest is {_noise(comparison)}" if first["share"] < 1 else ""
        return [f"{text}{rest_is}."]
    rests = {**_RESTS, NOISE: _noise(comparison)}
    following = ", ".join(
        f"{rests.get(row.effect, row.effect)} {_percent(row.share)}"
        for row in [*others.head(_EFFECTS - 1).itertuples(), *rest.itertuples()]
        if row.share >= _LEAST_SHARE and row.low > 0
    )
    return [f"{text}, then {following}." if following else f"{text}."]


def _noise(comparison: Frames) -> str:
    return "the division of the data" if comparison.has_divisions else "the seed"


def _analysed(comparison: Frames) -> str:
    """Return between which runs the variance is divided, as a sentence begins, if not all."""
    analysed, epoch = comparison.analysed
    runs = comparison.runs
    if epoch is not None:
        return f"At epoch {epoch}, the last that all {count(len(analysed), 'run')} reached, "
    if (runs["status"] == "PRUNED").any():
        return f"Between the {len(analysed)} of {count(len(runs), 'run')} that finished, "
    return ""


def _begun(place: str, text: str) -> str:
    """Return a sentence that begins with a place, or with a capital letter."""
    return f"{place}{text}" if place else text[0].upper() + text[1:]


def _nothing_shown(comparison: Frames, first: pd.Series) -> str:
    """Say that the share of the greatest effect may be 0.

    A configuration may still be worse than the best by more than chance: that test compares pairs.
    """
    frame = comparison.configurations
    if (frame["p"].notna() & ~frame["tied"]).any():
        return (
            f"how much the settings explain is uncertain: {first['effect']} explains 0% to "
            f"{first['high']:.0%} of the variance between runs."
        )
    return "no setting can be shown to matter: what differs between runs may be chance."


def _combined(effect: str) -> str:
    """Return an effect that no single setting has, in words."""
    return _RESTS.get(effect, f"the combination {effect}")


def _percent(share: float) -> str:
    """Return a share in whole percent; what is less than all is not shown as all."""
    return "over 99%" if 0.995 <= share < 1 else f"{max(share, 0.0):.0%}"


def _range(comparison: Frames, effect: pd.Series) -> str:
    """Return the mean at the best and at the worst value of a setting, in parentheses.

    Nothing where the effect is no single setting, or the runs are no full grid, in which other
    settings could be the cause.
    """
    key = effect["effect"]
    if key not in comparison.differing or not effect["method"].startswith(GRID):
        return ""
    cells = comparison.analysed[0].groupby("group").agg({"value": "mean", key: "first"})
    means = cells["value"].groupby(cells[key].map(shown)).mean()
    ends = means.sort_values(ascending=not comparison.larger_is_better, kind="stable")
    best, worst = ends.index[0], ends.index[-1]
    return f" (on average {ends[best]:.4f} with {best}, {ends[worst]:.4f} with {worst})"


def explanations(comparison: Frames) -> dict[str, str]:
    """Return why configurations are worse than the best, by label, where it shows.

    Divergence and chance are facts of any configuration but the first. What else is found is said
    only of those that are behind the best by more than chance, as far as that is known.
    """
    frame = comparison.configurations
    behind = [label for label in frame.index[1:] if _is_behind(comparison, label)]
    found = {
        **_still_learning(comparison, behind),
        **_at_chance(comparison),
        **reasons.sentences(comparison.reasons(), "C1", behind),
        **{
            str(label): f"{row.diverged} of {row.n} diverged"
            for label, row in zip(frame.index, frame.itertuples(), strict=True)
            if row.diverged
        },
    }
    return {label: found[label] for label in frame.index[1:] if label in found}


def _is_behind(comparison: Frames, label: str) -> bool:
    """Tell whether a configuration is told from the best, or is worse and nothing is tested."""
    frame = comparison.configurations
    row, best = frame.loc[label], frame.iloc[0]
    if np.isfinite(row["p"]) or np.isfinite(row["p_samples"]):
        ties = row["tied"] if np.isfinite(row["p"]) else row["p_samples"] >= LEVEL
        return not ties
    gap = best["mean"] - row["mean"]
    return bool((gap if comparison.larger_is_better else -gap) >= VISIBLE)


def _at_chance(comparison: Frames) -> dict[str, str]:
    """Return by label how many runs end at chance, and why."""
    runs, frame = comparison.runs, comparison.configurations
    said = {number: comparison.kept[number].chance for number in runs.index}
    found = {}
    for label, (number, text) in reasons.ending_at_chance(said, runs["configuration"]).items():
        of = int(frame["n"][label])
        found[label] = text if number == of else f"{number} of {of} end at chance: {text}"
    return found


def _still_learning(comparison: Frames, behind: Sequence[str]) -> dict[str, str]:
    """Return by label that a loss has not settled."""
    runs = comparison.runs
    guess = pd.Series({i: reasons.guessed_loss(comparison.kept[i].settings) for i in runs.index})
    shares = reasons.still_learning(comparison.history, runs["configuration"], guess)
    best = float(shares.get("C1", np.nan))
    return {
        label: f"{shares[label]:.0%} of the fall of its loss below that of a guess came in the "
        "last tenth of training: more epochs would help"
        for label in behind
        if reasons.is_still_learning(float(shares.get(label, np.nan)), best)
    }


def notes(comparison: Frames) -> list[str]:
    """Return what a reader must know beside the numbers, a sentence each."""
    return [
        note
        for part in (_seeds, _faster, _selection, _tests, _unfinished, _kept, _origin)
        for note in part(comparison)
    ]


def advice(comparison: Frames) -> str | None:
    """Return what single seeds leave open, with the command that adds seeds, or None."""
    frame, runs = comparison.configurations, comparison.runs
    labels = frame.index[(frame["finished"] == 1) & (frame["n"] == 1)]
    single = len(labels)
    if not single:
        return None
    if single == len(frame):
        text = "Each configuration has one seed: no interval exists."
    else:
        text = (
            f"{single} of {count(len(frame), 'configuration')} {'has' if single == 1 else 'have'} "
            "one seed: no interval exists."
        )
    chosen = [comparison.kept[i] for i in runs.index[runs["configuration"].isin(labels)]]
    known = (run.settings.get("seed", "") for run in comparison.kept)
    added = seeds_command(chosen, [int(seed) for seed in known if seed.isdecimal()])
    to = "" if single == len(frame) else " to it" if single == 1 else " to them"
    return f"{text} This adds four seeds{to}: {added}" if added else text


def _seeds(comparison: Frames) -> list[str]:
    text = advice(comparison)
    return [text] if text else []


def _faster(comparison: Frames) -> list[str]:
    """Name the fastest of those that may be as good as the best, if it takes half as long.

    Its mean must lie in the interval of the best: what varies much may seem as good.
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
    frame = comparison.configurations
    if len(frame) < 2 or not frame["finished"].any():
        return found
    if part == "val" and comparison.runs["test"].notna().any():
        found.append("The best is chosen by the validation set and reported on the test set.")
    elif part == "val":
        found.append("There is no test set: the best is chosen and reported on the same samples.")
    else:
        found.append(f"The best is chosen by {comparison.metric}, which flatters it.")
    gain, number = comparison.optimism, len(comparison.configurations)
    if gain is not None and gain >= VISIBLE:
        end, side = ("highest", "high") if comparison.larger_is_better else ("lowest", "low")
        found.append(
            f"The {end} of {number} means is too {side} by about {gain:.4f}, because the same "
            "scores chose it."
        )
    return found


def _tests(comparison: Frames) -> list[str]:
    frame = comparison.configurations
    over = "divisions of the data" if comparison.has_divisions else "seeds"
    found = []
    if np.isfinite(frame["low"]).any():
        found.append(f"Intervals are Student's t over {over}.")
    if frame["p"].notna().any():
        found.append(
            "Configurations that vary alike share one spread, so that adding a configuration can "
            "change the interval and the p-value of another."
        )
    if comparison.has_divisions:
        found.append(
            "Divisions of the data share samples. Intervals and tests are widened for that (Nadeau "
            "and Bengio 2003), and the seeds of one division count as one value, their mean. There "
            "is no separate test over samples: each division has other test samples, which its "
            "scores cover."
        )
    if frame["p"].notna().any():
        found.append(
            f"The first is called best if it differs from each of the others (two-sided t tests "
            f"over {over}, at 5%). Otherwise each p-value is corrected for all pairs, by Tukey's "
            "range or Holm's method."
        )
    if frame["p_samples"].notna().any():
        found.append(
            "A difference counts only if the answers to the same test samples differ by more than "
            "chance, too (McNemar's test, Holm's correction)."
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
        means = "" if runs["value"].isna().all() else "; means are over those that finished"
        found.append(f"Of {count(len(runs), 'run')}, {', '.join(said)}{means}.")
    others = len(missing) - sum(ended.values())
    if others and comparison.budget:
        found.append(
            f"{count(others, 'run')} ended before {comparison.budget} and "
            f"{'is' if others == 1 else 'are'} not counted."
        )
    elif others:
        found.append(f"{count(others, 'run')} finished without a {comparison.metric}.")
    if ended["diverged"] and not runs["value"].isna().all():
        found.append("Configurations with a diverged run rank last.")
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
        found.append("There is no history, so there are no curves.")
    untested = frame["p_samples"].isna().all() and not comparison.has_divisions
    if untested and frame["finished"].any() and len(frame) > 1:
        if comparison.budget:
            reason = "predictions are those of the final weights, not those at this budget"
        elif comparison.metric.startswith("test/"):
            reason = "the test set has chosen the best"
        else:
            reason = "the runs have no predictions of the same test samples"
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
        found.append("Some runs do not say their seed. Each of them counts as a seed of its own.")
    return found


def pair_over_seeds(pair: Pair, metric: str) -> str:
    """Return in a sentence how the seeds or divisions of two configurations differ."""
    if not np.isfinite(pair.difference):
        return f"{metric} can't be compared: one of them has no run that finished."
    said = f"{metric} differs by {pair.difference:+.4f} ({pair.first} minus {pair.second})"
    if not np.isfinite(pair.low):
        return f"{said}. There is no interval: it needs two {pair.over} of each."
    ends = f"95% interval {pair.low:+.4f} to {pair.high:+.4f} over {pair.over}"
    return f"{said}, {ends}; {_of_pairs(pair.p, pair.p_of_all, pair.pairs)}."


def pair_on_samples(pair: Pair) -> str:
    """Return in a sentence how two configurations differ on the same test samples."""
    samples = pair.samples
    if samples is None and pair.over == "divisions":
        return "Each division has its own test samples, which the test over divisions covers."
    if samples is None:
        return "There are no predictions of the same test samples."
    summed = f", summed over {samples.networks} networks each" if samples.networks > 1 else ""
    of_all = min(1.0, samples.p * pair.pairs)
    return (
        f"Of {samples.samples:,} test samples {pair.first} alone is right on {samples.only_first} "
        f"and {pair.second} alone on {samples.only_second}{summed}: the test accuracy differs by "
        f"{samples.difference:+.4f}, 95% interval {samples.low:+.4f} to {samples.high:+.4f}; "
        f"{_of_pairs(samples.p, of_all, pair.pairs)} ({samples.method})."
    )


def _of_pairs(alone: float, of_all: float, pairs: int) -> str:
    """Return the p-value of a pair, alone and among all pairs."""
    if pairs <= 1:
        return probability(alone)
    together = f"{probability(of_all)} corrected for all {pairs} pairs"
    return f"{probability(alone)} for this pair alone, {together}"

"""Intervals and tests for a few replicates of many configurations: how sure a difference is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

LEVEL = 0.05  # of every test; intervals cover 1 - LEVEL
_NORMAL = 1.959963984540054  # the 97.5% point of the normal distribution


def interval(
    mean: Values, deviation: Values, n: Values, floor: float = -np.inf, ceiling: float = np.inf
) -> tuple[Values, Values]:
    """Return the two ends of the 95% interval of each mean, by Student's t.

    With few values their standard deviation is itself uncertain; the t distribution takes that
    into account: with 3 values the interval is 2.2 times as wide as the normal distribution's. The
    ends are NaN for fewer than two values, and stay between ``floor`` and ``ceiling``.

    Args:
        mean: (...), of the values of each configuration.
        deviation: (...), their standard deviation with n - 1 in its denominator.
        n: (...), how many values there are.
        floor: The least that a mean can be.
        ceiling: The most that it can be.
    """
    from scipy.special import stdtrit

    freedom = np.where(n >= 2, n - 1.0, np.nan)
    half = stdtrit(freedom, 1 - LEVEL / 2) * deviation / np.sqrt(freedom + 1)
    return np.clip(mean - half, floor, ceiling), np.clip(mean + half, floor, ceiling)


def holm(p: Values, comparisons: int | None = None) -> Values:
    """Return p-values corrected by Holm's method; NaN stay NaN and do not count.

    ``comparisons`` is how many there are in all, if these are only the smallest-looking of them:
    then each is multiplied as if all others were larger, which is never too small.

    Source: Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    corrected = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    total = max(len(known), comparisons or 0)
    largest = 0.0
    for rank, i in enumerate(known[np.argsort(p[known], kind="stable")]):
        largest = max(largest, min(1.0, float(p[i]) * (total - rank)))
        corrected[i] = largest
    return corrected


@dataclass(frozen=True)
class Spread:
    """Variances, each with the degrees of freedom that it is known with."""

    variance: Values
    freedom: Values


def shared_spread(variance: Values, freedom: Values) -> Spread:
    """Return variances drawn towards each other, the more the better they agree.

    A variance from three values is so uncertain that a test by it alone finds hardly anything. The
    variances of the other configurations tell what is usual: where all agree, the result is their
    common variance; where they differ, each stays nearly as it was. It is never known with more
    degrees of freedom than all have together.

    Source: Smyth, Linear models and empirical Bayes methods for assessing differential expression
    in microarray experiments, 2004, section 6.2.
    """
    from scipy.special import digamma, polygamma

    use = (freedom > 0) & (variance > 0)
    v, d = variance[use], freedom[use]
    if len(v) < 2:
        return Spread(variance, freedom)
    log = np.log(v) - digamma(d / 2) + np.log(d / 2)
    excess = log.var(ddof=1) - float(polygamma(1, d / 2).mean())
    total = d.sum()
    if excess <= 0:  # they differ by no more than chance: one variance for all
        pooled = float((d * v).sum() / total)
        return Spread(np.full_like(variance, pooled), np.full_like(freedom, total))
    prior = 2 * _trigamma_inverse(excess)
    usual = float(np.exp(log.mean() + digamma(prior / 2) - np.log(prior / 2)))
    mixed = (prior * usual + freedom * variance) / (prior + freedom)
    return Spread(mixed, np.minimum(prior + freedom, total))


def _trigamma_inverse(value: float) -> float:
    """Return where the trigamma function, which falls from infinity to 0, has a value."""
    from scipy.optimize import brentq
    from scipy.special import polygamma

    return float(brentq(lambda x: float(polygamma(1, x)) - value, 1e-8, 1e8, xtol=1e-10))


def evened(values: Values, larger_is_better: bool) -> tuple[Values, Values]:
    """Return values on a scale on which their spread depends less on their size, and its slope.

    Accuracies become log odds: near 1 they vary little. Losses become logarithms. Where values lie
    outside of these scales, they stay as they are. NaN stays NaN.
    """
    known = values[~np.isnan(values)]
    inside = known[(known > 0) & (known < 1)]
    if larger_is_better and len(inside) and known.min() >= 0 and known.max() <= 1:
        # 0 and 1 have no odds: they count as half as near as the nearest other value.
        edge = min(inside.min(), (1 - inside).min()) / 2
        p = np.clip(values, edge, 1 - edge)
        return np.log(p / (1 - p)), 1 / (p * (1 - p))
    if not larger_is_better and len(known) and known.min() > 0:
        return np.log(values), 1 / values
    return values, np.ones_like(values)


def against_best(values: Values, best: int, larger_is_better: bool) -> Values:
    """Return a p-value for each configuration: does it differ from the best by more than chance?

    Two-sided t tests. Where all configurations that repeat share their seeds, the effect of a seed
    that is common to all is removed first. The best was chosen by the same values, so that Holm's
    correction counts the comparisons of all pairs, not only those with the best: of configurations
    that are equal, in at most 5% of all sweeps any is told from the best.

    Args:
        values: (configurations, replicates), NaN where a run is missing.
        best: The row of the best.
        larger_is_better: Whether the values are accuracies or the like.

    Returns:
        (configurations,), NaN for the best itself and where fewer than two runs are known.
    """
    from scipy.special import stdtr

    k = len(values)
    p = np.full(k, np.nan)
    counts = (~np.isnan(values)).sum(axis=1)
    repeated = np.flatnonzero(counts >= 2)
    if best not in repeated or len(repeated) < 2:
        return p
    scaled, slope = evened(values, larger_is_better)
    floor = _rounding(values) ** 2 / 12 * np.nanmean(slope[repeated], axis=1) ** 2
    others = repeated[repeated != best]
    both = ~np.isnan(scaled[others]) & ~np.isnan(scaled[best])
    paired = bool((both.sum(axis=1) >= 2).all())
    if paired and len(repeated) == 2:
        difference = (scaled[best] - scaled[others[0]])[both[0]]
        spread = difference.var(ddof=1) + floor.sum()
        gap, error = np.array([difference.mean()]), np.array([spread / len(difference)])
        freedom = np.array([len(difference) - 1.0])
    else:
        rest = _without_seed_effect(scaled[repeated]) if paired else _centred(scaled[repeated])
        lost = (len(repeated) - 1) / len(repeated) if paired else 1.0
        degrees = (counts[repeated] - 1) * lost
        variance = np.nansum(rest**2, axis=1) / degrees + floor
        shared = shared_spread(variance, degrees)
        place = {int(row): i for i, row in enumerate(repeated)}
        b, o = place[best], [place[int(row)] for row in others]
        if paired:
            differences = np.where(both, scaled[best] - scaled[others], np.nan)
            gap, n = np.nanmean(differences, axis=1), both.sum(axis=1)
            parts = shared.variance[b] / n, shared.variance[o] / n
        else:
            means = np.nanmean(scaled[repeated], axis=1)
            gap = means[b] - means[o]
            n = counts[others]
            parts = shared.variance[b] / counts[best], shared.variance[o] / n
        error = parts[0] + parts[1]
        with np.errstate(divide="ignore", invalid="ignore"):  # no spread at all
            freedom = error**2 / (
                parts[0] ** 2 / shared.freedom[b] + parts[1] ** 2 / shared.freedom[o]
            )
        # Satterthwaite's. What both have drawn from the others counts once.
        once = np.minimum(shared.freedom[b] + degrees[o], degrees.sum())
        freedom = np.fmin(freedom, once)
    sign = 1.0 if larger_is_better else -1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.where(gap == 0, 0.0, sign * gap / np.sqrt(error))
    found = np.where(statistic > 0, 2 * stdtr(freedom, -statistic), 1.0)
    p[others] = holm(found, comparisons=len(repeated) * (len(repeated) - 1) // 2)
    return p


def _rounding(values: Values) -> float:
    """Return the step in which values are counted, such as 1/360 for 360 samples."""
    known = np.unique(values[~np.isnan(values)])
    gaps = np.diff(known)
    gaps = gaps[gaps > 1e-9]
    return float(gaps.min()) if len(gaps) else 0.0


def _centred(values: Values) -> Values:
    centred: Values = values - np.nanmean(values, axis=1, keepdims=True)
    return centred


def _without_seed_effect(values: Values) -> Values:
    """Return values without the mean of each configuration and the effect of each seed."""
    rest = _centred(values)
    for _ in range(20 if np.isnan(values).any() else 1):  # missing runs: until it settles
        filled = (~np.isnan(rest)).any(axis=0)
        rest = rest[:, filled]
        rest = _centred(rest - np.nanmean(rest, axis=0, keepdims=True))
    return rest


@dataclass(frozen=True)
class Samples:
    """A comparison of two configurations on the same samples."""

    only_first: int  # samples that only the first classifies correctly, summed over the seeds
    only_second: int
    samples: int
    networks: int  # pairs of networks
    difference: float  # of the accuracies: first minus second
    low: float  # ends of its 95% interval
    high: float
    p: float
    method: str


def same_samples(first: Values, second: Values) -> Samples:
    """Compare two configurations on the same samples, by McNemar's test or its extension.

    With one network each it is McNemar's exact test. With several networks each, the answers to
    one sample depend on each other, so that a sample counts once: with the difference of the shares
    of networks that are right. The test is then a sign-flip t test over samples, which for one
    network each is McNemar's test without the continuity correction.

    Args:
        first: (networks, samples), 1 where a network is right.
        second: The same for the other configuration.

    Source: McNemar, Note on the sampling error of the difference between correlated proportions,
    1947; Obuchowski, On the comparison of correlated proportions for clustered data, 1998.
    """
    difference = first.mean(axis=0) - second.mean(axis=0)
    n = len(difference)
    mean = float(difference.mean())
    error = float(np.sqrt(((difference - mean) ** 2).sum())) / n
    half = _NORMAL * error
    pairs = min(len(first), len(second))
    a, b = first[:pairs] > 0, second[:pairs] > 0
    only_first, only_second = int((a & ~b).sum()), int((~a & b).sum())
    exact = len(first) == len(second) == 1
    p = float(mcnemar_p(first, second.mean(axis=0)[None], exact)[0])
    method = "McNemar's exact test" if exact else "McNemar's test for several networks per sample"
    return Samples(only_first, only_second, n, pairs, mean, mean - half, mean + half, p, method)


def mcnemar_p(first: Values, others: Values, exact: bool) -> Values:
    """Return (k,): the p-values of ``same_samples`` for several other configurations.

    Args:
        first: (networks, samples), 1 where a network is right.
        others: (k, samples), the share of the networks of each configuration that are right.
        exact: Whether each configuration is one network.
    """
    from scipy.special import bdtr, ndtr

    difference = first.mean(axis=0) - others
    if exact:
        only_first, only_second = (difference > 0).sum(axis=1), (difference < 0).sum(axis=1)
        least = np.minimum(only_first, only_second)
        found: Values = np.minimum(1.0, 2 * bdtr(least, only_first + only_second, 0.5))
        return found
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.abs(difference.sum(axis=1)) / np.sqrt(np.square(difference).sum(axis=1))
    tails: Values = 2 * ndtr(-np.nan_to_num(z))
    return tails


def paired_difference(first: Values, second: Values) -> tuple[float, Values, float, bool]:
    """Return the mean difference, its 95% interval, the p-value, and whether it is paired.

    Args:
        first: (replicates,), NaN where a run is missing; a place means the same seed in both.
        second: The same for the other configuration.

    Paired, Student's t test of the differences; else Welch's.
    """
    from scipy.stats import ttest_ind, ttest_rel

    both = ~np.isnan(first) & ~np.isnan(second)
    a, b = first[~np.isnan(first)], second[~np.isnan(second)]
    gap = float(a.mean() - b.mean()) if len(a) and len(b) else float("nan")
    if both.sum() >= 2:
        a, b = first[both], second[both]
        gap = float((a - b).mean())
        if np.ptp(a - b) == 0:  # no spread: nothing can be said
            return gap, np.array([np.nan, np.nan]), float("nan"), True
        test = ttest_rel(a, b)
    elif len(a) >= 2 and len(b) >= 2:
        test = ttest_ind(a, b, equal_var=False)
    else:
        return gap, np.array([np.nan, np.nan]), float("nan"), False
    ends = test.confidence_interval(1 - LEVEL)
    return gap, np.array([ends.low, ends.high]), float(test.pvalue), bool(both.sum() >= 2)


def optimism(values: Values, larger_is_better: bool) -> float | None:
    """Return by how much the mean of the best of several configurations flatters it.

    The best is chosen without one replicate, then scored on it; each replicate is left out in turn.
    Returns the mean score of the chosen on the replicates that chose it, minus its score on the one
    left out; None if no two configurations have two replicates each.

    Args:
        values: (configurations, replicates), NaN where a run is missing.
        larger_is_better: Whether the values are accuracies or the like.
    """
    repeated = values[(~np.isnan(values)).sum(axis=1) >= 2]
    if len(repeated) < 2:
        return None
    n = int((~np.isnan(repeated)).sum(axis=1).min())
    # The replicates of each configuration in their order, without gaps.
    packed = np.array([row[~np.isnan(row)][:n] for row in repeated])
    sign = 1.0 if larger_is_better else -1.0
    gains = []
    for left_out in range(n):
        choosing = np.delete(packed, left_out, axis=1).mean(axis=1)
        chosen = int(np.argmax(sign * choosing))
        gains.append(sign * (choosing[chosen] - packed[chosen, left_out]))
    return max(0.0, float(np.mean(gains)))


def pareto(cost: Sequence[float], value: Sequence[float], larger_is_better: bool) -> list[bool]:
    """Tell for each pair whether no other costs less and is at least as good, or is better."""
    sign = 1.0 if larger_is_better else -1.0
    pairs = [(c, sign * v) for c, v in zip(cost, value, strict=True)]
    return [
        not (np.isnan(c) or np.isnan(v))
        and not any(oc <= c and ov >= v and (oc, ov) != (c, v) for oc, ov in pairs)
        for c, v in pairs
    ]

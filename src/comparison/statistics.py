"""Corrections for many tests, tests on the same samples, and what the choice of the best costs."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

LEVEL = 0.05  # of every test; intervals cover 1 - LEVEL
_RANGES = np.concatenate([[0.5, 1.5], np.geomspace(2, 8, 9), [10, 14, 25, 60]])
_NORMAL = 1.959963984540054  # the 97.5% point of the normal distribution


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


def studentized_range(q: Values, groups: int, freedom: float) -> Values:
    """Return the p-values of Tukey's test: how often the range of equal means is so large.

    Args:
        q: (n,): differences of two means, divided by the standard error of one mean.
        groups: How many means there are.
        freedom: Degrees of freedom of the common variance.

    Source: Tukey, The problem of multiple comparisons, 1953.
    """
    curve = _range_curve(groups, freedom)
    p: Values = np.exp(curve(np.log(np.clip(q, _RANGES[0], _RANGES[-1]))))
    return p


@functools.lru_cache(maxsize=64)
def _range_curve(groups: int, freedom: float) -> Any:
    """Return log p as a function of log q.

    SciPy integrates for each value, which takes 20 ms, so that values between are interpolated: p
    is then right to 1% where it is below 0.1.
    """
    from scipy.interpolate import PchipInterpolator
    from scipy.stats import studentized_range as law

    tails = np.clip(law.sf(_RANGES, groups, freedom), 1e-13, 1)
    return PchipInterpolator(np.log(_RANGES), np.log(tails))


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


def optimism(values: Values, larger_is_better: bool) -> float | None:
    """Return by how much the mean of the best of several configurations flatters it.

    The best is chosen without one replicate, then scored on it; each replicate is left out in turn.
    Choosing by n - 1 replicates flatters by √(n / (n - 1)) more than choosing by n, which is
    divided out. Returns None where not every configuration has two replicates, so that the choice
    can't be repeated, or there is only one.

    Args:
        values: (configurations, replicates), NaN where a run is missing.
        larger_is_better: Whether the values are accuracies or the like.
    """
    counts = (~np.isnan(values)).sum(axis=1)
    if len(values) < 2 or counts.min() < 2:
        return None
    n = int(counts.min())
    # The replicates of each configuration in their order, without gaps.
    packed = np.array([row[~np.isnan(row)][:n] for row in values])
    sign = 1.0 if larger_is_better else -1.0
    gains = []
    for left_out in range(n):
        choosing = np.delete(packed, left_out, axis=1).mean(axis=1)
        chosen = int(np.argmax(sign * choosing))
        gains.append(sign * (choosing[chosen] - packed[chosen, left_out]))
    return max(0.0, float(np.mean(gains)) * float(np.sqrt((n - 1) / n)))


def pareto(cost: Sequence[float], value: Sequence[float], larger_is_better: bool) -> list[bool]:
    """Tell for each pair whether no other costs less and is at least as good, or is better."""
    sign = 1.0 if larger_is_better else -1.0
    pairs = [(c, sign * v) for c, v in zip(cost, value, strict=True)]
    return [
        not (np.isnan(c) or np.isnan(v))
        and not any(oc <= c and ov >= v and (oc, ov) != (c, v) for oc, ov in pairs)
        for c, v in pairs
    ]

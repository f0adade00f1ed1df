"""Intervals and tests of scores: what a few seeds or divisions say of many configurations."""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from src.comparison.statistics import LEVEL, Values, holm, studentized_range

_Flags = npt.NDArray[np.bool_]

_MANY = 1e9  # degrees of freedom: as good as a known variance
_SAME = 1e-9  # scores that are closer differ by rounding errors
UNUSUAL = 0.1  # level of the test that sets a noisy configuration apart
_LEAST_FREEDOM = 2  # degrees of freedom of each configuration, for a common variance
_LEFT = 6  # degrees of freedom that the effects of seeds must leave
_FEW = 5  # wrong answers: with fewer, the sampling error of the samples limits what is known


@dataclass(frozen=True)
class Spreads:
    """How much the scores of each configuration vary between its replicates; all are (k,)."""

    variance: Values  # of one score; NaN where there are fewer than two
    freedom: Values  # degrees of freedom of that variance
    pooled: _Flags  # whether the variance is the common one of those that agree


@dataclass(frozen=True)
class Difference:
    """The difference of two configurations, the first minus the second."""

    gap: float
    low: float  # ends of its 95% interval; NaN where it does not exist
    high: float
    p: float  # two-sided, of this pair alone
    freedom: float
    is_pooled: bool  # both have the common variance


@dataclass(frozen=True)
class Contest:
    """The best configuration against each of the others; both are (k,), NaN where not tested."""

    alone: Values  # p-values of the single pairs
    p: Values  # p-values that hold for all pairs together


@dataclass(frozen=True)
class Scores:
    """The scores of configurations, as they are compared.

    Replicates are the seeds of one division of the data, or divisions with the mean over the seeds
    of each. Divisions draw from the same samples, so their scores depend on each other: the
    variance of a mean over J divisions is s² (1/J + overlap), not s²/J.

    Source: Nadeau and Bengio, Inference for the generalization error, 2003.

    Args:
        values: (configurations, replicates), NaN where a run is missing.
        larger_is_better: Whether the values are accuracies or the like.
        samples: How many samples a score is the mean of, if that is known.
        overlap: 0 for seeds; for divisions, the size of the scored part over that of training.
    """

    values: Values
    larger_is_better: bool
    samples: int | None = None
    overlap: float = 0.0

    @functools.cached_property
    def counts(self) -> Values:
        """(k,): how many replicates each configuration has."""
        counts: Values = (~np.isnan(self.values)).sum(axis=1).astype(float)
        return counts

    @functools.cached_property
    def means(self) -> Values:
        """(k,): the mean of each configuration."""
        total: Values = np.nansum(self.values, axis=1)
        with np.errstate(invalid="ignore"):
            return total / np.where(self.counts > 0, self.counts, np.nan)

    @property
    def is_share(self) -> bool:
        """Whether the scores are shares, such as an accuracy."""
        known = self.values[~np.isnan(self.values)]
        return self.larger_is_better and len(known) > 0 and known.min() >= 0 and known.max() <= 1

    @property
    def is_positive(self) -> bool:
        """Whether the scores are losses that can't fall below 0."""
        known = self.values[~np.isnan(self.values)]
        return not self.larger_is_better and len(known) > 0 and bool(known.min() > 0)

    @functools.cached_property
    def step(self) -> float:
        """The step in which shares are counted, such as 1/360 for 360 samples; else 0."""
        if not self.is_share:
            return 0.0
        if self.samples:
            return 1 / self.samples
        gaps = np.diff(np.unique(self.values[~np.isnan(self.values)]))
        gaps = gaps[gaps > _SAME]
        return float(gaps.min()) if len(gaps) else 0.0

    def error(self, variance: Values, n: Values) -> Values:
        """Return the variance of means over n replicates."""
        with np.errstate(divide="ignore"):
            return variance * (1 / np.asarray(n, float) + self.overlap)

    @functools.cached_property
    def _odds(self) -> tuple[Values, Values]:
        """The scores where their spread depends less on their size, and the slope at the means."""
        return evened(self.values, self.means, self.is_share, self.is_positive)

    @functools.cached_property
    def _repeated(self) -> list[int]:
        """The rows with two replicates or more."""
        return [int(i) for i in np.flatnonzero(self.counts >= 2)]

    @functools.cached_property
    def _pool(self) -> list[int]:
        """The rows that vary alike: all but those that are noisier than chance explains.

        With fewer than three seeds each, noise can't be recognized, and there are none.
        """
        pool = list(self._repeated)
        variance, freedom = _variances(self._odds[0], pool)
        if not self.overlap and freedom[pool].sum() < _LEAST_FREEDOM * len(pool):
            return []
        while len(pool) > (2 if self.overlap else 1):
            noisy = _noisiest(variance[pool], freedom[pool])
            if noisy is None:
                break
            pool.pop(noisy)
        return pool if len(pool) > 1 else []

    @functools.cached_property
    def has_effects(self) -> bool:
        """Whether what a seed or a division does to all configurations alike is removed.

        Networks that start with the same weights are better or worse together. Where seeds are
        shared, removing that costs degrees of freedom, so that it pays only where many are left.
        """
        pool = self._pool
        known = (~np.isnan(self.values[self._repeated])).astype(int)
        if not pool or (known @ known.T).min() < 2:
            return False
        left = (len(pool) - 1) * (self.counts[pool].min() - 1)
        return bool(self.overlap or left >= _LEFT)

    @functools.cached_property
    def within(self) -> Spreads:
        """The spreads with which configurations are compared.

        Configurations that agree share one variance, known with the degrees of freedom of all. One
        that is noisier than chance explains keeps its own.
        """
        scaled, slope = self._odds
        pool = self._pool
        rest = scaled - _effects(scaled[pool]) if self.has_effects else scaled
        variance, freedom = _variances(rest, self._repeated)
        if pool:
            lost = (len(pool) - 1) / len(pool) if self.has_effects else 1.0
            squares = float((freedom[pool] * variance[pool]).sum())
            freedom[pool] = freedom[pool].sum() * lost
            variance[pool] = squares / freedom[pool]
        return self._floored(Spreads(variance / slope**2, freedom, self._pooled))

    @functools.cached_property
    def between(self) -> Spreads:
        """The spreads of the means: those of ``within``, with what replicates do to all alike.

        The variance of the pool is (B + (k - 1) W) / k for the mean squares B between replicates
        and W within them; its degrees of freedom are Satterthwaite's.
        """
        if not self.has_effects:
            return self.within
        scaled, slope = self._odds
        pool = self._pool
        variance, freedom = _variances(scaled, self._repeated)
        whole = float((freedom[pool] * variance[pool]).sum() / freedom[pool].sum())
        rest, _ = _variances(scaled - _effects(scaled[pool]), pool)
        known = freedom[pool].sum() * (len(pool) - 1) / len(pool)
        within = float((freedom[pool] * rest[pool]).sum() / known)
        parts = np.array([(len(pool) - 1) / len(pool) * within, 0.0])
        parts[1] = max(whole - parts[0], within / len(pool))
        variance[pool] = parts.sum()
        freedom[pool] = _satterthwaite(parts, np.array([known, freedom[pool].min()]), False)
        return self._floored(Spreads(variance / slope**2, freedom, self._pooled))

    @property
    def _pooled(self) -> _Flags:
        return np.isin(np.arange(len(self.values)), self._pool)

    def _floored(self, spreads: Spreads) -> Spreads:
        """Return spreads that are not smaller than what the number of samples lets one know."""
        variance = spreads.variance + self.step**2 / 12
        freedom = spreads.freedom.copy()
        if self.is_share and self.samples:
            answers = self.counts * self.samples
            right = (self.means * answers + 0.5) / (answers + 1)  # Jeffreys: never 0 or 1
            sampling = right * (1 - right) / self.samples
            few = np.minimum(self.means, 1 - self.means) * self.samples < _FEW
            limited = few & (variance < sampling)
            variance = np.where(limited, sampling, variance)
            freedom = np.where(limited, np.inf, freedom)
        return Spreads(variance, freedom, spreads.pooled)

    def intervals(self) -> tuple[Values, Values]:
        """Return the ends of the 95% interval of each mean, NaN for fewer than two replicates.

        By Student's t, on log odds for shares and on logarithms for losses, so that the ends stay
        within what is possible.
        """
        from scipy.special import stdtrit

        spreads = self.between
        error = np.sqrt(self.error(spreads.variance, self.counts))
        quantile = stdtrit(np.minimum(spreads.freedom, _MANY), 1 - LEVEL / 2)
        mean = self.means
        if self.is_share:
            answers = self.counts * (self.samples or 1 / (self.step or 0.001))
            inner = np.clip(mean, 0.5 / (answers + 1), 1 - 0.5 / (answers + 1))
            odds, half = np.log(inner / (1 - inner)), quantile * error / (inner * (1 - inner))
            low, high = (1 / (1 + np.exp(-(odds + sign * half))) for sign in (-1, 1))
        elif self.is_positive:
            with np.errstate(over="ignore"):
                factor = np.exp(quantile * error / mean)
            low, high = mean / factor, mean * factor
        else:
            low, high = mean - quantile * error, mean + quantile * error
        return np.minimum(low, mean), np.maximum(high, mean)

    def difference(self, first: int, second: int) -> Difference:
        """Return the difference of the means of two configurations, and whether it is chance.

        A two-sided t test, with Satterthwaite's degrees of freedom where the two have not the same
        spread. Where seeds or divisions are shared, only those count that both have.
        """
        from scipy.special import stdtr, stdtrit

        pair, n = [first, second], self.counts[[first, second]]
        gap = float(self.means[first] - self.means[second])
        if self.has_effects:
            apart = self.values[first] - self.values[second]
            apart = apart[~np.isnan(apart)]
            gap, n = float(apart.mean()), np.full(2, float(len(apart)))
        parts = self.error(self.within.variance[pair], n)
        known = self.within.freedom[pair]
        is_pooled = bool(self.within.pooled[pair].all() and np.isfinite(known).all())
        if not np.isfinite(parts.sum()):
            return Difference(gap, np.nan, np.nan, np.nan, np.nan, False)
        freedom = _satterthwaite(parts, known, is_pooled)
        error = float(np.sqrt(parts.sum()))
        half = float(stdtrit(freedom, 1 - LEVEL / 2)) * error
        least = -1.0 if self.is_share else -np.inf
        low, high = max(gap - half, least), min(gap + half, -least)
        if error == 0:
            return Difference(gap, low, high, float(gap == 0), freedom, is_pooled)
        p = float(2 * stdtr(freedom, -abs(gap) / error))
        return Difference(gap, low, high, p, freedom, is_pooled)

    def contest(self, best: int, others: Iterable[int]) -> Contest:
        """Return whether each of the others differs from the best by more than chance.

        Two questions, two rules. Is the best the best? It is if it differs from each of the others
        by the test of that pair alone: a wrong name then needs only one wrong pair, so nothing is
        corrected (an intersection–union test). Which others differ from it? There each pair is
        corrected for all pairs, since the best was chosen by the same scores: by Tukey's range
        where spreads agree, by Holm's method, whichever is smaller. If the first answer is yes, it
        answers the second one as well, so no p-value is larger than the largest of the pairs alone.

        Source: Gutmann and Maymin, Is the selected population the best?, 1987.
        """
        k = len(self.values)
        alone, p = np.full(k, np.nan), np.full(k, np.nan)
        others = [i for i in others if i != best]
        found = {i: self.difference(best, i) for i in others}
        sign = 1 if self.larger_is_better else -1
        for i, one in found.items():
            alone[i] = one.p if sign * one.gap > 0 or np.isnan(one.p) else 1.0
        for i, value in corrected(found, alone).items():
            p[i] = value
        if found and not np.isnan(alone[others]).any():
            p[others] = np.minimum(p[others], alone[others].max())
        return Contest(alone, p)


def corrected(found: Mapping[int, Difference], alone: Values) -> dict[int, float]:
    """Return p-values of one configuration against others that hold for all pairs of them.

    By Holm's method, and by Tukey's range for the pairs whose spreads are the common one: the
    smaller of the two.

    Args:
        found: The differences by the number of the other configuration.
        alone: The p-values of the pairs alone, by the same numbers.
    """
    known = [i for i in found if not np.isnan(alone[i])]
    groups = len(known) + 1
    p = dict(zip(known, map(float, holm(alone[known], groups * (groups - 1) // 2)), strict=True))
    pairs = [i for i in known if found[i].is_pooled and alone[i] < 1]
    if groups > 2 and pairs:
        from scipy.special import stdtrit

        freedom = found[pairs[0]].freedom
        statistic = -stdtrit(freedom, alone[pairs] / 2)
        ranges = studentized_range(statistic * np.sqrt(2), groups, freedom)
        p |= {i: min(p[i], max(tukey, alone[i])) for i, tukey in zip(pairs, ranges, strict=True)}
    return p


def _satterthwaite(parts: Values, freedom: Values, is_pooled: bool) -> float:
    """Return the degrees of freedom of a sum of two variances."""
    if is_pooled and freedom[0] == freedom[1]:
        return float(min(freedom[0], _MANY))
    lost = float((parts**2 / freedom).sum())
    return min(float(parts.sum()) ** 2 / lost, _MANY) if lost else _MANY


def evened(
    values: Values, means: Values, is_share: bool, is_positive: bool
) -> tuple[Values, Values]:
    """Return values on a scale on which their spread depends less on their size, and its slopes.

    Accuracies become log odds: near 1 they vary little. Losses become logarithms. Other values stay
    as they are, and NaN stays NaN.

    Args:
        values: (k, replicates).
        means: (k,); the slopes are those at the means.
        is_share: Whether the values lie between 0 and 1.
        is_positive: Whether they are losses above 0.
    """
    if is_share:
        known = values[~np.isnan(values)]
        inside = known[(known > 0) & (known < 1)]
        # 0 and 1 have no odds: they count as half as near as the nearest other value.
        edge = min(inside.min(), (1 - inside).min()) / 2 if len(inside) else 0.25
        p, at = np.clip(values, edge, 1 - edge), np.clip(means, edge, 1 - edge)
        return np.log(p / (1 - p)), 1 / (at * (1 - at))
    if is_positive:
        return np.log(values), 1 / means
    return values, np.ones_like(means)


def _variances(values: Values, rows: list[int]) -> tuple[Values, Values]:
    """Return (k,) the variance of each row, and its degrees of freedom; NaN for other rows."""
    variance, freedom = np.full(len(values), np.nan), np.full(len(values), np.nan)
    variance[rows] = np.nanvar(values[rows], axis=1, ddof=1)
    freedom[rows] = (~np.isnan(values[rows])).sum(axis=1) - 1.0
    return variance, freedom


def _effects(values: Values) -> Values:
    """Return (replicates,): by how much each column moves the rows, apart from their means.

    Where runs are missing, rows and columns are fitted in turn until they settle.
    """
    effects = np.zeros(values.shape[1])
    for _ in range(20 if np.isnan(values).any() else 1):
        rows = np.nanmean(values - effects, axis=1, keepdims=True)
        rest = values - rows
        filled = (~np.isnan(rest)).any(axis=0)
        effects[filled] = np.nanmean(rest[:, filled], axis=0)
    return effects


def _noisiest(variance: Values, freedom: Values) -> int | None:
    """Return the place of the largest variance, if chance does not explain it beside the others.

    An F test against the others together, corrected for the choice of the largest.
    """
    from scipy.special import fdtrc

    largest = int(np.argmax(variance))
    others = np.delete(np.arange(len(variance)), largest)
    total = freedom[others].sum()
    common = float((freedom[others] * variance[others]).sum() / total)
    if common == 0:
        return largest if variance[largest] > 0 else None
    p = float(fdtrc(freedom[largest], total, variance[largest] / common))
    return largest if p * len(variance) < UNUSUAL else None

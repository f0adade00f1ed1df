"""Draws scores of sweeps whose truth is known, and asks the comparison what it says of them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from src.comparison.scores import Scores
from src.comparison.statistics import LEVEL, Values

SAMPLES = 360
KINDS = (
    "normal",
    "shared seeds",
    "binomial",
    "some noisy",
    "one noisy",
    "one 3 × as noisy",
    "near 1",
)
_MEAN, _SPREAD = 0.8, 0.0004  # of accuracies that are normally distributed
_ODDS, _ODDS_SPREAD = 3.0, 0.3  # of log odds, to which the chance of the samples is added
_NEAR = 0.997


def draw(random: np.random.Generator, kind: str, gaps: Values, seeds: int) -> Scores:
    """Return the scores of a sweep.

    ``gaps`` (k,) are added to the configurations, in standard deviations of the quiet ones. The
    noisy ones, with ten times the standard deviation unless it is named, come first.
    """
    k = len(gaps)
    normal = random.standard_normal((k, seeds))
    if kind == "near 1":
        return _counted(random, np.clip(_NEAR + gaps * 0.003, 0, 0.9999)[:, None] + 0 * normal)
    if kind == "binomial":
        odds = _ODDS + _ODDS_SPREAD * (gaps[:, None] + normal)
        return _counted(random, 1 / (1 + np.exp(-odds)))
    if kind == "shared seeds":
        normal = 0.6 * normal + 0.8 * random.standard_normal(seeds)
    noisy = {"some noisy": max(1, round(0.3 * k)), "one noisy": 1}.get(kind, 0)
    normal[:noisy] *= 10
    if kind == "one 3 × as noisy":
        normal[0] *= 3
    return Scores(_MEAN + _SPREAD * (gaps[:, None] + normal), larger_is_better=True)


def _counted(random: np.random.Generator, accuracy: Values) -> Scores:
    return Scores(random.binomial(SAMPLES, accuracy) / SAMPLES, True, SAMPLES)


@dataclass(frozen=True)
class Rates:
    """Shares of simulated sweeps."""

    named: float  # that name a best one
    marked: float  # that tell one of the equal ones from the best
    right: float  # that name the one that is best


def rates(kind: str, gaps: Values, seeds: int, sweeps: int, random: np.random.Generator) -> Rates:
    """Return how often simulated sweeps name a best configuration, and whether it is right."""
    top = np.flatnonzero(gaps == gaps.max())
    named = marked = right = 0
    for _ in range(sweeps):
        scores = draw(random, kind, gaps, seeds)
        best = int(np.argmax(scores.means))
        p = scores.contest(best, range(len(gaps))).p
        names = bool((np.delete(p, best) < LEVEL).all())
        named += names
        marked += best in top and bool((p[top[top != best]] < LEVEL).any())
        right += names and len(top) == 1 and best == top[0]
    return Rates(named / sweeps, marked / sweeps, right / sweeps)


def equal(k: int) -> Values:
    """Return the gaps of configurations that are all equal."""
    return np.zeros(k)


def two_tied(k: int) -> Values:
    """Return the gaps of two equal configurations with all others far below: the worst case."""
    return np.array([0.0, 0.0] + [-8.0] * (k - 2))


def one_ahead(k: int) -> Values:
    """Return the gaps of one configuration that is ahead by two standard deviations."""
    return np.array([0.0] * (k - 1) + [2.0])


def coverage(kind: str, seeds: int, sweeps: int, random: np.random.Generator) -> float:
    """Return how often the interval of a configuration among six holds its true mean."""
    k = 6
    truth = {"near 1": _NEAR, "binomial": _mean_accuracy()}.get(kind, _MEAN)
    inside = 0
    for _ in range(sweeps):
        low, high = draw(random, kind, equal(k), seeds).intervals()
        inside += int(((low <= truth) & (truth <= high)).sum())
    return inside / sweeps / k


def _mean_accuracy() -> float:
    """Return the expected accuracy of normally distributed log odds, by Gauss and Hermite."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    return float(weights @ (1 / (1 + np.exp(-_ODDS - _ODDS_SPREAD * nodes))) / weights.sum())


POOL, TRAIN, TEST = 1797, 1077, 360
_FEATURES = 20
_SHIFT = 0.4


def divided(random: np.random.Generator, divisions: int, seeds: int) -> tuple[Values, float]:
    """Return (2, divisions, seeds) scores of two equal classifiers, and what is expected of them.

    Each division draws its training and test samples from one pool, as a sweep over
    ``data.split.seed`` does. The classifiers take the nearest mean, each by features of its own, so
    that they are equal and differ by chance. A seed adds noise.
    """
    labels = random.integers(0, 2, POOL)
    points = random.standard_normal((2, POOL, _FEATURES))
    points += (_SHIFT * (2 * labels - 1))[None, :, None] / np.sqrt(_FEATURES) * 2
    scores = np.empty((2, divisions))
    for j in range(divisions):
        order = random.permutation(POOL)
        train, test = order[:TRAIN], order[TRAIN : TRAIN + TEST]
        for i in range(2):
            x, y = points[i][train], labels[train]
            axis = x[y == 1].mean(axis=0) - x[y == 0].mean(axis=0)
            middle = (x[y == 1].mean(axis=0) + x[y == 0].mean(axis=0)) / 2
            said = (points[i][test] - middle) @ axis > 0
            scores[i, j] = (said == labels[test]).mean()
    noise = random.normal(0, 0.01, (2, divisions, seeds))
    return scores[:, :, None] + noise, _accuracy()


_known: list[float] = []


def _accuracy() -> float:
    """Return the accuracy expected of the classifiers, from many pools of their own."""
    if not _known:
        random, found = np.random.default_rng(99), []
        for _ in range(400):
            labels = random.integers(0, 2, TRAIN + 4000)
            x = random.standard_normal((len(labels), _FEATURES))
            x += (_SHIFT * (2 * labels - 1))[:, None] / np.sqrt(_FEATURES) * 2
            train, y = x[:TRAIN], labels[:TRAIN]
            axis = train[y == 1].mean(axis=0) - train[y == 0].mean(axis=0)
            middle = (train[y == 1].mean(axis=0) + train[y == 0].mean(axis=0)) / 2
            found.append((((x[TRAIN:] - middle) @ axis > 0) == labels[TRAIN:]).mean())
        _known.append(float(np.mean(found)))
    return _known[0]


def by_division(
    divisions: int,
    seeds: int,
    sweeps: int,
    random: np.random.Generator,
    compare: Callable[[Values], Scores] | None = None,
) -> tuple[float, float]:
    """Return how often two equal configurations get a winner, and the coverage of intervals."""
    compare = compare or (lambda v: Scores(v.mean(axis=2), True, TEST, TEST / TRAIN))
    named = inside = 0
    for _ in range(sweeps):
        values, expected = divided(random, divisions, seeds)
        scores = compare(values)
        best = int(np.argmax(scores.means))
        named += bool(scores.contest(best, [0, 1]).p[1 - best] < LEVEL)
        low, high = scores.intervals()
        inside += int(((low <= expected) & (expected <= high)).sum())
    return named / sweeps, inside / sweeps / 2

"""Scores over seeds and divisions: intervals and tests agree with SciPy, and hold by simulation."""

from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from src.comparison.scores import Contest, Scores, corrected
from src.comparison.statistics import LEVEL, Values, holm
from tests.rates.simulation import by_division, coverage, equal, one_ahead, rates, two_tied


def grades(*rows: Sequence[float] | Values) -> Scores:
    """Return scores of seeds of their own on an open scale, which are compared as they are."""
    k, n = len(rows), max(map(len, rows))
    values = np.full((k, k * n), np.nan)
    for i, row in enumerate(rows):
        values[i, i * n : i * n + len(row)] = np.array(row) * 10
    return Scores(values, larger_is_better=True)


def known(scores: Scores) -> list[Values]:
    """Return the scores of each configuration."""
    return [row[~np.isnan(row)] for row in scores.values]


def against_first(scores: Scores) -> Contest:
    return scores.contest(0, range(len(scores.values)))


ALIKE = [
    [9.52, 9.61, 9.57, 9.49, 9.58],
    [9.32, 9.38, 9.41, 9.27, 9.36],
    [9.31, 9.22, 9.35, 9.26, 9.30],
]


def test_configurations_that_vary_alike_are_compared_with_one_spread() -> None:
    scores = grades(*ALIKE)
    pooled = np.mean([row.var(ddof=1) for row in known(scores)])
    gap = scores.means[0] - scores.means[1]
    expected = 2 * stats.t.sf(gap / np.sqrt(pooled * 2 / 5), 12)
    found = scores.difference(0, 1)
    assert found.p == pytest.approx(expected)
    half = stats.t.isf(0.025, 12) * np.sqrt(pooled * 2 / 5)
    assert (found.low, found.high) == pytest.approx((gap - half, gap + half))
    assert (found.freedom, found.is_pooled) == (12, True)


def test_what_a_seed_does_to_all_alike_is_removed() -> None:
    values = np.array(ALIKE) * 10 + np.array([0, 6, -4, 3, -5])
    scores = Scores(values, larger_is_better=True)
    rest = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    variance = (rest**2).sum() / 8  # two-way analysis of variance
    gap = values[0].mean() - values[1].mean()
    found = scores.difference(0, 1)
    assert found.p == pytest.approx(2 * stats.t.sf(gap / np.sqrt(variance * 2 / 5), 8))
    assert found.p < 1e-3 < stats.ttest_ind(values[0], values[1]).pvalue
    # The means themselves are no surer than the seeds are alike.
    low, high = scores.intervals()
    alone = stats.t.interval(0.95, 4, values[0].mean(), stats.sem(values[0]))
    assert high[0] - low[0] == pytest.approx(alone[1] - alone[0], rel=0.05)
    few = Scores(values[:2, :3], larger_is_better=True)  # removing it would leave too little
    assert few.difference(0, 1).p == pytest.approx(stats.ttest_ind(*few.values).pvalue)


def test_two_configurations_have_the_p_value_of_student_s_test() -> None:
    scores = grades(ALIKE[0], ALIKE[1])
    expected = stats.ttest_ind(*known(scores)).pvalue
    assert scores.difference(0, 1).p == pytest.approx(expected)


def test_which_others_differ_is_corrected_by_tukey_s_range() -> None:
    rows = [[9.50, 9.61, 9.57, 9.46], [9.43, 9.52, 9.49, 9.38], [9.35, 9.44, 9.48, 9.29]]
    scores = grades(*rows)
    expected = stats.tukey_hsd(*known(scores)).pvalue[0]
    contest = against_first(scores)
    assert contest.p[2] == pytest.approx(expected[2], rel=0.03)
    assert contest.p[1] == pytest.approx(min(expected[1], contest.alone[1:].max()), rel=0.03)
    first, *others = known(scores)
    tests = [stats.ttest_ind(first, row).pvalue for row in others]
    assert contest.alone[2] < min(tests)  # the spread of all three is known better


def test_the_best_needs_no_correction_where_it_differs_from_each_of_the_others() -> None:
    rows = [[9.61, 9.64, 9.62], *[[9.50 + 0.005 * n, 9.59, 9.49] for n in range(6)]]
    contest = against_first(grades(*rows))
    assert contest.alone[1:].max() < LEVEL
    together = holm(contest.alone[1:], 7 * 6 // 2)
    assert together.max() > LEVEL  # as one of many pairs, some would not count
    assert contest.p[1:].max() == pytest.approx(contest.alone[1:].max())
    one_ties = against_first(grades(*rows, [9.60, 9.58, 9.63]))
    assert one_ties.alone[1:7].max() < LEVEL
    assert one_ties.p[1:7].max() > LEVEL  # the best is not named, so that each pair is corrected


def test_a_best_can_t_be_named_beside_one_of_which_too_little_is_known() -> None:
    rows = np.array([[9.6, 9.7, 9.65], [9.0, 9.1, 9.05], [9.2, np.nan, np.nan]])
    contest = Scores(rows * 10, larger_is_better=True).contest(0, [0, 1, 2])
    assert np.isnan(contest.alone[2])
    assert np.isnan(contest.p[2])
    assert contest.p[1] < LEVEL


def test_a_noisy_configuration_keeps_its_own_spread() -> None:
    noisy = [9.9, 8.7, 9.3, 8.9, 9.8]
    scores = grades(*ALIKE, noisy)
    welch = scores.difference(0, 3)
    assert not welch.is_pooled
    assert list(scores.within.pooled) == [True, True, True, False]
    assert scores.within.freedom[3] == 4
    assert scores.difference(0, 1).p == pytest.approx(grades(*ALIKE).difference(0, 1).p, rel=0.03)
    own = np.var(known(scores)[3], ddof=1) / 5
    common = grades(*ALIKE).within.variance[0] / 5
    freedom = (own + common) ** 2 / (own**2 / 4 + common**2 / 12)
    gap = scores.means[0] - scores.means[3]
    expected = 2 * stats.t.sf(gap / np.sqrt(own + common), freedom)
    assert welch.p == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    "rows", [([9.1, 9.5], [8.2, 8.9]), ([9.1, 9.5, 9.7, 9.2, 9.9], [8.2, 8.9])]
)
def test_few_seeds_or_unequal_numbers_are_compared_as_scipy_does(
    rows: tuple[list[float], ...],
) -> None:
    values = np.full((2, 5), np.nan)
    for i, row in enumerate(rows):
        values[i, : len(row)] = row
    scores = Scores(values * 10, larger_is_better=True)
    pooled = len(rows[0]) > 2
    expected = stats.ttest_ind(*(np.array(row) * 10 for row in rows), equal_var=pooled)
    assert scores.difference(0, 1).p == pytest.approx(expected.pvalue, rel=0.02)
    assert scores.difference(1, 0).gap == -scores.difference(0, 1).gap


def test_of_losses_the_smaller_ones_are_better() -> None:
    losses = Scores(np.array([[0.2, 0.21, 0.19], [0.3, 0.31, 0.33], [0.18, 0.19, 0.21]]), False)
    contest = losses.contest(0, [1, 2])
    assert contest.p[1] < LEVEL
    assert contest.alone[2] == 1  # it is better than what was called the best
    low, high = losses.intervals()
    assert (low > 0).all()
    assert np.sqrt(low * high) == pytest.approx(losses.means)  # symmetric on logarithms


def test_a_loss_has_no_interval_below_nought() -> None:
    low, high = Scores(np.array([[0.01, 0.4, 0.05]]), larger_is_better=False).intervals()
    assert 0 < low[0] < 0.1533 < high[0]


def test_a_loss_of_nought_has_no_logarithm() -> None:
    low, high = Scores(np.array([[0.0, 0.4, 0.05]]), larger_is_better=False).intervals()
    assert np.isfinite([low, high]).all()


def divided(overlap: float) -> Scores:
    """Return the scores of two configurations over six divisions, which move both alike."""
    moved = np.array([0, 0.02, -0.03, 0.01, 0.03, -0.02])
    apart = np.array([0.004, 0.006, 0.002, 0.007, 0.005, 0.006])
    return Scores(10 * np.stack([9.5 + moved + apart, 9.5 + moved]), True, overlap=overlap)


def test_divisions_are_paired_and_their_overlap_widens_the_test() -> None:
    scores = divided(1 / 3)
    apart = scores.values[0] - scores.values[1]
    error = np.sqrt(np.var(apart, ddof=1) * (1 / 6 + 1 / 3))  # Nadeau and Bengio 2003
    expected = 2 * stats.t.sf(apart.mean() / error, 5)
    found = scores.difference(0, 1)
    assert found.p == pytest.approx(expected)
    assert found.low == pytest.approx(apart.mean() - stats.t.isf(0.025, 5) * error)
    paired = stats.ttest_rel(*scores.values).pvalue
    assert paired < found.p < stats.ttest_ind(*scores.values).pvalue


def test_the_interval_over_divisions_is_widened_and_holds_what_moves_all_alike() -> None:
    scores = divided(1 / 3)
    low, high = scores.intervals()
    spread = np.sqrt(np.mean(scores.values.var(axis=1, ddof=1)))
    half = stats.t.isf(0.025, 5) * spread * np.sqrt(1 / 6 + 1 / 3)
    assert high[1] - scores.means[1] == pytest.approx(half, rel=0.02)
    assert scores.means[1] - low[1] == pytest.approx(half, rel=0.02)


def test_what_divisions_do_to_all_is_removed_where_runs_are_missing() -> None:
    random = np.random.default_rng(3)
    moved = random.normal(0, 5, 6)
    values = 90 + moved + np.arange(3)[:, None] + random.normal(0, 0.3, (3, 6))
    values[0, 1] = values[2, 4] = np.nan
    scores = Scores(values, larger_is_better=True, overlap=1 / 3)
    # Independently: least squares with a term for each row and each column.
    known = ~np.isnan(values)
    rows, columns = np.nonzero(known)
    terms = np.hstack([np.eye(3)[rows], np.eye(6)[columns]])
    fit = terms @ np.linalg.lstsq(terms, values[known], rcond=None)[0]
    rest = ((values[known] - fit) ** 2).sum()
    freedom = scores.within.freedom[0]
    assert scores.within.variance[0] * freedom == pytest.approx(rest, rel=0.01)
    assert freedom == pytest.approx((5 + 4 + 4) * 2 / 3)


def test_an_interval_is_that_of_scipy_where_scores_have_no_bounds() -> None:
    values = [9.52, 9.61, 9.57, 9.49]
    scores = grades(values)
    low, high = scores.intervals()
    expected = stats.t.interval(0.95, 3, scores.means[0], stats.sem(known(scores)[0]))
    assert (low[0], high[0]) == pytest.approx(expected)
    low, high = Scores(np.array([[0.9, np.nan], [np.nan, np.nan]]), True).intervals()
    assert np.isnan([low, high]).all()


@pytest.mark.parametrize("row", [[1.0, 1.0, 1.0], [359 / 360] * 2, [0.0] * 3, [0.98] * 5])
def test_equal_scores_are_no_certainty(row: list[float]) -> None:
    (low,), (high,) = Scores(np.array([row]), True, 360).intervals()
    assert 0 <= low <= row[0] <= high <= 1
    assert high - low > 0.001


def test_scores_far_apart_have_an_interval_within_the_range() -> None:
    (low,), (high,) = Scores(np.array([[0.1, 0.98, 0.97]]), True, 360).intervals()
    assert 0 < low < 0.2
    assert 0.98 < high < 1


def test_few_wrong_answers_say_little() -> None:
    # Three networks with one wrong answer of 360 each: by the binomial distribution their accuracy
    # may be 0.995.
    (low,), (high,) = Scores(np.full((1, 3), 359 / 360), True, 360).intervals()
    exact = stats.binomtest(3 * 359, 3 * 360).proportion_ci(method="wilson")
    assert low == pytest.approx(exact.low, abs=0.003)
    assert high == pytest.approx(exact.high, abs=0.002)


def test_equal_configurations_seldom_get_a_winner_or_a_loser() -> None:
    random = np.random.default_rng(1)
    for k, seeds in ((2, 3), (6, 3), (6, 10), (20, 5)):
        found = rates("normal", equal(k), seeds, 400, random)
        assert found.named < 0.085, (k, seeds, found)
        assert found.marked < 0.085, (k, seeds, found)


@pytest.mark.slow
def test_two_that_tie_far_ahead_of_the_rest_are_the_worst_case() -> None:
    random = np.random.default_rng(2)
    for kind in ("normal", "binomial"):
        assert 0.02 < rates(kind, two_tied(6), 5, 400, random).named < 0.085


@pytest.mark.slow
def test_noise_is_seldom_taken_for_a_difference() -> None:
    random = np.random.default_rng(3)
    for kind in ("one noisy", "some noisy"):
        for k in (6, 20):
            found = rates(kind, equal(k), 5, 300, random)
            assert found.marked < 0.09, (kind, k, found)


def test_what_is_ahead_by_two_standard_deviations_is_found() -> None:
    random = np.random.default_rng(4)
    assert rates("normal", one_ahead(6), 5, 300, random).right > 0.5
    assert rates("normal", one_ahead(6), 10, 200, random).right > 0.9
    assert rates("normal", one_ahead(20), 10, 100, random).right > 0.8


@pytest.mark.slow
def test_intervals_cover_the_mean() -> None:
    random = np.random.default_rng(5)
    for kind in ("normal", "binomial", "near 1"):
        for seeds in (2, 3, 5):
            assert coverage(kind, seeds, 400, random) > 0.92, (kind, seeds)


@pytest.mark.slow
def test_divisions_give_neither_false_winners_nor_narrow_intervals() -> None:
    random = np.random.default_rng(6)
    for divisions, seeds in ((3, 3), (2, 5), (10, 1)):
        named, covered = by_division(divisions, seeds, 150, random)
        assert named < 0.1, (divisions, seeds)
        assert covered > 0.91, (divisions, seeds)

    def as_seeds(values: Values) -> Scores:
        return Scores(values.reshape(2, -1), True, 360)

    named, _ = by_division(2, 5, 150, random, as_seeds)
    assert named > 0.25  # what it would be if every run counted


def test_a_correction_for_pairs_counts_all_of_them() -> None:
    scores = grades([9.9, 9.8], [8.9, 8.8], [8.0, 7.1])  # no common spread
    found = {i: scores.difference(0, i) for i in (1, 2)}
    alone = np.array([np.nan, found[1].p, found[2].p])
    least = min(found[1].p, found[2].p)
    assert min(corrected(found, alone).values()) == pytest.approx(3 * least)  # of three pairs

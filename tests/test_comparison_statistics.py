"""Intervals, tests and shares agree with SciPy and published figures, and hold by simulation."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.linear_model import LinearRegression

from src.comparison.importance import HIGHER, LEFT, NOISE, importance
from src.comparison.statistics import (
    LEVEL,
    Values,
    against_best,
    evened,
    holm,
    interval,
    mcnemar_p,
    optimism,
    paired_difference,
    pareto,
    same_samples,
    shared_spread,
)

SIGNIFICANT = 0.05


def sweep_of_equals(
    random: np.random.Generator, configurations: int, seeds: int, kind: str
) -> Values:
    """Return (configurations, seeds): accuracies on 360 samples of configurations that are equal.

    A network's own accuracy has a spread over seeds, and a part that is common to a seed; the score
    adds the chance of 360 samples. With ``uneven`` the spreads differ tenfold.
    """
    shape = (configurations, seeds)
    spread = (
        np.where(random.random((configurations, 1)) < 0.3, 1.5, 0.15) if kind == "uneven" else 0.3
    )
    odds = random.normal(3.5, spread, shape) + random.normal(0, 0.2, seeds)
    return random.binomial(360, 1 / (1 + np.exp(-odds))) / 360


@pytest.mark.parametrize(("configurations", "seeds"), [(2, 3), (2, 10), (6, 3), (6, 5), (20, 3)])
def test_of_equal_configurations_at_most_one_sweep_in_twenty_names_a_winner(
    configurations: int, seeds: int
) -> None:
    random = np.random.default_rng(configurations * 100 + seeds)
    winners = told = 0
    for _ in range(1000):
        values = sweep_of_equals(random, configurations, seeds, "even")
        best = int(values.mean(axis=1).argmax())
        p = np.delete(against_best(values, best, larger_is_better=True), best)
        winners += bool((p < SIGNIFICANT).all())
        told += bool((p < SIGNIFICANT).any())
    assert winners <= 65, winners  # 5% ± 1.5
    assert told <= 65, told  # that any is told from the best, chosen by the same values


def test_a_winner_is_rarely_named_where_spreads_differ_tenfold() -> None:
    random = np.random.default_rng(3)
    for configurations, seeds in ((2, 3), (6, 3), (6, 10)):
        winners = 0
        for _ in range(500):
            values = sweep_of_equals(random, configurations, seeds, "uneven")
            best = int(values.mean(axis=1).argmax())
            p = np.delete(against_best(values, best, larger_is_better=True), best)
            winners += bool((p < SIGNIFICANT).all())
        assert winners <= 33, (configurations, seeds, winners)


def test_a_configuration_that_is_better_is_told_from_the_others() -> None:
    random = np.random.default_rng(4)
    named = 0
    for _ in range(200):
        odds = random.normal(2.2, 0.15, (6, 5))
        odds[3] += 1.5  # 0.976 instead of 0.900
        values = random.binomial(360, 1 / (1 + np.exp(-odds))) / 360
        p = np.delete(against_best(values, 3, larger_is_better=True), 3)
        named += bool((p < SIGNIFICANT).all())
    assert named > 190


def test_of_losses_the_smaller_ones_are_better_and_a_seed_s_effect_is_removed() -> None:
    seeds = np.array([0.0, 0.5, -0.4, 0.2, 0.9])  # makes all networks of a seed better or worse
    random = np.random.default_rng(5)
    loss = np.exp(np.log([[0.2], [0.3], [0.6]]) + seeds + random.normal(0, 0.02, (3, 5)))
    p = against_best(loss, 0, larger_is_better=False)
    assert math.isnan(p[0])
    assert (p[1:] < 1e-6).all()
    unpaired = loss.copy()
    unpaired[0, :4] = np.nan  # two seeds are no longer shared: their effect can't be removed
    unpaired = np.hstack([unpaired, np.full((3, 4), np.nan)])
    unpaired[0, 5:] = loss[0, :4]
    assert (against_best(unpaired, 0, larger_is_better=False)[1:] > p[1:]).all()


def test_two_configurations_are_compared_by_the_paired_t_test_of_scipy() -> None:
    # Spreads are compared on log odds; their rounding to 1/1000 adds a little.
    values = np.array([[0.951, 0.962, 0.957, 0.949], [0.912, 0.938, 0.931, 0.907]])
    odds = np.log(values / (1 - values))
    expected = stats.ttest_rel(odds[0], odds[1]).pvalue
    assert against_best(values, 0, larger_is_better=True)[1] == pytest.approx(expected, rel=0.1)


def test_what_is_known_of_one_seed_has_no_p_value() -> None:
    values = np.array([[0.9, np.nan, np.nan], [0.8, np.nan, np.nan]])
    assert np.isnan(against_best(values, 0, larger_is_better=True)).all()
    values = np.array([[0.9, 0.91, 0.92], [0.8, np.nan, np.nan], [0.7, 0.71, 0.69]])
    p = against_best(values, 0, larger_is_better=True)
    assert np.isnan(p[:2]).all()
    assert p[2] < SIGNIFICANT


def test_equal_values_give_no_certainty() -> None:
    values = np.array([[0.975, 0.975, 0.975], [0.9722222, 0.9722222, 0.9722222]])  # 1/360 apart
    assert against_best(values, 0, larger_is_better=True)[1] > 0.01
    assert against_best(np.full((3, 3), 0.1), 0, larger_is_better=True)[1:] == pytest.approx(1.0)


def test_intervals_are_those_of_scipy_and_cover_the_mean() -> None:
    random = np.random.default_rng(6)
    for n in (2, 3, 5, 10):
        values = random.normal(0.9, 0.02, (4000, n))
        mean, deviation = values.mean(axis=1), values.std(axis=1, ddof=1)
        low, high = interval(mean, deviation, np.full(4000, n))
        expected = stats.t.interval(0.95, n - 1, mean[0], stats.sem(values[0]))
        assert (low[0], high[0]) == pytest.approx(expected)
        assert np.mean((low <= 0.9) & (high >= 0.9)) == pytest.approx(0.95, abs=0.012)
    low, high = interval(np.array([0.9]), np.array([np.nan]), np.array([1]))
    assert np.isnan([low, high]).all()
    assert interval(np.array([0.99]), np.array([0.02]), np.array([3]), 0, 1)[1] == 1


def test_holm_s_correction_is_the_published_one() -> None:
    # Holm (1979) in R: p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm")
    assert holm(np.array([0.01, 0.02, 0.03, 0.04, 0.05])) == pytest.approx(
        [0.05, 0.08, 0.09, 0.09, 0.09]
    )
    assert holm(np.array([0.03, np.nan, 0.01]))[[0, 2]] == pytest.approx([0.03, 0.02])
    assert holm(np.array([0.01, 0.02]), comparisons=3) == pytest.approx([0.03, 0.04])


def test_spreads_that_agree_become_one_and_those_that_differ_stay() -> None:
    random = np.random.default_rng(7)
    freedom = np.full(200, 2.0)
    even = random.chisquare(2, 200) / 2
    shared = shared_spread(even, freedom)
    assert shared.variance.std() < 0.25 * even.std()
    assert shared.variance.mean() == pytest.approx(1, rel=0.2)
    scale = np.exp(random.normal(0, 4, 200))
    kept = shared_spread(even * scale, freedom)
    assert np.median(kept.freedom) < 4
    assert np.corrcoef(np.log(kept.variance), np.log(even * scale))[0, 1] > 0.9


def test_spreads_are_drawn_together_as_smyth_s_model_has_them() -> None:
    # Variances that were drawn from his prior, 10 degrees of freedom at 0.04, give it back.
    random = np.random.default_rng(8)
    true = 10 * 0.04 / random.chisquare(10, 20_000)
    found = shared_spread(true * random.chisquare(4, 20_000) / 4, np.full(20_000, 4.0))
    assert found.freedom[0] - 4 == pytest.approx(10, rel=0.15)
    at = 0.0
    shared = shared_spread(
        np.append(true * random.chisquare(4, 20_000) / 4, 1e-12), np.full(20_001, 4.0)
    )
    prior = shared.freedom[-1] - 4
    at = shared.variance[-1] * (prior + 4) / prior  # what a variance of 0 is drawn towards
    assert at == pytest.approx(0.04, rel=0.1)


def test_evened_scales_are_log_odds_and_logarithms() -> None:
    scaled, slope = evened(np.array([[0.5, 0.9], [1.0, np.nan]]), larger_is_better=True)
    assert scaled[0] == pytest.approx([0, math.log(9)])
    assert slope[0, 0] == pytest.approx(4)
    assert scaled[1, 0] == pytest.approx(math.log(0.95 / 0.05))  # 1 counts as half of 0.1 away
    assert evened(np.array([[0.5, 2.0]]), larger_is_better=False)[0][0] == pytest.approx(
        np.log([0.5, 2])
    )
    assert evened(np.array([[-1.0, 2.0]]), larger_is_better=False)[0][0] == pytest.approx([-1, 2])


def test_mcnemar_s_test_gives_the_published_figure() -> None:
    # Agresti, Categorical Data Analysis, table 10.1, the prime minister's performance: 86 and 150
    # of 1600 voters changed their mind; z² = 17.36 in section 10.1.2 (p = 3.1e-5).
    first = np.repeat([1.0, 1.0, 0.0, 0.0], [794, 150, 86, 570])
    second = np.repeat([1.0, 0.0, 1.0, 0.0], [794, 150, 86, 570])
    single = same_samples(first[None], second[None])
    assert (single.only_first, single.only_second) == (150, 86)
    assert single.p == pytest.approx(stats.binomtest(86, 236).pvalue)
    assert single.difference == pytest.approx(0.04)
    assert (single.low, single.high) == pytest.approx((0.0213, 0.0587), abs=0.0003)
    z2 = stats.norm.isf(mcnemar_p(first[None], second[None], exact=False)[0] / 2) ** 2
    assert z2 == pytest.approx(17.36, abs=0.01)


def test_a_sample_counts_once_however_many_networks_answer_it() -> None:
    random = np.random.default_rng(9)
    hard = random.random(500)
    first = (random.random((5, 500)) > hard - 0.02).astype(np.float64)
    second = (random.random((5, 500)) > hard).astype(np.float64)
    once = same_samples(first, second)
    assert once.networks == 5
    repeated = same_samples(np.repeat(first, 4, axis=0), np.repeat(second, 4, axis=0))
    assert repeated.p == pytest.approx(once.p)  # the same answers again are no news


def test_pairs_are_compared_as_scipy_does() -> None:
    first, second = np.array([0.91, 0.93, 0.95, np.nan]), np.array([0.90, 0.915, 0.93, 0.8])
    gap, ends, p, paired = paired_difference(first, second)
    expected = stats.ttest_rel(first[:3], second[:3])
    assert paired
    assert [gap, p] == pytest.approx([0.015, expected.pvalue])
    assert ends == pytest.approx(list(expected.confidence_interval()))
    apart = np.array([np.nan, np.nan, np.nan, 0.8, 0.82, 0.81])
    gap, ends, p, paired = paired_difference(np.append(first[:3], [np.nan] * 3), apart)
    assert p == pytest.approx(stats.ttest_ind(first[:3], apart[3:], equal_var=False).pvalue)
    assert not paired
    assert np.isnan(paired_difference(first, first)[2])  # no spread, no test


def test_the_best_of_equal_configurations_flatters_itself_by_what_it_loses_on_new_seeds() -> None:
    random = np.random.default_rng(10)
    gaps, estimates = [], []
    for _ in range(300):
        values = random.normal(0, 1, (10, 6))
        gaps.append(values.mean(axis=1).max())  # the true mean of each is 0
        found = optimism(values, larger_is_better=True)
        assert found is not None
        estimates.append(found)
    # One seed is left out, so it is a little more than for all six.
    assert np.mean(gaps) < np.mean(estimates) < 1.25 * np.mean(gaps)
    assert optimism(np.array([[0.9, np.nan], [0.8, 0.7]]), larger_is_better=True) is None
    clear = np.array([[0.1, 0.11, 0.12], [0.5, 0.51, 0.52]])
    assert optimism(clear, larger_is_better=False) == pytest.approx(0)


def frame(values: np.ndarray, *names: str) -> pd.DataFrame:
    """Return the runs of a grid: the last axis of the values are seeds."""
    rows = []
    for place, value in np.ndenumerate(values):
        cell = int(np.ravel_multi_index(place[:-1], values.shape[:-1]))
        rows.append({"group": cell, **dict(zip(names, place, strict=False)), "value": value})
    return pd.DataFrame(rows)


def test_shares_on_a_grid_are_those_of_the_analysis_of_variance() -> None:
    random = np.random.default_rng(11)
    a, b, c = (random.normal(0, scale, n) for scale, n in ((2, 4), (1, 3), (0.5, 2)))
    values = (
        a[:, None, None, None]
        + b[:, None, None]
        + np.multiply.outer(a, b)[:, :, None, None]
        + c[:, None]
        + random.normal(0, 0.3, (4, 3, 2, 5))
    )
    found = importance(frame(values, "lr", "model", "init"), ["lr", "model", "init"])
    shares = dict(zip(found["effect"], found["share"], strict=True))
    total = ((values - values.mean()) ** 2).sum()
    # Independently: what dummy variables of an effect explain on top of those within it.
    runs = frame(values, "lr", "model", "init").astype({"lr": str, "model": str, "init": str})

    def explained(*effects: tuple[str, ...]) -> float:
        columns = [
            pd.get_dummies(runs[list(effect)].agg("/".join, axis=1), dtype=float)
            for effect in effects
        ]
        X, y = pd.concat(columns, axis=1).to_numpy(), runs["value"].to_numpy()
        return float(LinearRegression().fit(X, y).score(X, y))

    assert shares["lr"] == pytest.approx(explained(("lr",)))
    both = explained(("lr",), ("model",))
    assert shares["lr × model"] == pytest.approx(explained(("lr", "model")) - both)
    cells = ((values - values.mean(axis=-1, keepdims=True)) ** 2).sum()
    assert shares[NOISE] == pytest.approx(cells / total)
    assert sum(shares.values()) == pytest.approx(1)
    assert set(shares) == {
        *("lr", "model", "init", "lr × model", "lr × init", "model × init"),
        *(HIGHER, NOISE),
    }
    assert "exact" in found["method"].iloc[0]


def test_off_a_grid_a_forest_finds_the_setting_that_matters() -> None:
    random = np.random.default_rng(12)
    lr, useless = random.uniform(0, 1, 60), random.uniform(0, 1, 60)
    runs = pd.DataFrame(
        {
            "group": range(60),
            "lr": lr,
            "useless": useless,
            "value": (lr > 0.4) * 1.0 + 0.01 * useless,
        }
    )
    found = importance(runs, ["lr", "useless"])
    shares = dict(zip(found["effect"], found["share"], strict=True))
    assert shares["lr"] > 0.8
    assert shares["useless"] < 0.05
    assert sum(shares.values()) == pytest.approx(1)
    assert LEFT in shares
    assert importance(runs.head(5), ["lr", "useless"]).empty
    assert importance(runs, []).empty


def test_runs_may_lack_a_setting_that_others_have() -> None:
    every = [math.nan, 3, 7, math.nan] * 6
    metric = [math.nan, "loss", math.nan, "accuracy"] * 6
    values = [0.5 + 0.01 * n for n in range(24)]
    runs = pd.DataFrame(
        {"group": range(24), "schedule.every": every, "stopping.metric": metric, "value": values}
    )
    shares = importance(runs, ["schedule.every", "stopping.metric"])["share"]
    assert shares.sum() == pytest.approx(1)


def test_the_front_holds_what_nothing_beats_in_both() -> None:
    cost, value = [1, 2, 3, 3, math.nan], [0.7, 0.9, 0.8, 0.95, 0.99]
    assert pareto(cost, value, larger_is_better=True) == [True, True, False, True, False]
    assert pareto(cost, value, larger_is_better=False) == [True, False, False, False, False]
    assert LEVEL == SIGNIFICANT

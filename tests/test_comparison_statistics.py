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
    holm,
    mcnemar_p,
    optimism,
    pareto,
    same_samples,
    studentized_range,
)

SIGNIFICANT = 0.05


def test_holm_s_correction_is_the_published_one() -> None:
    # Holm (1979) in R: p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm")
    assert holm(np.array([0.01, 0.02, 0.03, 0.04, 0.05])) == pytest.approx(
        [0.05, 0.08, 0.09, 0.09, 0.09]
    )
    assert holm(np.array([0.03, np.nan, 0.01]))[[0, 2]] == pytest.approx([0.03, 0.02])
    assert holm(np.array([0.01, 0.02]), comparisons=3) == pytest.approx([0.03, 0.04])


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


@pytest.mark.parametrize("seeds", [2, 3, 6])
def test_the_best_of_equal_configurations_flatters_itself_by_what_is_estimated(seeds: int) -> None:
    random = np.random.default_rng(10)
    gaps, estimates = [], []
    for _ in range(1500):
        values = random.normal(0, 1, (10, seeds))
        gaps.append(values.mean(axis=1).max())  # the true mean of each is 0
        found = optimism(values, larger_is_better=True)
        assert found is not None
        estimates.append(found)
    assert np.mean(estimates) == pytest.approx(np.mean(gaps), rel=0.1)


def test_a_best_that_is_clear_is_hardly_flattered_and_one_of_one_seed_is_not_judged() -> None:
    clear = np.array([[0.1, 0.11, 0.12], [0.5, 0.51, 0.52]])
    assert optimism(clear, larger_is_better=False) == pytest.approx(0)
    losses = np.array([[0.1, 0.3], [0.2, 0.25]])
    # Chosen by the first seed: 0.1, which is 0.3 on the second. By the second: 0.25, which is 0.2.
    expected = ((0.3 - 0.1) + (0.2 - 0.25)) / 2 / np.sqrt(2)
    assert optimism(losses, larger_is_better=False) == pytest.approx(expected)
    assert optimism(np.array([[0.9, np.nan], [0.8, 0.7]]), larger_is_better=True) is None
    assert optimism(np.array([[0.9, 0.8]]), larger_is_better=True) is None


def test_tukey_s_p_values_are_those_of_scipy() -> None:
    q = np.array([0.7, 2.0, 3.3, 3.9, 4.6, 7.0])
    for groups, freedom in ((3, 6), (6, 12), (20, 40)):
        expected = stats.studentized_range.sf(q, groups, freedom)
        found = studentized_range(q, groups, freedom)
        assert found == pytest.approx(expected, rel=0.03, abs=1e-6)
        assert found[2:] == pytest.approx(expected[2:], rel=0.01, abs=1e-6)


def frame(values: np.ndarray, *names: str) -> pd.DataFrame:
    """Return the runs of a grid: the last axis of the values are seeds."""
    rows = []
    for place, value in np.ndenumerate(values):
        cell = int(np.ravel_multi_index(place[:-1], values.shape[:-1]))
        rows.append({"group": cell, **dict(zip(names, place, strict=False)), "value": value})
    return pd.DataFrame(rows)


def shares(runs: pd.DataFrame, *settings: str) -> pd.DataFrame:
    """Return the effects by their names."""
    return importance(runs, settings).set_index("effect")


def test_shares_on_a_grid_are_omega_squared_of_the_analysis_of_variance() -> None:
    random = np.random.default_rng(11)
    a, b, c = (random.normal(0, scale, n) for scale, n in ((2, 4), (1, 3), (0.5, 2)))
    values = (
        a[:, None, None, None]
        + b[:, None, None]
        + np.multiply.outer(a, b)[:, :, None, None]
        + c[:, None]
        + random.normal(0, 0.3, (4, 3, 2, 5))
    )
    found = shares(frame(values, "lr", "model", "init"), "lr", "model", "init")
    # Independently: what dummy variables of an effect explain on top of those within it.
    runs = frame(values, "lr", "model", "init").astype({"lr": str, "model": str, "init": str})
    total = float(((values - values.mean()) ** 2).sum())
    noise = float(values.var(axis=-1, ddof=1).mean())

    def explained(*effects: tuple[str, ...]) -> float:
        columns = [
            pd.get_dummies(runs[list(effect)].agg("/".join, axis=1), dtype=float)
            for effect in effects
        ]
        X, y = pd.concat(columns, axis=1).to_numpy(), runs["value"].to_numpy()
        return total * float(LinearRegression().fit(X, y).score(X, y))

    def omega(squares: float, freedom: int) -> float:
        return (squares - freedom * noise) / (total + noise)

    assert found["share"]["lr"] == pytest.approx(omega(explained(("lr",)), 3))
    pair = explained(("lr",), ("model",), ("lr", "model")) - explained(("lr",), ("model",))
    assert found["share"]["lr × model"] == pytest.approx(omega(pair, 6))
    assert found["share"][NOISE] == pytest.approx(values.size * noise / (total + noise))
    assert found["share"].sum() == pytest.approx(1)
    assert set(found.index) == {
        *("lr", "model", "init", "lr × model", "lr × init", "model × init"),
        *(HIGHER, NOISE),
    }
    assert (found["low"] <= found["share"].clip(0)).all()
    assert (found["share"] <= found["high"]).all()


def test_an_interval_is_that_of_the_noncentral_f_distribution() -> None:
    random = np.random.default_rng(3)
    values = random.normal(size=(4, 3)) + np.array([0.0, 2.0, 4.0, 6.0])[:, None]
    found = shares(frame(values, "lr"), "lr").loc["lr"]
    f = stats.f_oneway(*values).statistic
    for end, p in (("low", 0.975), ("high", 0.025)):
        share = found[end]
        # With one setting, the share is λ / (λ + runs).
        assert stats.ncf.cdf(f, 3, 8, 12 * share / (1 - share)) == pytest.approx(p, abs=2e-3)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_settings_that_do_nothing_explain_nothing_on_average(seeds: int) -> None:
    """By η², they explain 48, 32 and 19 %."""
    random = np.random.default_rng(seeds)
    found = [
        shares(frame(random.normal(size=(4, 4, seeds)), "a", "b"), "a", "b") for _ in range(200)
    ]
    explained = np.array([1 - one["share"][NOISE] for one in found])
    assert abs(explained.mean()) < 0.06
    false = np.mean([(one.loc[["a", "b"], "low"] > 0).any() for one in found])
    assert false < 0.10  # 0.025 for each of the two


def test_an_interval_covers_the_share_that_is_true() -> None:
    random = np.random.default_rng(5)
    a, b = np.array([-1.5, -0.5, 0.5, 1.5]), np.array([-1.0, 0.0, 1.0])
    parts = [float(np.square(one).mean()) for one in (a, b)]
    true = parts[0] / (sum(parts) + 1)
    covered = 0
    for _ in range(200):
        values = a[:, None, None] + b[:, None] + random.normal(size=(4, 3, 3))
        found = shares(frame(values, "a", "b"), "a", "b").loc["a"]
        covered += found["low"] <= true <= found["high"]
    assert covered / 200 > 0.92


def test_one_seed_per_configuration_says_nothing_of_what_matters() -> None:
    values = np.random.default_rng(0).normal(size=(4, 4, 1))
    assert importance(frame(values, "a", "b"), ["a", "b"]).empty
    assert importance(frame(values[:, 0], "a"), ["a"]).empty


def test_seeds_that_are_missing_shift_no_share() -> None:
    random = np.random.default_rng(7)
    found = []
    for _ in range(200):
        runs = frame(random.normal(size=(3, 3, 4)), "a", "b")
        is_first = ~runs["group"].duplicated()
        found.append(shares(runs[is_first | (random.random(len(runs)) < 0.6)], "a", "b"))
    assert abs(np.mean([1 - one["share"][NOISE] for one in found])) < 0.08
    # Equal weights for all configurations, however many seeds each has.
    values = np.array([[1.0, 3.0, 1.0, 3.0, 1.0, 3.0], [5.0, 7.0] + [np.nan] * 4])
    few = shares(frame(values, "a").dropna(), "a")["share"]
    noise = 8 / 6
    effect = 4 - noise / (2 / (1 / 6 + 1 / 2)) / 2
    assert few["a"] == pytest.approx(effect / (effect + noise))


def test_seeds_that_change_nothing_leave_no_doubt() -> None:
    values = np.repeat([[0.5], [0.9]], 3, axis=1)
    found = shares(frame(values, "a"), "a")
    assert found.loc["a", ["share", "low", "high"]].tolist() == [1, 1, 1]
    assert found.loc[NOISE, ["share", "low", "high"]].tolist() == [0, 0, 0]


@pytest.mark.slow
def test_a_forest_finds_nothing_where_there_is_nothing() -> None:
    random = np.random.default_rng(8)
    explained, false = [], 0
    for _ in range(6):
        runs = pd.DataFrame(random.uniform(size=(24, 2)), columns=["lr", "decay"])
        runs = runs.loc[runs.index.repeat(3)].assign(group=np.repeat(range(24), 3))
        # What a configuration does is the same for its seeds, but follows no setting.
        runs["value"] = np.repeat(random.normal(size=24), 3) + 0.1 * random.normal(size=72)
        found = shares(runs.reset_index(drop=True), "lr", "decay")
        explained.append(1 - found["share"][LEFT])
        false += (found.loc[["lr", "decay"], "low"] > 0).any()
    # A forest that has seen a configuration knows its value: with its runs in other folds, the
    # settings would explain nearly all.
    assert np.mean(explained) < 0.05
    assert false <= 1


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
    found = shares(runs, "lr", "useless")
    assert found["share"]["lr"] > 0.8
    assert found["share"]["useless"] < 0.05
    assert found["share"].sum() == pytest.approx(1)
    assert LEFT in found.index
    assert 0.5 < found["low"]["lr"] < found["share"]["lr"] < found["high"]["lr"] <= 1
    assert importance(runs.head(5), ["lr", "useless"]).empty
    assert importance(runs, []).empty


def test_runs_may_lack_a_setting_that_others_have() -> None:
    every = [math.nan, 3, 7, math.nan] * 6
    metric = [math.nan, "loss", math.nan, "accuracy"] * 6
    values = [0.5 + 0.01 * n for n in range(24)]
    runs = pd.DataFrame(
        {"group": range(24), "schedule.every": every, "stopping.metric": metric, "value": values}
    )
    found = shares(runs, "schedule.every", "stopping.metric")
    assert found["share"].sum() == pytest.approx(1)


def test_the_front_holds_what_nothing_beats_in_both() -> None:
    cost, value = [1, 2, 3, 3, math.nan], [0.7, 0.9, 0.8, 0.95, 0.99]
    assert pareto(cost, value, larger_is_better=True) == [True, True, False, True, False]
    assert pareto(cost, value, larger_is_better=False) == [True, False, False, False, False]
    assert LEVEL == SIGNIFICANT

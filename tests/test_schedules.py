"""Learning rates by time, against values worked out by hand."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.support.errors import InvalidValue
from src.training.metric_watch import MetricWatch
from src.training.schedules import Constant, Cosine, InverseScaling, Plateau, Schedule, Step
from tests import oracle


def by_update(schedule: Schedule, *, epochs: int, updates: int) -> list[float]:
    return [
        float(f) for epoch in range(1, epochs + 1) for f in schedule.factors(epoch, updates, epochs)
    ]


def test_constant_is_one() -> None:
    assert by_update(Constant(), epochs=2, updates=3) == [1] * 6


def test_step_falls_between_epochs() -> None:
    assert by_update(Step(every=2, factor=0.5), epochs=5, updates=2) == [
        1,
        1,
        1,
        1,
        0.5,
        0.5,
        0.5,
        0.5,
        0.25,
        0.25,
    ]


@given(
    t=st.floats(0, 20),
    length=st.floats(0.5, 20),
    every=st.integers(1, 5),
    shape=st.floats(0.01, 0.99),
)
def test_every_factor_is_the_oracles(t: float, length: float, every: int, shape: float) -> None:
    t = min(t, length)
    expected = {
        Step(every=every, factor=shape): oracle.step_factor(t, every=every, factor=shape),
        InverseScaling(power=shape, rate=3.0): oracle.inverse_factor(t, power=shape, rate=3.0),
        Cosine(floor=shape): oracle.cosine_factor(t, length=length, floor=shape),
    }
    for schedule, factor in expected.items():
        found = schedule.decay(np.array([t]), length, ())
        np.testing.assert_allclose(found, [factor], rtol=1e-12)


def test_inverse_scaling_falls_from_update_to_update() -> None:
    found = by_update(InverseScaling(power=0.5, rate=2.0), epochs=2, updates=2)
    np.testing.assert_allclose(
        found, [1, (1 + 2 * 0.5) ** -0.5, (1 + 2 * 1) ** -0.5, (1 + 2 * 1.5) ** -0.5], rtol=1e-14
    )


def test_cosine_begins_at_one_and_is_half_way_in_the_middle() -> None:
    found = by_update(Cosine(floor=0.2), epochs=4, updates=2)
    expected = [0.2 + 0.8 * (1 + math.cos(math.pi * k / 8)) / 2 for k in range(8)]
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    assert (found[0], round(found[4], 12)) == (1, 0.6)


@pytest.mark.parametrize("warmup", [1, 1.5, 2, 0.5])
def test_warm_up_rises_in_equal_steps_and_then_the_schedule_begins(warmup: float) -> None:
    found = by_update(Cosine(warmup=warmup), epochs=4, updates=4)
    rising = round(warmup * 4)
    np.testing.assert_allclose(
        found[:rising], [(k + 1) / rising for k in range(rising)], rtol=1e-12
    )
    rest = 16 - rising
    np.testing.assert_allclose(
        found[rising:], [(1 + math.cos(math.pi * k / rest)) / 2 for k in range(rest)], rtol=1e-12
    )


def test_a_warm_up_longer_than_training_only_rises() -> None:
    found = by_update(Cosine(warmup=10), epochs=2, updates=2)
    np.testing.assert_allclose(found, [0.05, 0.1, 0.15, 0.2], rtol=1e-12)


def test_plateau_falls_after_more_than_patience_epochs_without_improvement() -> None:
    schedule = Plateau(metric="val/loss", factor=0.5, patience=1, min_delta=0.1)
    losses = [1.0, 0.95, 0.8, 0.75, 0.74, 0.73, 0.72, 0.1, 0.2]
    # 0.95 does not improve on 1.0, 0.8 does. 0.75 and 0.74 do not: a fall. 0.73 and 0.72: another.
    factors = [schedule.factors(epoch, 1, 20, losses[: epoch - 1])[0] for epoch in range(1, 11)]
    assert factors == [1, 1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25]


def test_a_plateau_waits_for_the_end_of_the_warm_up() -> None:
    schedule = Plateau(metric="val/loss", factor=0.5, patience=0, warmup=2.5)
    losses = [1.0, 1.0, 1.0, 1.0, 1.0]
    assert [schedule.factors(epoch, 1, 20, losses[: epoch - 1])[0] for epoch in (4, 5, 6)] == [
        1,
        1,
        0.5,
    ]


def test_a_plateau_needs_no_least_improvement_by_default() -> None:
    assert Plateau(metric="val/loss", factor=0.5, patience=0).min_delta == 0


def test_a_warm_up_of_no_whole_number_of_updates_ends_between_two() -> None:
    found = by_update(Cosine(warmup=0.8), epochs=2, updates=2)
    # The updates are made at 0, ½, 1, 1½; the cosine begins at 0.8 and lasts for 1.2 epochs.
    cosine = [(1 + math.cos(math.pi * t / 1.2)) / 2 for t in (0.2, 0.7)]
    np.testing.assert_allclose(found, [0.5 / 0.8, 1, *cosine], rtol=1e-12)


def test_a_warm_up_as_long_as_training_reaches_the_whole_rate() -> None:
    assert by_update(Cosine(floor=0.3, warmup=2), epochs=2, updates=2) == [0.25, 0.5, 0.75, 1]
    assert by_update(Step(every=1, factor=0.5, warmup=2), epochs=3, updates=1) == [0.5, 1, 1]


@pytest.mark.parametrize(
    ("metric", "improved"),
    [("val/loss", [True, False, True]), ("val/accuracy", [True, True, False])],
)
def test_a_loss_improves_downwards_and_an_accuracy_upwards(
    metric: str, improved: list[bool]
) -> None:
    assert list(MetricWatch(metric).improvements([0.5, 0.6, 0.4])) == improved


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Constant(warmup=-1), "warmup"),
        (lambda: Constant(warmup=math.inf), "warmup"),
        (lambda: Step(every=1, factor=0.5, warmup=-1), "warmup"),
        (lambda: Step(every=0, factor=0.5), "every"),
        (lambda: Step(every=1, factor=1.0), "factor"),
        (lambda: Step(every=1, factor=0.0), "factor"),
        (lambda: InverseScaling(power=1, rate=1, warmup=-1), "warmup"),
        (lambda: InverseScaling(power=0, rate=1), "power"),
        (lambda: InverseScaling(power=math.inf, rate=1), "power"),
        (lambda: InverseScaling(power=1, rate=0), "rate"),
        (lambda: InverseScaling(power=1, rate=math.inf), "rate"),
        (lambda: Cosine(warmup=-1), "warmup"),
        (lambda: Cosine(floor=1.0), "floor"),
        (lambda: Cosine(floor=-0.1), "floor"),
        (lambda: Plateau(metric="val/loss", factor=0.5, patience=1, warmup=-1), "warmup"),
        (lambda: Plateau(metric="val/loss", factor=0, patience=1), "factor"),
        (lambda: Plateau(metric="val/loss", factor=1, patience=1), "factor"),
        (lambda: Plateau(metric="val/los", factor=0.5, patience=1), "metric"),
        (lambda: Plateau(metric="val/loss", factor=2, patience=1), "factor"),
        (lambda: Plateau(metric="val/loss", factor=0.5, patience=-1), "patience"),
        (lambda: Plateau(metric="val/loss", factor=0.5, patience=1, min_delta=-1), "min_delta"),
    ],
)
def test_an_impossible_schedule_is_refused_by_the_name_of_its_field(
    make: Callable[[], Schedule], field: str
) -> None:
    with pytest.raises(InvalidValue) as caught:
        make()
    assert caught.value.field == field

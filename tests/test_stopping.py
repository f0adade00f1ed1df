"""When training ends and which epoch is kept, on curves made by hand and in real training."""

import pytest

from src.support.errors import InvalidValue
from src.training.batching import Mini
from src.training.stopping import EarlyStopping, Never, Stopping, Target
from src.training.training_run import watched
from tests.test_training import run


def ends_after(stopping: Stopping, values: list[float]) -> int | None:
    return next((n for n in range(1, len(values) + 1) if stopping.reason(values[:n])), None)


def test_early_stopping_waits_for_patience_epochs_without_improvement() -> None:
    losses = [1.0, 0.8, 0.9, 0.85, 0.7, 0.71, 0.72, 0.73, 0.1]
    assert ends_after(EarlyStopping("val/loss", patience=3), losses) == 8
    assert ends_after(EarlyStopping("val/loss", patience=2), losses) == 4
    assert ends_after(EarlyStopping("val/loss", patience=9), losses) is None
    assert EarlyStopping("val/loss", patience=3).reason(losses[:8]) == (
        "val/loss has not improved on epoch 5's 0.7000 in 3 epochs"
    )


def test_an_improvement_must_be_greater_than_min_delta() -> None:
    accuracies = [0.5, 0.52, 0.54, 0.56, 0.58]
    assert ends_after(EarlyStopping("val/accuracy", patience=2), accuracies) is None
    assert ends_after(EarlyStopping("val/accuracy", patience=2, min_delta=0.05), accuracies) == 3
    assert EarlyStopping("val/accuracy", patience=2, min_delta=0.05).reason(accuracies[:3]) == (
        "val/accuracy has not improved on epoch 1's 0.5000 by more than 0.05 in 2 epochs"
    )


def test_the_best_epoch_is_kept_or_the_last() -> None:
    losses = [1.0, 0.8, 0.9, 0.8]
    assert EarlyStopping("val/loss", patience=5).kept(losses) == 2  # the first of equal ones
    assert EarlyStopping("val/loss", patience=5, restore_best=False).kept(losses) == 4
    # min_delta decides when training ends, not which epoch is the best.
    rising, falling = [0.5, 0.52, 0.56, 0.57, 0.58, 0.57], [1.0, 0.95, 0.94, 0.96]
    assert EarlyStopping("val/accuracy", patience=9, min_delta=0.05).kept(rising) == 5
    assert EarlyStopping("val/loss", patience=9, min_delta=0.5).kept(falling) == 3
    assert Never().kept(losses) == 4


def test_a_target_ends_training_when_it_is_reached_and_fails_when_it_never_is() -> None:
    target = Target("train/loss", 0.1)
    assert ends_after(target, [0.5, 0.2, 0.1, 0.05]) == 3
    assert target.shortfall([0.5, 0.1]) is None
    assert target.shortfall([0.5, 0.2]) == "train/loss is 0.2 after 2 epochs; the target is 0.1"
    assert ends_after(Target("val/accuracy", 0.9), [0.5, 0.95]) == 2


def test_a_target_may_be_perfection_and_is_reached_by_equality() -> None:
    assert ends_after(Target("val/accuracy", 1.0), [0.5, 0.99, 1.0]) == 3
    assert Target("train/loss", 1.0).reason([1.0]) == "train/loss has reached 1"


@pytest.mark.parametrize(
    ("metric", "rule"), [("train/loss", "above 0"), ("val/accuracy", "above 0, and 1 at most")]
)
def test_a_target_out_of_range_is_told_the_range_of_its_metric(metric: str, rule: str) -> None:
    with pytest.raises(InvalidValue, match=rf"must be {rule}$"):
        Target(metric, -1.0)


def test_training_ends_where_the_rule_says_and_is_the_longer_training_up_to_there() -> None:
    stopping = EarlyStopping("val/loss", patience=2)
    stopped = run(Mini(8), epochs=200, lr=2.0, stopping=stopping)
    whole = run(Mini(8), epochs=len(stopped) + 1, lr=2.0)
    assert 2 < len(stopped) < 200
    values = watched(stopping.watch, [epoch.scores for epoch in whole])
    assert [bool(stopping.reason(values[:n])) for n in range(1, len(stopped) + 1)] == [False] * (
        len(stopped) - 1
    ) + [True]
    assert [epoch.scores for epoch in stopped] == [epoch.scores for epoch in whole[:-1]]


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: EarlyStopping("val/loss", patience=0), "patience"),
        (lambda: EarlyStopping("val/los", patience=1), "metric"),
        (lambda: EarlyStopping("val/loss", patience=1, min_delta=-1), "min_delta"),
        (lambda: EarlyStopping("val/loss", patience=1, min_delta=float("inf")), "min_delta"),
        (lambda: Target("nothing", 1.0), "metric"),
        (lambda: Target("train/loss", float("nan")), "value"),
        (lambda: Target("train/loss", 0.0), "value"),
        (lambda: Target("train/loss", float("inf")), "value"),
        (lambda: Target("val/accuracy", 0.0), "value"),
        (lambda: Target("val/accuracy", 1.5), "value"),
        (lambda: Target("val/accuracy", 98.0), "value"),
    ],
)
def test_an_impossible_rule_is_refused_by_the_name_of_its_field(make: object, field: str) -> None:
    assert callable(make)
    with pytest.raises(InvalidValue) as caught:
        make()
    assert caught.value.field == field

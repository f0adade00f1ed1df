"""How many networks train in one stack, and into how many stacks a sweep is divided."""

import functools
from dataclasses import replace
from typing import Any

import pytest

from src.config.composition import compose, composer
from src.config.preflight import check
from src.sweep.grouping import Member, group, likeness, sizes
from src.training.batching import Batching, Full, Mini, Sample
from src.training.optimizers import SGD, Adam, Optimizer

KIB = 1024


@functools.cache
def example() -> Member:
    with composer():
        return Member.of(check(compose(["model=sigmoid3"]))[1])


def member(*hidden: int, samples: int | None = None, **changes: Any) -> Member:
    """Return a job with these hidden units; without any, with those of the model sigmoid3."""
    known = example().experiment
    model = replace(known.model, hidden=hidden or known.model.hidden)
    changed = replace(known, model=model, **changes)
    return replace(example(), experiment=changed, samples=samples or example().samples)


def sgd(momentum: float = 0.0) -> Optimizer:
    return SGD(momentum=momentum)


def largest(given: Member, *, one_order: bool = True) -> int:
    return max(sizes(given, one_order), default=1)


# --- what fits into the cache ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("optimizer", "buffers"), [(sgd(), 0), (sgd(0.9), 1), (Adam(), 2)], ids=["sgd", "mom", "adam"]
)
def test_a_stack_has_room_for_the_weights_and_the_optimizer_s_buffers(
    optimizer: Optimizer, buffers: int
) -> None:
    """All arrays of one network are counted: weights, biases, and the buffers of both."""
    units = 16
    weights = 4 * ((784 + 1) * units + (units + 1) * 10)
    expected = 1024 * KIB // (weights * (1 + buffers))  # of 1 MiB for orders of large batches
    given = member(units, batching=Mini(128), optimizer=optimizer)
    assert largest(given, one_order=False) == expected


@pytest.mark.parametrize(("optimizer", "trains"), [(sgd(), True), (sgd(0.9), False)])
def test_a_network_whose_buffers_are_too_large_trains_alone(
    optimizer: Optimizer, trains: bool
) -> None:
    relu2 = member(128, optimizer=optimizer)  # 398 KiB of weights, and as much of buffers
    assert bool(sizes(relu2, one_order=True)) == trains


@pytest.mark.parametrize(
    ("hidden", "batching", "one_order", "dtype", "expected"),
    [
        # About 200 KiB of weights: 65 units are a little more, 64 a little less.
        ([64], Mini(32), True, "float32", range(2, 31)),
        ([65], Mini(32), True, "float32", range(4, 31)),
        ([64], Mini(64), False, "float32", range(4, 11)),
        ([65], Mini(64), False, "float32", range(0)),
        ([64], Mini(65), False, "float32", range(4, 6)),
        ([65], Full(), True, "float32", range(4, 31)),
        # About 400 KiB: 128 units are a little less, 129 a little more.
        ([128], Mini(32), True, "float32", range(4, 16)),
        ([129], Mini(32), True, "float32", range(0)),
        # In double precision, half as many units.
        ([64], Mini(32), True, "float64", range(4, 16)),
        ([65], Mini(32), True, "float64", range(0)),
        # Of single samples, the weights after the first layer decide: 16 KiB at most.
        ([30], Sample(), True, "float32", range(8, 33)),
        ([128], Sample(), False, "float32", range(8, 33)),
        ([16, 200], Sample(), True, "float32", range(0)),
        ([16, 150], Sample(), True, "float32", range(8, 33)),
    ],
)
def test_sizes_that_were_measured_to_be_faster(
    hidden: list[int], batching: Batching, one_order: bool, dtype: str, expected: range
) -> None:
    found = sizes(member(*hidden, batching=batching, dtype=dtype), one_order)
    assert (found or range(0)) == expected


def test_weight_decay_may_differ_in_a_stack_and_momentum_may_not() -> None:
    base = likeness(member(optimizer=SGD()))
    assert likeness(member(optimizer=SGD(weight_decay=0.1))) == base
    assert likeness(member(optimizer=SGD(momentum=0.1))) != base


def test_the_plain_engine_trains_alone() -> None:
    assert likeness(member(engine="plain")) is None
    assert group([member(lr=lr, engine="plain") for lr in (0.1, 0.2)]) == [[0], [1]]


# --- how a sweep is divided -----------------------------------------------------------------------


def grid(count: int, *hidden: int, **changes: Any) -> list[Member]:
    return [member(*hidden, lr=0.1 * (n + 1), **changes) for n in range(count)]


def lengths(groups: list[list[int]]) -> list[int]:
    return [len(numbers) for numbers in groups]


def test_the_work_of_a_job_is_its_parameters_times_its_samples_times_its_epochs() -> None:
    weights = (784 + 1) * 5 + (5 + 1) * 10
    assert member(5, samples=200, epochs=3).work == weights * 200 * 3


def test_the_group_with_the_most_work_comes_first() -> None:
    jobs = [member(epochs=2), member(epochs=9), member(epochs=5)]
    assert group(jobs) == [[1], [2], [0]]
    small, large = grid(4, epochs=2), grid(4, epochs=9)
    assert group([*small, *large]) == [[4, 5], [6, 7], [0, 1, 2, 3]]


def test_jobs_whose_work_is_most_of_the_sweep_are_divided() -> None:
    """A sweep is worth two stacks: jobs that have more than half of its work are divided."""
    small, large = grid(4, epochs=2), grid(6, epochs=50)
    assert lengths(group([*small, *large])) == [3, 3, 4]
    assert lengths(group([*grid(4, epochs=5), *grid(4, epochs=6)])) == [4, 2, 2]


def test_most_limits_new_stacks() -> None:
    assert lengths(group(grid(12), 3)) == [3, 3, 3, 3]
    assert lengths(group(grid(12), 6)) == [6, 6]
    assert lengths(group(grid(3), 1)) == [1, 1, 1]


def test_a_cluster_gets_three_stacks_per_worker_if_each_is_worth_sending() -> None:
    much = grid(48, samples=1000, epochs=10_000)
    assert len(group(much, workers=4)) == 12
    assert len(group(much, workers=3)) == 9
    assert len(group(much)) == 2
    assert len(group(grid(48, samples=1000, epochs=1), workers=4)) == 2  # a second of work


def test_a_stack_sent_to_a_cluster_is_worth_30_billion_products() -> None:
    jobs = grid(32, samples=1000, epochs=1000)
    total = sum(job.work for job in jobs)
    assert len(group(jobs, workers=100)) == total // 30_000_000_000 == 13


def test_networks_that_are_faster_in_a_stack_stay_in_one_that_is_large_enough() -> None:
    """Of single samples, eight networks are faster than one after another, and seven are not."""
    jobs = grid(17, batching=Sample(), samples=1000, epochs=100_000)
    assert lengths(group(jobs, workers=8)) == [9, 8]
    assert lengths(group(jobs[:7], workers=8)) == [1] * 7
    assert lengths(group(jobs[:8], workers=8)) == [8]


def test_orders_share_a_stack_only_where_that_is_faster() -> None:
    def jobs(units: int) -> list[Member]:
        rates = (0.1, 0.2, 0.3, 0.4)
        return [member(units, seed=seed, lr=lr) for lr in rates for seed in range(3)]

    assert sorted(group(jobs(65))) == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    assert sorted(group(jobs(64))) == [[0, 3, 6, 9, 1, 4], [7, 10, 2, 5, 8, 11]]  # side by side
    assert sorted(group(jobs(64)[:6])) == [[n] for n in range(6)]  # three are too few


def test_other_data_is_another_order_in_the_same_stack() -> None:
    one = member()
    same = replace(one, data_digest="another")
    assert same.order != one.order
    assert likeness(same) == likeness(one)


def test_seeds_share_an_order_where_nothing_is_shuffled() -> None:
    still = Mini(32, shuffle=False)
    assert member(seed=1, batching=still).order == member(seed=2, batching=still).order
    assert member(seed=1).order != member(seed=2).order

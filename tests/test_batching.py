"""Batches are a division of the samples: each once, in batches of the size asked for."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.support.errors import InvalidValue
from src.support.randomness import stream
from src.training.batching import Batching, Full, Mini, Rows, Sample


def indices(rows: Rows, samples: int) -> list[int]:
    return list(np.arange(samples)[rows])


def epoch(batching: Batching, samples: int, seed: int = 0, number: int = 1) -> list[list[int]]:
    return [
        indices(rows, samples) for rows in batching.batches(samples, stream(seed, "order", number))
    ]


@given(
    samples=st.integers(1, 60),
    size=st.integers(1, 60),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
)
def test_mini_batches_hold_each_sample_once(
    samples: int, size: int, shuffle: bool, drop_last: bool
) -> None:
    size = min(size, samples)
    batching = Mini(size, shuffle, drop_last)
    batches = epoch(batching, samples)
    assert len(batches) == batching.updates(samples)
    assert all(len(batch) == size for batch in batches[:-1])
    seen = sorted(i for batch in batches for i in batch)
    if drop_last:
        assert len(batches[-1]) == size
        assert len(seen) == len(set(seen)) == samples - samples % size
    else:
        assert seen == list(range(samples))


@given(samples=st.integers(1, 60), shuffle=st.booleans())
def test_single_samples_hold_each_sample_once(samples: int, shuffle: bool) -> None:
    batches = epoch(Sample(shuffle), samples)
    assert len(batches) == Sample(shuffle).updates(samples) == samples
    assert sorted(i for (i,) in batches) == list(range(samples))


def test_full_batch_is_everything_in_order() -> None:
    assert epoch(Full(), 7) == [list(range(7))]
    assert Full().updates(7) == 1


def test_without_shuffling_samples_come_in_their_order() -> None:
    assert epoch(Mini(3, shuffle=False), 7) == [[0, 1, 2], [3, 4, 5], [6]]
    assert epoch(Mini(3, shuffle=False, drop_last=True), 7) == [[0, 1, 2], [3, 4, 5]]


def test_shuffling_mixes_samples_not_batches() -> None:
    first, second = epoch(Mini(10), 1000, number=1), epoch(Mini(10), 1000, number=2)
    assert first != second
    # If whole batches were shuffled, neighbours would stay together. By chance about two pairs do.
    order = [i for batch in first for i in batch]
    assert sum(b - a == 1 for a, b in itertools.pairwise(order)) < 20


def test_every_place_is_equally_likely() -> None:
    firsts = [epoch(Sample(), 10, seed)[0][0] for seed in range(2000)]
    counts = np.bincount(firsts, minlength=10)
    assert ((counts - 200) ** 2 / 200).sum() < 33.7  # χ² with 9 degrees of freedom, 1 in 10,000


def test_order_depends_on_the_seed_and_the_epoch_alone() -> None:
    assert epoch(Mini(4), 20, seed=3, number=5) == epoch(Mini(4), 20, seed=3, number=5)
    assert epoch(Mini(4), 20, seed=3, number=5) != epoch(Mini(4), 20, seed=4, number=5)
    # A smaller batch cuts the same order into smaller pieces.
    assert list(itertools.chain(*epoch(Mini(2), 20))) == list(itertools.chain(*epoch(Mini(5), 20)))


def test_seeds_with_equal_orders_are_told_apart_from_others() -> None:
    assert Mini(4).order_by(3) == Sample().order_by(3) == 3
    assert Mini(4, shuffle=False).order_by(3) is None
    assert Full().order_by(3) is Sample(shuffle=False).order_by(3) is None


def test_dropping_the_last_batch_drops_other_samples_in_each_epoch() -> None:
    seen = [set(itertools.chain(*epoch(Mini(4, drop_last=True), 23, number=k))) for k in range(9)]
    assert set.union(*seen) == set(range(23))
    assert len({frozenset(part) for part in seen}) > 1


def test_streams_are_independent_of_each_other() -> None:
    assert stream(0, "weights").random() != stream(0, "order").random()
    assert stream(0, "order", 1).random() != stream(0, "order", 2).random()


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(InvalidValue, match="size=0: must be 1 or more"):
        Mini(0)
    with pytest.raises(InvalidValue, match="size=8: must be at most the 7 training samples"):
        Mini(8).check(7)
    Mini(7).check(7)

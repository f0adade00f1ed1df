"""What decides the division into training, validation and test set; test_data.py has its sizes."""

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from src.data.splitting import Splitting
from src.support.errors import InvalidValue
from src.support.randomness import stream

LABELS = np.arange(60) % 3


def division(split: Splitting) -> list[list[int]]:
    return [part.tolist() for part in split.divide(LABELS, 0)]


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_a_shuffled_division_cuts_the_order_that_the_seed_draws(seed: int) -> None:
    order = stream(seed, "split").permutation(60).tolist()
    split = Splitting(train=30, val=10, test=5, shuffle=True, seed=seed)
    assert division(split) == [order[:30], order[30:40], order[40:45]]


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_a_stratified_division_is_drawn_with_its_seed(seed: int) -> None:
    order = stream(seed, "split").permutation(60)
    train, rest = train_test_split(order, train_size=30, stratify=LABELS[order], random_state=seed)
    val, rest = train_test_split(rest, train_size=12, stratify=LABELS[rest], random_state=seed)
    split = Splitting(train=30, val=12, test=18, shuffle=True, stratify=True, seed=seed)
    assert division(split) == [train.tolist(), val.tolist(), rest.tolist()]


def test_the_seed_is_0_by_default_and_nothing_is_shuffled() -> None:
    assert Splitting(train=30, val=10, test=5) == Splitting(30, 10, 5, False, False, 0)


def test_a_share_may_lie_at_the_end_of_its_range() -> None:
    assert division(Splitting(train=1.0, val=0.0, test=0)) == [list(range(60)), [], []]
    assert division(Splitting(train=1, val=59, test=0)) == [[0], list(range(1, 60)), []]
    own = Splitting(train=None, val=0, test="own").divide(LABELS, 1)
    assert [len(part) for part in own] == [59, 0, 1]


def test_whole_shares_above_1_are_counts_and_fractions_above_1_are_refused() -> None:
    with pytest.raises(
        InvalidValue, match=r"^train=1\.01: must be a count, a fraction from 0 to 1"
    ):
        Splitting(train=1.01, val=0, test=0)
    with pytest.raises(InvalidValue, match=r"^train=-0\.5"):
        Splitting(train=-0.5, val=0, test=0)

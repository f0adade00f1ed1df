"""What decides the division into training, validation and test set; test_data.py has its sizes."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from src.data.digits import Digits
from src.data.splitting import Share, Splitting
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


def by_sklearn(
    split: Splitting, labels: npt.NDArray[np.int64]
) -> list[npt.NDArray[np.intp]] | None:
    """Return the three sets as scikit-learn divides them, or None if it refuses to."""
    sizes = [len(part) for part in replace(split, stratify=False).divide(labels, 0)]
    rest = stream(split.seed, "split").permutation(len(labels))
    sets = []
    for size in sizes:
        if size in (0, len(rest)):  # train_test_split leaves no set empty
            taken, rest = np.split(rest, [size])
        else:
            try:
                taken, rest = train_test_split(
                    rest, train_size=size, stratify=labels[rest], random_state=split.seed
                )
            except ValueError:
                return None
        sets.append(taken)
    return sets


def agrees(split: Splitting, labels: npt.NDArray[np.int64]) -> bool:
    """Assert that ours are scikit-learn's sets, byte for byte; return whether there are any."""
    theirs = by_sklearn(split, labels)
    if theirs is None:
        with pytest.raises(InvalidValue, match=r"^stratify=True: .* with every class in both"):
            split.divide(labels, 0)
        return False
    for ours, expected in zip(split.divide(labels, 0), theirs, strict=True):
        assert ours.dtype == expected.dtype
        assert ours.tobytes() == expected.tobytes()
    return True


SIZES = st.one_of(st.integers(0, 40), st.floats(0, 0.5))


@settings(max_examples=400)
@example(members=[1, 30], shares=(None, 5, 5), seed=0)  # a class of one
@example(members=[2, 30], shares=(None, 10, 0), seed=0)  # a class may have none in one of the sets
@example(members=[9] * 11, shares=(None, 15, 15), seed=0)  # every class lost the same
@example(members=[2, 2, 94], shares=(49, None, 0), seed=0)  # 1/49 · 49 is rounded to less than 1
@given(
    members=st.lists(
        st.one_of(st.integers(1, 3), st.integers(2, 60), st.just(12)), min_size=1, max_size=12
    ),
    shares=st.one_of(
        st.tuples(st.none(), SIZES, SIZES),
        st.tuples(SIZES, st.none(), SIZES),
        st.tuples(SIZES, SIZES, SIZES),
    ),
    seed=st.one_of(st.integers(0, 9), st.integers(0, 2**32 - 1)),
)
def test_stratified_sets_are_those_of_scikit_learn(
    members: list[int], shares: tuple[Share, Share, Share], seed: int
) -> None:
    labels = np.repeat(np.arange(len(members)) * 3, members)  # some labels do not occur
    labels = np.random.default_rng(seed).permutation(labels)
    try:
        split = Splitting(*shares, shuffle=True, stratify=True, seed=seed)
        replace(split, stratify=False).divide(labels, 0)
    except InvalidValue:  # the sizes alone are wrong
        assume(False)
    agrees(split, labels)


@pytest.mark.parametrize("seed", range(20))
def test_the_digits_are_divided_as_scikit_learn_divides_them(seed: int) -> None:
    labels = Digits(split=Splitting(None, 0, 0)).samples().labels
    for val, test in ((360, 360), (0.2, 0.2), (0.1, 0), (1000, 0.1)):
        split = Splitting(None, val, test, shuffle=True, stratify=True, seed=seed)
        assert agrees(split, labels)


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

"""Divide samples into a training, a validation and a test set."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from src.support.errors import InvalidValue, require
from src.support.randomness import stream

Index = npt.NDArray[np.intp]

# A number of samples, a fraction of them, or None for all that the other sets leave.
Share = int | float | None


@dataclass(frozen=True)
class Splitting:
    """The sizes of the three sets, and how samples are assigned to them.

    ``test="own"`` uses the source's own test set, and divides only the other samples.
    ``shuffle`` shuffles the samples by ``seed`` first; otherwise the file's order is kept.
    With ``stratify``, each set has the classes in the same proportions.
    """

    train: Share
    val: Share
    test: Share | str
    shuffle: bool = False
    stratify: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        shares = {"train": self.train, "val": self.val, "test": self.test}
        for name, share in shares.items():
            _check_share(name, share)
        rest = [name for name, share in shares.items() if share is None]
        require(
            len(rest) <= 1,
            rest[-1] if rest else "",
            None,
            "only one of train, val and test can be null",
        )
        require(self.train != 0, "train", self.train, "must not be 0: training needs samples")
        require(
            self.shuffle or not self.stratify,
            "stratify",
            self.stratify,
            "needs shuffle=true, because file order cannot be stratified",
        )
        # NumPy's RandomState accepts this range.
        require(0 <= self.seed < 2**32, "seed", self.seed, "must be from 0 to 4294967295")

    def divide(self, labels: npt.NDArray[np.integer], own_test: int) -> tuple[Index, Index, Index]:
        """Return the rows of the training, validation and test set, which share no row.

        The last ``own_test`` rows are the source's own test set. Raises InvalidValue if the sets
        ask for more samples than there are, or if a class is too small to be stratified.
        """
        rows = np.arange(len(labels))
        if self.test == "own":
            require(
                own_test > 0,
                "test",
                "own",
                "this data has no test set of its own: give a count or a fraction",
            )
            train, val, _ = self._divide(rows[:-own_test], labels, 0)
            return train, val, rows[-own_test:]
        assert not isinstance(self.test, str)
        return self._divide(rows, labels, self.test)

    def _divide(
        self, rows: Index, labels: npt.NDArray[np.integer], test: Share
    ) -> tuple[Index, Index, Index]:
        """Return the rows of the three sets, with ``test`` in place of the field."""
        n_train, n_val, n_test = self._sizes(len(rows), test)
        if self.shuffle:
            rows = stream(self.seed, "split").permutation(rows)
        if self.stratify:
            train, rest = self._stratified(rows, labels, n_train)
            val, rest = self._stratified(rest, labels, n_val)
            return train, val, self._stratified(rest, labels, n_test)[0]
        train, val, rest = np.split(rows, [n_train, n_train + n_val])
        return train, val, rest[:n_test]

    def _sizes(self, total: int, test: Share) -> tuple[int, int, int]:
        """Return the sizes of the three sets of ``total`` samples. Raises InvalidValue."""
        counts: dict[str, int | None] = {}
        before = 0.0
        for name, share in (("train", self.train), ("val", self.val), ("test", test)):
            if isinstance(share, float):
                # The set's ends are rounded, not its size: fractions of sum 1 take every sample.
                counts[name] = round((before + share) * total) - round(before * total)
                before += share
            else:
                counts[name] = share
        asked = sum(count or 0 for count in counts.values())
        if asked > total:
            largest = max(counts, key=lambda name: counts[name] or 0)
            raise InvalidValue(
                largest,
                getattr(self, largest),
                f"train, val and test ask for {asked:,} samples in total, there are {total:,}",
            )
        n_train, n_val, n_test = (
            total - asked if count is None else count for count in counts.values()
        )
        require(
            n_train > 0,
            "train",
            self.train,
            f"leaves no training samples of {total:,}: make val or test smaller",
        )
        return n_train, n_val, n_test

    def _stratified(
        self, rows: Index, labels: npt.NDArray[np.integer], count: int
    ) -> tuple[Index, Index]:
        """Return ``count`` of the rows with each class in proportion, and the other rows.

        These are the rows of scikit-learn's ``train_test_split(rows, train_size=count,
        stratify=labels[rows], random_state=seed)``, in the same order. They are drawn here because
        importing scikit-learn takes longer than a small run. Raises InvalidValue if a class has
        only one sample, or if either part is smaller than the number of classes.
        """
        if count == 0:
            return rows[:0], rows
        if count == len(rows):
            return rows, rows[:0]
        members = np.unique(labels[rows], return_counts=True)[1]
        require(
            members.min() > 1 and len(members) <= min(count, len(rows) - count),
            "stratify",
            True,
            f"{len(rows):,} samples cannot be divided into {count:,} and "
            f"{len(rows) - count:,} with every class in both; set stratify=false",
        )
        random = np.random.RandomState(self.seed)
        shares = _in_proportion(members, count, random)
        # The others get all that is left, but scikit-learn computes their shares, too, and draws
        # where a rounding error takes one sample from several classes.
        _in_proportion(members - shares, len(rows) - count, random)
        taken, others = [], []
        in_classes = rows[np.argsort(labels[rows], kind="stable")]
        for group, share in zip(
            np.split(in_classes, members.cumsum()[:-1]), shares.tolist(), strict=True
        ):
            mixed = random.permutation(group)
            taken.append(mixed[:share])
            others.append(mixed[share:])
        return random.permutation(np.concatenate(taken)), random.permutation(np.concatenate(others))


def _in_proportion(members: Index, count: int, random: np.random.RandomState) -> Index:
    """Return how many samples of each class make ``count`` together: (classes,).

    ``members (classes,)`` says how many samples each class has. Its exact part of ``count`` is
    rounded down. What is then missing is made up by one sample each of the classes that lost the
    most, and ``random`` chooses where several lost the same.
    """
    # In this order: rounding errors decide whether two classes lost the same.
    exact = members / members.sum() * count
    shares: Index = np.floor(exact).astype(np.intp)
    lost = exact - shares
    for most in np.unique(lost)[::-1]:
        missing = count - int(shares.sum())
        if missing == 0:
            break
        equal = np.flatnonzero(lost == most)
        shares[random.choice(equal, min(missing, len(equal)), replace=False)] += 1
    return shares


def _check_share(name: str, share: Share | str) -> None:
    """Raise InvalidValue unless a share can be the size of the set ``name``."""
    if share is None:
        return
    if isinstance(share, str):
        rule = "must be a count, a fraction, null for the rest, or own (test only)"
        require(name == "test" and share == "own", name, share, rule)
        return
    most = np.inf if isinstance(share, int) else 1
    rule = "must be a count, a fraction from 0 to 1, or null for the rest"
    require(0 <= share <= most, name, share, rule)

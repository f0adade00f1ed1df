"""How samples are divided into a training, a validation and a test set."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from src.support.errors import InvalidValue, require
from src.support.randomness import stream

Index = npt.NDArray[np.intp]

# A count of samples, a fraction of them, or None for all that the others leave.
Share = int | float | None


@dataclass(frozen=True)
class Splitting:
    """The shares of the three sets, taken in file order or shuffled by a seed of its own.

    ``test="own"`` takes the test set that the source itself sets apart, and divides only the others.
    Shuffled with ``stratify``, each set holds the classes in the proportions of the whole.
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
            if isinstance(share, str):
                require(
                    name == "test" and share == "own",
                    name,
                    share,
                    "must be a count, a fraction, null for the rest, or own (test only)",
                )
            elif share is not None:
                whole = isinstance(share, int)
                require(
                    share >= 0 and (whole or share <= 1),
                    name,
                    share,
                    "must be a count, a fraction from 0 to 1, or null for the rest",
                )
        rest = [name for name, share in shares.items() if share is None]
        require(
            len(rest) <= 1,
            rest[-1] if rest else "",
            None,
            "only one of train, val and test can be null",
        )
        require(self.train != 0, "train", self.train, "training needs samples")
        require(
            self.shuffle or not self.stratify,
            "stratify",
            self.stratify,
            "needs shuffle=true: in file order nothing can be balanced",
        )
        require(
            0 <= self.seed < 2**32, "seed", self.seed, "must be from 0 to 4294967295"
        )  # as scikit-learn's

    def divide(self, labels: npt.NDArray[np.integer], own_test: int) -> tuple[Index, Index, Index]:
        """Return the rows of the three sets, none in two of them.

        ``own_test`` is how many rows at the end are the source's own test set. Raises InvalidValue where the
        shares ask for more than there is.
        """
        rows = np.arange(len(labels))
        if self.test == "own":
            require(
                own_test > 0,
                "test",
                "own",
                "this data has no test set of its own: give a count or a fraction",
            )
            own = rows[-own_test:]
            train, val, _ = self._take(rows[:-own_test], labels, 0)
            return train, val, own
        assert not isinstance(self.test, str)
        return self._take(rows, labels, self.test)

    def _take(
        self, rows: Index, labels: npt.NDArray[np.integer], test: Share
    ) -> tuple[Index, Index, Index]:
        total = len(rows)
        counts: dict[str, int | None] = {}
        before = 0.0  # where a set ends is rounded, not its share: fractions that add up to 1 ask for all and no more
        for name, share in (("train", self.train), ("val", self.val), ("test", test)):
            if isinstance(share, float):
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
                f"train, val and test ask for {asked:,} samples together, there are {total:,}",
            )
        n_train, n_val, n_test = (
            total - asked if count is None else count for count in counts.values()
        )
        require(n_train > 0, "train", self.train, f"leaves no training samples of {total:,}")
        if self.shuffle:
            rows = stream(self.seed, "split").permutation(rows)
        if not self.stratify:
            return (
                rows[:n_train],
                rows[n_train : n_train + n_val],
                rows[n_train + n_val : n_train + n_val + n_test],
            )
        train, rest = self._stratified(rows, labels, n_train)
        val, rest = self._stratified(rest, labels, n_val)
        return train, val, self._stratified(rest, labels, n_test)[0]

    def _stratified(
        self, rows: Index, labels: npt.NDArray[np.integer], count: int
    ) -> tuple[Index, Index]:
        """Divide rows into ``count`` and the others, each class in proportion."""
        if count in (0, len(rows)):
            return (rows, rows[:0]) if count else (rows[:0], rows)
        from sklearn.model_selection import (
            train_test_split,
        )  # half a second to import: only where it is used

        try:
            taken, rest = train_test_split(
                rows, train_size=count, stratify=labels[rows], random_state=self.seed
            )
        except ValueError:
            raise InvalidValue(
                "stratify",
                True,
                f"{len(rows):,} samples can't be divided into {count:,} and {len(rows) - count:,} with every class in both",
            ) from None
        return taken, rest

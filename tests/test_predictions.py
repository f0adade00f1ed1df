"""What a run keeps of a network's answers, and how two networks are compared by them."""

import re
from pathlib import Path

import numpy as np
import pytest

from src.data import Split
from src.runs.predictions import Contingency, Predictions
from src.support.errors import DataError


def split(seed: int = 0) -> Split:
    rng = np.random.default_rng(seed)
    return Split(rng.integers(0, 256, (8, 6), dtype=np.uint8), np.array([0, 1, 2, 0, 1, 2, 0, 1]))


def answers(predicted: list[int], seed: int = 0) -> Predictions:
    probabilities = np.random.default_rng(1).dirichlet([1, 1, 1], 8).astype(np.float32)
    return Predictions.of("test", split(seed), np.array(predicted), probabilities)


FIRST, SECOND = [0, 1, 2, 0, 1, 0, 0, 0], [0, 1, 2, 0, 0, 2, 1, 0]


def test_they_are_read_back_as_they_were_kept_but_for_rounded_probabilities(tmp_path: Path) -> None:
    kept = answers(FIRST)
    kept.save(tmp_path / "p.npz")
    read = Predictions.load(tmp_path / "p.npz")
    assert (read.part, read.samples) == (kept.part, kept.samples)
    np.testing.assert_array_equal(read.labels, kept.labels)
    np.testing.assert_array_equal(read.predicted, kept.predicted)
    np.testing.assert_allclose(read.probabilities, kept.probabilities, atol=5e-4)
    assert read.right.tolist() == [True, True, True, True, True, False, True, False]


def test_ten_thousand_of_ten_classes_take_less_than_a_quarter_of_a_megabyte(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 10_000)
    Predictions("test", "", labels, labels, rng.dirichlet([1] * 10, 10_000)).save(
        tmp_path / "p.npz"
    )
    assert (tmp_path / "p.npz").stat().st_size < 250_000


def test_the_most_probable_class_that_is_kept_is_the_predicted_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    near = 0.5 + rng.normal(0, 1e-5, (500, 4)).astype(np.float32)  # half precision sees them equal
    tiny = rng.random((500, 4)).astype(np.float32) * np.float32(1e-9)  # and these as 0
    # The logits of saturated sigmoids differ where their probabilities do not.
    one = np.array([[1.0, 1.0, 1.0, 0.3]], np.float32)
    probabilities = np.concatenate([near, tiny, one])
    predicted = np.append(probabilities[:-1].argmax(axis=1), 2)
    assert (probabilities.astype(np.float16).argmax(axis=1) != predicted).sum() > 100
    Predictions("test", "", predicted, predicted, probabilities).save(tmp_path / "p.npz")
    read = Predictions.load(tmp_path / "p.npz")
    np.testing.assert_array_equal(read.probabilities.argmax(axis=1), read.predicted)
    np.testing.assert_allclose(read.probabilities, probabilities, atol=1e-3)
    assert read.probabilities.max() <= 1


def test_two_networks_are_compared_sample_by_sample() -> None:
    assert answers(FIRST).against(answers(SECOND)) == Contingency(
        both=4, only_first=2, only_second=1, neither=1
    )
    assert answers(SECOND).against(answers(FIRST)) == Contingency(
        both=4, only_first=1, only_second=2, neither=1
    )


def test_answers_to_other_samples_are_not_compared() -> None:
    with pytest.raises(DataError, match="the samples differ"):
        answers(FIRST).against(answers(FIRST, seed=1))


def test_equal_images_with_other_labels_are_other_samples() -> None:
    first, second = split(), split()
    second = Split(first.images, np.roll(first.labels, 1))
    ours, theirs = (
        Predictions.of("test", part, part.labels, np.full((8, 3), 1 / 3))
        for part in (first, second)
    )
    assert ours.samples != theirs.samples
    with pytest.raises(DataError, match="the samples differ"):
        ours.against(theirs)


def test_the_digest_is_32_hexadecimal_digits() -> None:
    assert re.fullmatch("[0-9a-f]{32}", answers(FIRST).samples)


@pytest.mark.parametrize(("classes", "kept_as"), [(256, np.uint8), (257, np.uint16)])
def test_labels_take_as_few_bytes_as_the_classes_need(
    tmp_path: Path, classes: int, kept_as: type
) -> None:
    low, high = np.array([0, 0]), np.array([0, classes - 1])
    # A set may lack a class that the network knows, and hold one that it does not know.
    for labels, predicted, columns in ((low, high, classes), (high, low, 3)):
        path = tmp_path / "p.npz"
        Predictions("val", "", labels, predicted, np.zeros((2, columns))).save(path)
        with np.load(path) as kept:
            assert kept["labels"].dtype == kept["predicted"].dtype == kept_as
        read = Predictions.load(path)
        np.testing.assert_array_equal(read.labels, labels)
        np.testing.assert_array_equal(read.predicted, predicted)


def test_an_empty_set_is_kept_as_well(tmp_path: Path) -> None:
    none = np.zeros(0, np.int64)
    Predictions("val", "", none, none, np.zeros((0, 3))).save(tmp_path / "p.npz")
    assert Predictions.load(tmp_path / "p.npz").labels.shape == (0,)


def test_another_file_is_refused(tmp_path: Path) -> None:
    arrays = {
        name: np.array(["x"])
        for name in ("part", "samples", "labels", "predicted", "probabilities")
    }
    np.savez(tmp_path / "x.npz", allow_pickle=False, **arrays)
    with pytest.raises(DataError, match=r"x\.npz: its arrays are not predictions"):
        Predictions.load(tmp_path / "x.npz")
    np.savez(tmp_path / "w.npz", W1=np.zeros(3))
    with pytest.raises(DataError, match=r"w\.npz: lacks labels, part"):
        Predictions.load(tmp_path / "w.npz")

"""What a comparison says of made-up sweeps of many kinds is what a person has read."""

import re
from pathlib import Path

import numpy as np
import pytest

from src.comparison.comparison import Comparison
from src.comparison.statistics import LEVEL, holm
from tests.sentences import FILE, Sweep, said, sweeps


@pytest.mark.parametrize("sweep", sweeps(), ids=lambda sweep: sweep.title)
def test_what_is_said_of_a_sweep_has_been_read(sweep: Sweep) -> None:
    known = FILE.read_text(encoding="utf-8")
    assert said(sweep) in known, "read the change: python -m tests.sentences, then git diff"


def test_the_file_holds_nothing_else() -> None:
    titles = re.findall(r"^## (.*)$", FILE.read_text(encoding="utf-8"), re.MULTILINE)
    assert titles == [sweep.title for sweep in sweeps()]
    assert len(titles) >= 40


@pytest.mark.parametrize("sweep", sweeps(), ids=lambda sweep: sweep.title)
def test_what_is_ahead_is_ahead_and_shares_lie_between_nought_and_all(sweep: Sweep) -> None:
    text = said(sweep)
    assert "worse by -" not in text
    assert "nan" not in re.sub(r"^    .*$", "", text, flags=re.MULTILINE)
    assert all(int(share) <= 100 for share in re.findall(r"(\d+)%", text))


def answered(name: str, folder: Path) -> Comparison:
    """Return the comparison of the made-up sweep whose title begins so; its files stay."""
    (sweep,) = (one for one in sweeps() if one.title.startswith(name))
    return Comparison(list(sweep.runs(folder)))


def test_a_difference_of_seeds_alone_names_no_best(tmp_path: Path) -> None:
    frame = answered("Test samples do not bear out", tmp_path).configurations
    assert frame.loc["C2", "p"] < LEVEL < frame.loc["C2", "p_samples"]
    assert frame.loc["C2", "tied"]


def test_the_answers_to_the_test_samples_are_corrected_for_all_others(tmp_path: Path) -> None:
    comparison = answered("Test samples bear out", tmp_path)
    alone = []
    for label in ("C2", "C3"):
        found = comparison.mcnemar("C1", label)
        assert found is not None
        alone.append(found.p)
    expected = np.minimum(holm(np.array(alone)), max(alone))
    assert list(comparison.configurations["p_samples"].iloc[1:]) == pytest.approx(list(expected))


def test_answers_to_other_samples_do_not_count(tmp_path: Path) -> None:
    comparison = answered("Test samples bear out", tmp_path)
    for run in comparison.kept[5:10]:  # those of the second configuration
        assert run.files is not None
        with np.load(run.files / "predictions.npz") as arrays:
            changed = {**arrays, "samples": np.array("other samples")}
        np.savez(run.files / "predictions.npz", **changed)
    again = Comparison(list(comparison.kept))
    assert again.mcnemar("C1", "C2") is None
    assert np.isnan(again.configurations.loc["C2", "p_samples"])
    assert again.mcnemar("C1", "C3") is not None

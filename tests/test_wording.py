"""The small parts of a comparison's sentences and frames, each by a value that is known."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src.comparison.answers import Answers, disagreement
from src.comparison.budget import Budget
from src.comparison.comparison import Comparison
from src.comparison.frames import Pair
from src.comparison.kept import KeptRun
from src.comparison.reasons import sentences
from src.comparison.statistics import Samples
from src.comparison.verdict import probability
from src.comparison.wording import pair_on_samples, pair_over_seeds
from tests.sentences import Sweep


def test_a_p_value_has_three_digits_and_is_never_nought() -> None:
    assert [probability(p) for p in (0.0312, 0.001, 0.0009)] == [
        "p = 0.031",
        "p = 0.001",
        "p < 0.001",
    ]
    assert probability(0.0014) == "p = 0.001"


@pytest.mark.parametrize(("networks", "summed"), [(1, ""), (2, ", summed over 2 networks each")])
def test_a_pair_on_samples_says_how_many_networks_answered(networks: int, summed: str) -> None:
    samples = Samples(12, 3, 360, networks, 0.025, 0.004, 0.046, 0.02, "McNemar")
    pair = Pair("C1", "C2", 0.02, math.nan, math.nan, math.nan, math.nan, 3, "seeds", samples)
    assert pair_on_samples(pair) == (
        f"Of 360 test samples C1 alone is right on 12 and C2 alone on 3{summed}: the test accuracy "
        "differs by +0.0250, 95% interval +0.0040 to +0.0460; p = 0.020 for this pair alone, "
        "p = 0.060 corrected for all 3 pairs (McNemar)."
    )
    assert "There is no interval: it needs two seeds of each." in pair_over_seeds(pair, "accuracy")
    alone = replace(pair, pairs=1)
    assert pair_on_samples(alone).endswith("p = 0.020 (McNemar).")


def test_runs_that_do_not_say_their_seed_are_named_if_there_is_one(tmp_path: Path) -> None:
    runs = list(Sweep("", {"lr=0.1": [0.9, 0.91], "lr=0.2": [0.8, 0.81]}).runs(tmp_path))
    assert not any("do not say their seed" in note for note in Comparison(runs).notes)
    settings = {key: value for key, value in runs[0].settings.items() if key != "seed"}
    some = Comparison([replace(runs[0], settings=settings), *runs[1:]])
    assert any("do not say their seed" in note for note in some.notes)


def test_classes_are_those_of_the_networks_and_of_the_labels(tmp_path: Path) -> None:
    sweep = Sweep("", {"lr=0.1": [0.9, 0.91]}, predictions=True)
    runs = list(sweep.runs(tmp_path))
    assert Comparison(runs).class_names == [str(number) for number in range(10)]
    unknown = [replace(run, settings={**run.settings, "model.outputs": ""}) for run in runs]
    labels = np.load(next(tmp_path.rglob("predictions.npz")))["labels"]
    expected = [str(number) for number in range(int(labels.max()) + 1)]
    assert Comparison(unknown).class_names == expected
    (tmp_path / "empty").mkdir()
    bare = [replace(run, folder=tmp_path / "empty") for run in unknown]
    assert Comparison(bare).class_names == []


def test_samples_that_two_answer_differently_come_by_the_size_of_the_difference() -> None:
    labels = np.array([3, 1, 4, 1])
    answers = Answers(
        "test", "digest", labels, {0: labels, 1: np.array([3, 1, 4, 0]), 2: 9 - labels}, 0
    )
    frame = disagreement(answers, [0, 1], [2])
    assert list(frame.columns) == ["sample", "label", "a", "b"]
    assert frame.to_dict("list") == {
        "sample": [0, 1, 2, 3],
        "label": [3, 1, 4, 1],
        "a": [1.0, 1.0, 1.0, 0.5],
        "b": [0.0, 0.0, 0.0, 0.0],
    }


def layers(label: str, **values: float) -> dict[str, object]:
    known = {"dead": 0.0, "saturated": 0.0, "update_ratio": 1e-3}
    gradients = {"gradient_first": 1.0, "gradient_last": 1.0}
    return {"configuration": label, "layer": 1, **known, **gradients, **values}


def test_saturated_units_are_a_reason_only_where_the_best_has_fewer() -> None:
    def reasons(best: float) -> dict[str, str]:
        rows = [layers("C1", saturated=best), layers("C2", saturated=0.9)]
        return sentences(pd.DataFrame(rows), "C1", ["C2"])

    assert reasons(0.1) == {"C2": "90% of the units of layer 1 are saturated (C1: 10%)"}
    assert reasons(0.9) == reasons(0.95) == {}


def test_a_run_has_used_its_budget_up_where_one_epoch_more_would_exceed_it() -> None:
    history = pd.DataFrame(
        {"run": 0, "epoch": [1, 2, 3], "seconds": [10.0, 20.0, 40.0], "val/accuracy": 0.5}
    )
    run = KeptRun("", {}, "KILLED", epochs=9)
    assert list(Budget("seconds", 55).within(history, [run]).index) == [0]
    assert list(Budget("seconds", 65).within(history, [run]).index) == []
    assert list(Budget("seconds", 15).within(history[:1], [run]).index) == [0]


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        (["DIVERGED", "DIVERGED"], "No other configuration has a finished run."),
        (["DIVERGED", 0.8], "All other configurations have a diverged run."),
    ],
)
def test_a_rival_without_a_finished_run_is_told_from_one_that_diverged_once(
    scores: list[float | str | None], said: str, tmp_path: Path
) -> None:
    sweep = Sweep("", {"lr=0.1": [0.9, 0.91], "lr=9": scores})
    assert said in str(Comparison(list(sweep.runs(tmp_path))).answer)

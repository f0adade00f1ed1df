"""The small parts of a comparison's sentences and frames, each by a value that is known."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src.comparison.answers import Answers, disagreement, read_answers
from src.comparison.budget import Budget
from src.comparison.comparison import Comparison
from src.comparison.frames import Pair
from src.comparison.kept import KeptRun
from src.comparison.reasons import sentences
from src.comparison.scores import _effects
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


def test_answers_to_other_samples_and_damaged_files_are_counted_and_left_out(
    tmp_path: Path,
) -> None:
    sweep = Sweep("", {"lr=0.1": [0.9, 0.91, 0.92, 0.93]}, predictions=True)
    files = {n: run.predictions for n, run in enumerate(sweep.runs(tmp_path)) if run.predictions}
    with np.load(files[1]) as arrays:
        other = {**arrays, "samples": np.array("other")}
    np.savez(files[1], **other)
    files[2].write_bytes(b"damaged")
    answers = read_answers(files)
    assert answers is not None
    assert sorted(answers.of_run) == [0, 3]
    assert answers.left_out == 2


def test_a_run_that_stops_a_step_short_of_a_budget_has_not_reached_it() -> None:
    runs = [KeptRun("a", {}, "FINISHED", "val/loss")]
    history = pd.DataFrame({"run": 0, "epoch": range(1, 10), "updates": range(10, 100, 10)})
    assert list(Budget("updates", 99).within(history, runs).index) == [0]  # no more fit in
    assert list(Budget("updates", 100).within(history, runs).index) == []


def test_a_seed_that_no_run_has_moves_nothing() -> None:
    values = np.array([[0.9, np.nan, 0.7], [0.8, np.nan, 0.6]])
    assert _effects(values) == pytest.approx([0.1, 0.0, -0.1])


def test_curves_have_the_metrics_that_were_asked_for(tmp_path: Path) -> None:
    sweep = Sweep("", {"lr=0.1": [0.9], "lr=0.2": [0.8]}, curves={"lr=0.1": [0.5], "lr=0.2": [0.4]})
    curves = Comparison(list(sweep.runs(tmp_path))).curves(["val/accuracy", "val/loss"])
    columns = ["run", "configuration", "epoch", "updates", "samples", "seconds"]
    assert list(curves.columns) == [*columns, "val/accuracy", "val/loss"]
    assert curves["val/accuracy"].tolist() == [0.5, 0.9, 0.4, 0.8]
    assert curves["val/loss"].isna().all()


def test_a_run_that_repeats_another_is_told_and_counts_once(tmp_path: Path) -> None:
    runs = list(Sweep("", {"lr=0.1": [0.9, 0.91], "lr=0.2": [0.8, 0.81]}).runs(tmp_path))
    comparison = Comparison([*runs, replace(runs[0], name="again")])
    assert any("1 run repeats another one" in note for note in comparison.notes)
    assert len(comparison.runs) == 4

"""A sweep with seeds is compared by configuration: in frames, in the terminal and in MLflow."""

import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from src.compare import Comparison, latest
from src.comparison.configurations import group
from src.comparison.kept import KeptRun, read_folder, run_folders
from src.comparison.reasons import guessed_loss
from src.comparison.scores import Scores
from src.comparison.wording import pair_on_samples, pair_over_seeds
from src.config.arguments import prepare
from src.runs.predictions import Predictions
from src.support.errors import ConfigError, DataError, UserError
from src.sweep import grammar
from src.sweep.sampling import combinations, zipped
from src.tracking.view import run_by_run, view_tag
from tests.conftest import ROOT, Ended, run


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A sweep of three configurations with three seeds each, of which one diverges."""
    arguments = ("-m", "model=relu2_small", "lr=0.01,0.03,1e20", "seed=range(3)", "epochs=12")
    return run(tmp_path_factory.mktemp("compared"), *arguments, "diagnose=4")


@pytest.fixture(scope="module")
def sweep(ended: Ended) -> Path:
    return next(ended.outputs.glob("sweeps/*"))


@pytest.fixture(scope="module")
def comparison(sweep: Path) -> Comparison:
    return Comparison.read([sweep])


def results(sweep: Path, lr: str) -> list[dict[str, Any]]:
    """Return what the runs of a learning rate left, in the order of their seeds."""
    found = [json.loads(path.read_text()) for path in sweep.glob("*/result.json")]
    own = [result for result in found if f"lr={lr}" in result["overrides"]]
    return sorted(own, key=lambda result: result["name"])


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "src.compare", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )


def test_rows_are_configurations_and_seeds_are_their_replicates(
    comparison: Comparison, sweep: Path
) -> None:
    frame = comparison.configurations
    assert comparison.differing == ["lr"]
    assert comparison.common["model"] == "relu2_small"
    assert list(frame.index) == ["C1", "C2", "C3"]
    assert list(frame["lr"]) == [0.03, 0.01, 1e20]
    assert list(frame["n"]) == [3, 3, 3]
    values = [result["value"] for result in results(sweep, "0.03")]
    best = frame.loc["C1"]
    assert best["mean"] == pytest.approx(np.mean(values))
    assert best["sd"] == pytest.approx(np.std(values, ddof=1))
    others = [result["value"] for result in results(sweep, "0.01")]
    low, high = Scores(np.array([values, others]), True, 360).intervals()
    assert (best["low"], best["high"]) == (low[0], high[0])
    assert (best["best"], best["worst"]) == (max(values), min(values))
    tests = [result["metrics"]["test/accuracy"] for result in results(sweep, "0.03")]
    assert best["test_mean"] == pytest.approx(np.mean(tests))
    assert (frame.loc["C3", "finished"], frame.loc["C3", "diverged"]) == (0, 3)
    assert np.isnan(frame.loc["C3", "mean"])
    assert not frame.loc["C3", "tied"]


def test_runs_and_curves_are_those_of_the_folders(comparison: Comparison, sweep: Path) -> None:
    runs = comparison.runs
    assert len(runs) == 9
    assert list(runs["seed"].head(3)) == [0, 1, 2]
    assert set(runs["configuration"].head(3)) == {"C1"}
    assert (runs["status"] == "FAILED").sum() == 3
    assert runs["failure"].str.contains("became").sum() == 3
    curves = comparison.curves()
    for number, row in runs.head(6).iterrows():
        own = curves[curves["run"] == number]
        history = pd.read_csv(Path(row["folder"]) / "history.csv")
        assert list(own["val/accuracy"]) == pytest.approx(list(history["val/accuracy"]))
        assert list(own["epoch"]) == list(range(1, 13))
        assert set(own["configuration"]) == {row["configuration"]}
    assert "/#/experiments/" in runs["link"].iloc[0]
    assert runs["run_id"].iloc[0] in runs["link"].iloc[0]


def test_the_answer_names_the_best_its_margin_and_what_matters(comparison: Comparison) -> None:
    frame = comparison.configurations
    first = comparison.answer[0]
    gap = frame["mean"].iloc[0] - frame["mean"].iloc[1]
    assert f"lr=0.03 has val/accuracy {frame['mean'].iloc[0]:.4f} (95% interval " in first
    assert f"the difference of {gap:.4f} may be chance (p = " in first
    assert f"test/accuracy {frame['test_mean'].iloc[0]:.4f})" in first
    notes = " ".join(comparison.notes)
    assert "chosen by the validation set and reported on the test set" in notes
    assert "Of 9 runs, 3 diverged" in notes
    assert comparison.advice is None
    assert comparison.explanations["C3"] == "3 of 3 diverged"


def test_what_predictions_say_is_what_the_files_say(comparison: Comparison) -> None:
    runs = comparison.runs
    kept = {
        label: [Predictions.load(Path(f) / "predictions.npz") for f in own["folder"]]
        for label, own in runs[runs["status"] == "FINISHED"].groupby("configuration")
    }
    matrix = comparison.confusion("C1")
    assert matrix is not None
    assert matrix.sum() == 3 * len(kept["C1"][0].labels)
    assert np.trace(matrix) == sum(one.right.sum() for one in kept["C1"])
    counts = [a.against(b) for a, b in zip(kept["C1"], kept["C2"], strict=True)]
    found = comparison.mcnemar("C1", "C2")
    assert found is not None
    assert found.only_first == sum(count.only_first for count in counts)
    assert found.only_second == sum(count.only_second for count in counts)
    shares = {label: np.mean([one.right for one in own], axis=0) for label, own in kept.items()}
    differing = np.flatnonzero(shares["C1"] != shares["C2"])
    frame = comparison.disagreement("C1", "C2")
    assert set(frame["sample"]) == set(differing)
    assert list(frame["a"]) == pytest.approx(list(shares["C1"][frame["sample"]]))
    assert comparison.configurations.loc["C2", "p_samples"] == pytest.approx(found.p)
    image = comparison.image(int(frame["sample"].iloc[0]))
    assert image is not None
    assert image.shape == (28, 28)
    assert image.max() > 200
    assert comparison.confusion("C3") is None
    assert comparison.class_names == [str(number) for number in range(10)]


def test_two_configurations_are_compared_over_seeds(comparison: Comparison, sweep: Path) -> None:
    pair = comparison.pair("C1", "C2")
    first, second = ([r["value"] for r in results(sweep, lr)] for lr in ("0.03", "0.01"))
    expected = Scores(np.array([first, second]), True, 360).difference(0, 1)
    assert (pair.p, pair.low, pair.high) == (expected.p, expected.low, expected.high)
    assert pair.p == pytest.approx(comparison.configurations.loc["C2", "p"])
    single = comparison.pair(str(sweep / "0"), str(sweep / "3"))
    assert np.isnan(single.p)  # one network each: nothing is known of other seeds
    assert single.samples is not None
    assert single.samples.method == "McNemar's exact test"
    with pytest.raises(ConfigError, match="C9: no such configuration"):
        comparison.pair("C1", "C9")


@pytest.mark.parametrize(
    ("at", "epochs"), [("epochs=5", 5), ("updates=100", 2), ("samples=2154", 2), ("epochs=5.5", 5)]
)
def test_at_an_equal_budget_each_run_counts_with_its_last_epoch_within_it(
    sweep: Path, comparison: Comparison, at: str, epochs: int
) -> None:
    found = Comparison.read([sweep], at=at)
    assert found.budget == at
    curves = comparison.curves(["val/accuracy", "test/accuracy"])
    then = curves[curves["epoch"] == epochs].set_index("run")
    runs = found.runs[found.runs["value"].notna()]
    assert len(runs) == 6
    assert list(runs["value"]) == list(then.loc[runs.index, "val/accuracy"])
    assert list(runs["test"]) == list(then.loc[runs.index, "test/accuracy"])
    assert found.configurations["p_samples"].isna().all()  # those are of the kept weights
    assert f"at {at}" in found.answer[0]


def test_a_run_that_ended_before_the_budget_does_not_count(sweep: Path) -> None:
    found = Comparison.read([sweep], at="epochs=13")
    assert found.runs["value"].isna().all()
    assert "6 runs ended before epochs=13" in " ".join(found.notes)
    assert "None of the 9 runs" in found.answer[0]
    with pytest.raises(ConfigError, match="hours=1: no such budget"):
        Comparison.read([sweep], at="hours=1")
    with pytest.raises(ConfigError, match="must be a positive number"):
        Comparison.read([sweep], at="epochs=-1")


def test_a_best_score_counts_the_epochs_within_the_budget_only(sweep: Path) -> None:
    found = Comparison.read([sweep], "val/best/accuracy", "epochs=6")
    history = found.history
    expected = history[history["epoch"] <= 6].groupby("run")["val/accuracy"].max()
    runs = found.runs[found.runs["value"].notna()]
    assert list(runs["value"]) == list(expected[runs.index])


def test_a_repeated_run_is_no_replicate(sweep: Path, tmp_path: Path) -> None:
    shutil.copytree(sweep / "0", tmp_path / "again")
    found = Comparison.read([sweep, tmp_path])
    assert list(found.configurations["n"]) == [3, 3, 3]
    assert found.repeated == 1
    assert "1 run repeats another one" in " ".join(found.notes)


def made(settings: dict[str, str], value: float, **fields: Any) -> KeptRun:
    """Return a run as it would be kept."""
    seed = settings.get("seed", "0")
    return KeptRun(
        "run",
        {"seed": seed, **settings},
        fields.pop("status", "FINISHED"),
        metric="val/accuracy",
        metrics={"val/accuracy": value},
        seconds=1.0,
        **fields,
    )


def test_what_a_choice_implies_is_no_column_and_what_was_typed_is_one() -> None:
    runs = [
        made({"model": "a", "model.hidden": "[1]", "lr": "0.1"}, 0.5, overrides=["model=a"]),
        made({"model": "b", "model.hidden": "[2]", "lr": "0.1"}, 0.6, overrides=["model=b"]),
    ]
    assert group(runs).differing == ["model"]
    swept = [replace(run, overrides=[*run.overrides, "model.hidden=x"]) for run in runs]
    assert group(swept).differing == ["model", "model.hidden"]
    foreign = [
        made({"batch": "32", "rate": "0.1"}, 0.5),
        made({"batch": "64", "rate": "0.2"}, 0.6),
    ]
    assert group(foreign).differing == ["batch", "rate"]
    places = [made({"outputs": "/a", "tags.x": "1"}, 0.5), made({"outputs": "/b"}, 0.5)]
    assert group(places).number == 1


def test_another_division_of_the_data_is_a_replicate_and_other_data_is_not() -> None:
    divided = [
        made({"data.split.seed": str(k)}, 0.5, data=f"digest {k}", overrides=["lr=0.1"])
        for k in range(3)
    ]
    assert group(divided).number == 1
    changed = [made({"seed": str(k)}, 0.5, data=f"digest {k}") for k in range(2)]
    assert group(changed).differing == []
    mixed = [made({"seed": "0"}, 0.5, data=digest) for digest in ("old", "new")]
    assert group(mixed).number == 2
    assert group(mixed).differing == ["data digest"]
    assert "learned from different data" in " ".join(Comparison(mixed).notes)
    assert "different data" not in " ".join(Comparison(divided).notes)


def test_a_configuration_that_diverges_at_times_does_not_lead() -> None:
    steady = [made({"lr": "0.1", "seed": str(k)}, 0.90 + k / 100) for k in range(3)]
    failure = "the training loss became nan in epoch 3, after 99 updates; a smaller lr may help"
    risky = [
        *(made({"lr": "1.0", "seed": str(k)}, 0.97 + k / 100) for k in range(2)),
        made({"lr": "1.0", "seed": "2"}, 0.0, status="FAILED", failure=failure),
    ]
    frame = Comparison([*risky, *steady]).configurations
    assert list(frame["lr"]) == [0.1, 1.0]
    assert list(frame["diverged"]) == [0, 1]
    assert list(frame["n"]) == [3, 3]


def seeded(values: dict[str, list[float]], **fields: Any) -> list[KeptRun]:
    """Return runs of two settings, given the scores of the seeds of each pair of their values."""
    return [
        replace(made(dict(zip("ab", pair, strict=True)) | {"seed": str(k)}, value), **fields)
        for pair, scores in values.items()
        for k, value in enumerate(scores)
    ]


def test_the_second_sentence_says_what_matters_and_between_which_ends() -> None:
    grid = {
        "xs": [0.95, 0.96],
        "xt": [0.93, 0.94],
        "ys": [0.55, 0.56],
        "yt": [0.53, 0.54],
    }
    assert Comparison(seeded(grid)).answer[1] == (
        "a matters most: it explains over 99% (97% to 100%) of the variance between runs (on "
        "average 0.9450 with x, 0.5450 with y)."
    )
    close = {"xs": [0.9, 0.94], "xt": [0.8, 0.82], "ys": [0.81, 0.79], "yt": [0.7, 0.72]}
    assert re.fullmatch(
        r"a explains \d\d% \(\d+% to \d+%\) of the variance between runs \(on average 0.8650 "
        r"with x, 0.7550 with y\), then b \d\d%, the seed [1-9]%\.",
        Comparison(seeded(close)).answer[1],
    )


def test_a_setting_that_varies_alone_is_not_said_to_matter_most() -> None:
    alone = {"xs": [0.90, 0.92, 0.94], "ys": [0.80, 0.82, 0.84], "zs": [0.86, 0.90, 0.88]}
    assert re.fullmatch(
        r"a explains \d\d% \(\d+% to \d+%\) of the variance between runs \(on average 0.9200 with "
        r"x, 0.8200 with y\); the rest is the seed\.",
        Comparison(seeded(alone)).answer[1],
    )


def test_noise_is_not_said_to_matter() -> None:
    noise = {"xs": [0.1, 0.9], "xt": [0.9, 0.3], "ys": [0.2, 0.9], "yt": [0.8, 0.3]}
    assert Comparison(seeded(noise)).answer[1] == (
        "No setting can be shown to matter: what differs between runs may be chance."
    )
    single = {"xs": [0.1], "xt": [0.9], "ys": [0.2], "yt": [0.3]}
    assert len(Comparison(seeded(single)).answer) == 1


def halved(folder: Path, *, with_history: bool) -> list[KeptRun]:
    """Return 18 runs after halving: the survivors are alike, the pruned ones were not."""
    runs = []
    for number, (lr, value) in enumerate((("0.1", 0.9), ("0.3", 0.5), ("3", 0.1))):
        for hidden in ("4", "8"):
            for seed in range(3):
                noise = 0.01 * ((seed * 7 + number * 3 + int(hidden)) % 5)
                folder_of_run = folder / f"{lr}_{hidden}_{seed}"
                folder_of_run.mkdir(parents=True)
                stays = lr == "0.1"
                if with_history:
                    lines = [f"{n},{value + noise},{n}" for n in range(1, 9 if stays else 3)]
                    text = "\n".join(["epoch,val/accuracy,time", *lines]) + "\n"
                    (folder_of_run / "history.csv").write_text(text)
                settings = {"lr": lr, "model.hidden": hidden, "seed": str(seed)}
                status = "FINISHED" if stays else "PRUNED"
                runs.append(made(settings, 0.95 + noise, folder=folder_of_run, status=status))
    return runs


def test_after_halving_all_runs_are_compared_at_the_last_epoch_that_they_reached(
    tmp_path: Path,
) -> None:
    found = Comparison(halved(tmp_path / "a", with_history=True))
    assert re.match(
        r"At epoch 2, the last that all 18 runs reached, lr matters most: it explains over 99% ",
        found.answer[1],
    )
    assert "0.1233 with 3)" in found.answer[1]
    method = found.importance()["method"].iloc[0]
    assert method.endswith("at epoch 2, the last that all 18 runs reached")
    assert "never" not in " ".join(found.explanations.values())
    blind = Comparison(halved(tmp_path / "b", with_history=False))
    assert blind.answer[1].startswith("Between the 6 of 18 runs that finished, no setting can be")


def test_a_run_that_restores_its_best_weights_counts_with_the_first_best_epoch(
    tmp_path: Path,
) -> None:
    curves = {"0.1": [0.90, 0.94, 0.92, 0.94, 0.91], "0.2": [0.80, 0.85, 0.93]}
    restoring = {"stopping.restore_best": "True", "stopping.metric": "val/accuracy"}
    runs = []
    for lr, curve in curves.items():
        folder = tmp_path / lr
        folder.mkdir()
        rows = [f"{n},{value},{value - n / 1000},{n}" for n, value in enumerate(curve, 1)]
        text = "\n".join(["epoch,val/accuracy,test/accuracy,time", *rows]) + "\n"
        (folder / "history.csv").write_text(text)
        # The second ended by its stopping rule before the budget.
        runs.append(made({"lr": lr, **restoring}, max(curve), files=folder, epochs=5))
    frame = Comparison(runs, at="epochs=4").configurations
    assert list(frame["mean"]) == [0.94, 0.93]
    assert frame["test_mean"].iloc[0] == pytest.approx(0.938)  # of epoch 2, not of epoch 4
    plain = [replace(run, settings={"lr": run.settings["lr"], "seed": "0"}) for run in runs]
    assert list(Comparison(plain, at="epochs=3").configurations["mean"]) == [0.93, 0.92]


def test_seeds_of_a_division_count_as_one_and_equal_divisions_as_one() -> None:
    scores = {("0.1", k): 0.9 + k / 100 for k in range(4)} | {
        ("0.2", k): 0.8 + k / 100 for k in range(4)
    }
    runs = [
        made(
            {"lr": lr, "seed": str(k % 2), "data.split.seed": str(k // 2)},
            value,
            data=f"digest {k // 2}",
            sizes={"train": 300, "val": 100},
        )
        for (lr, k), value in scores.items()
    ]
    found = Comparison(runs)
    assert list(found.configurations["replicates"]) == [2, 2]
    assert list(found.configurations["n"]) == [4, 4]
    expected = Scores(np.array([[0.905, 0.925], [0.805, 0.825]]), True, 100, 1 / 3)
    low, _ = expected.intervals()
    assert list(found.configurations["low"]) == pytest.approx(list(low))
    assert found.pair("C1", "C2").p == pytest.approx(expected.difference(0, 1).p)
    assert "over 2 divisions with 2 seeds each" in found.answer[0]
    alike = Comparison([replace(run, data="one digest") for run in runs])
    assert not alike.has_divisions
    assert alike.repeated == 4  # equal data and seed: the same run again


def test_a_faster_configuration_that_ties_with_the_best_is_named() -> None:
    slow = seeded({"xs": [0.95, 0.96, 0.97]}, seconds=9.0)
    fast = seeded({"xt": [0.95, 0.95, 0.97]}, seconds=2.0)
    said = (
        "Of those within the interval of the best, b=t (C2) is the fastest: 2 s instead of 9 s "
        "per run, with val/accuracy 0.9567."
    )
    assert said in Comparison([*slow, *fast]).notes
    worse = seeded({"xt": [0.15, 0.16, 0.17]}, seconds=2.0)
    assert "fastest" not in " ".join(Comparison([*slow, *worse]).notes)
    alike = seeded({"xt": [0.95, 0.95, 0.97]}, seconds=8.0)
    assert "fastest" not in " ".join(Comparison([*slow, *alike]).notes)


def test_configurations_that_end_at_chance_are_named_with_the_reason() -> None:
    why = "val/accuracy 0.1000 is no better than guessing (…): a smaller lr may help"
    runs = [
        made({"lr": lr, "seed": str(k)}, value, chance=why if value < 0.15 else None)
        for lr, values in {"0.1": [0.9, 0.91], "1": [0.2, 0.12], "3": [0.1, 0.14]}.items()
        for k, value in enumerate(values)
    ]
    assert Comparison(runs).explanations == {"C2": f"1 of 2 end at chance: {why}", "C3": why}


def written(folder: Path, losses: list[float], **columns: float) -> Path:
    """Write the history of a run and return its folder."""
    folder.mkdir()
    head = ",".join(["epoch", "val/loss", *columns, "time"])
    rows = [",".join(map(str, [n, x, *columns.values(), n])) for n, x in enumerate(losses, 1)]
    (folder / "history.csv").write_text("\n".join([head, *rows]) + "\n")
    return folder


def test_a_loss_that_still_falls_is_measured_from_that_of_a_guess(tmp_path: Path) -> None:
    """Measured from epoch 1, 0.1 of 1.0 came in the last tenth; from ln 10 it is 0.1 of 2.0."""
    guess = math.log(10)
    settled = [guess - 2.2] * 10
    falling = [guess - 1.0, *[guess - 1.5] * 7, guess - 1.9, guess - 2.0]
    runs = [
        made(
            {"lr": lr, "seed": str(k), "model.outputs": "10", "loss": "softmax_cross_entropy"},
            value + k / 100,
            folder=written(tmp_path / f"{lr}{k}", losses),
        )
        for lr, value, losses in (("0.1", 0.9, settled), ("0.01", 0.5, falling))
        for k in range(3)
    ]
    assert Comparison(runs).explanations == {
        "C2": "5% of the fall of its loss below that of a guess came in the last tenth of "
        "training: more epochs would help"
    }
    unknown = [replace(run, settings={**run.settings, "loss": "mine"}) for run in runs]
    assert Comparison(unknown).explanations == {}


def test_the_loss_of_a_guess_is_that_of_equal_outputs() -> None:
    ten = {"model.outputs": "10"}
    assert guessed_loss({**ten, "loss": "softmax_cross_entropy"}) == pytest.approx(math.log(10))
    assert guessed_loss({**ten, "loss": "sigmoid_cross_entropy"}) == pytest.approx(10 * math.log(2))
    squared = {**ten, "loss": "squared_error"}
    assert guessed_loss({**squared, "loss.output": "identity"}) == pytest.approx(0.5)
    assert guessed_loss({**squared, "loss.output": "sigmoid"}) == pytest.approx(10 / 8)
    assert math.isnan(guessed_loss({"loss": "softmax_cross_entropy"}))
    assert math.isnan(guessed_loss({}))


@pytest.mark.parametrize("seeds", [1, 3])
def test_no_reason_is_given_for_being_behind_where_a_configuration_is_not(
    tmp_path: Path, seeds: int
) -> None:
    def explained(worse: float) -> dict[str, str]:
        runs = []
        for lr, value, update in (("0.1", 0.9, 1e-2), ("0.01", worse, 1e-4)):
            for k in range(seeds):
                folder = tmp_path / f"{worse} {lr} {k}"
                layer = {"layer1/update_ratio": update, "layer1/gradient_norm": 1.0}
                written(folder, [1.0, 1.0], **layer)
                settings = {"lr": lr, "seed": str(k)}
                runs.append(made(settings, value + k * (-1) ** k / 100, folder=folder))
        return Comparison(runs).explanations

    assert explained(0.5) == {
        "C2": "an update changes layer 1 by 1.0e-04 of its weights (C1: 1.0e-02): it learns slowly"
    }
    assert explained(0.9) == {}


def jobs_of(command: str) -> list[tuple[str, ...]]:
    """Return the overrides of each job that a command makes, by the project's own grammar."""
    arguments = prepare(shlex.split(command.removeprefix("python -m src.run ")))
    assert arguments.pop(0) == "-m"
    keys = [o.partition("=")[2].strip("[]").split(",") for o in arguments if "sweep.zip=" in o]
    found = grammar.settings(None, None, arguments)  # type: ignore[arg-type]
    jobs = [tuple(sorted(job)) for job in combinations(zipped(found, keys[0] if keys else []))]
    assert len(jobs) == len(set(jobs))
    return jobs


def grid(configurations: Sequence[tuple[str, ...]], seeds: list[list[int]]) -> list[KeptRun]:
    """Return runs of configurations, given by their overrides and their seeds."""
    return [
        made(
            {**dict(o.split("=", 1) for o in own), "seed": str(seed)},
            0.5 + 0.1 * number + 0.01 * seed,
            overrides=[*own, f"seed={seed}"],
        )
        for number, (own, several) in enumerate(zip(configurations, seeds, strict=True))
        for seed in several
    ]


FOUR = [("lr=0.1", "model=a"), ("lr=0.3", "model=a"), ("lr=0.1", "model=b"), ("lr=0.3", "model=b")]


@pytest.mark.parametrize(
    ("configurations", "seeds", "single", "added"),
    [
        (FOUR, [[0], [0], [0], [0]], [0, 1, 2, 3], [0, 1, 2, 3, 4]),
        (FOUR[:2], [[0, 1, 2], [0]], [1], [0, 1, 2, 3, 4]),
        (FOUR, [[0, 1, 2], [0], [0], [0, 1]], [1, 2], [0, 1, 2, 3, 4]),
        (FOUR, [[5], [0, 1], [0, 1], [0, 1]], [0], [0, 1, 5, 6, 7]),
        (FOUR[:2], [[7], [9]], [0, 1], [10, 11, 12, 13]),
        (FOUR[:3], [[3], [3], [3]], [0, 1, 2], [3, 4, 5, 6, 7]),
        ([("lr=0.1", "model.hidden=[16,16]"), ("lr=0.1", "model.hidden=[]")], [[0], [0]], [0, 1],
         [0, 1, 2, 3, 4]),
        ([("lr=0.1", "+sweep=card"), ("lr=0.3", "+sweep=card")], [[0], [0]], [0, 1],
         [0, 1, 2, 3, 4]),
    ],
)  # fmt: skip
def test_the_command_adds_four_seeds_to_what_has_one_and_to_nothing_else(
    configurations: list[tuple[str, ...]],
    seeds: list[list[int]],
    single: list[int],
    added: list[int],
) -> None:
    advice = Comparison(grid(configurations, seeds)).advice
    assert advice is not None
    text, command = advice.split(": python", 1)
    assert "no interval exists. This adds four seeds" in text
    expected = [(*configurations[i], f"seed={seed}") for i in single for seed in added]
    assert sorted(jobs_of("python" + command)) == sorted(tuple(sorted(job)) for job in expected)
    known = {(i, seed) for i in single for seed in seeds[i]}
    new = {(i, seed) for i in single for seed in added} - known
    assert len(new) == 4 * len(single)


def test_no_command_is_shown_that_would_add_something_else() -> None:
    mixed = [("lr=0.1",), ("lr=0.1", "batching.size=16")]
    advice = Comparison(grid(mixed, [[0], [0]])).advice
    assert advice == "Each configuration has one seed: no interval exists."
    unnamed = [replace(run, overrides=[]) for run in grid(FOUR[:2], [[0], [0]])]
    assert "This adds" not in str(Comparison(unnamed).advice)


def test_the_command_that_adds_seeds_is_the_sweep_s_own(sweep: Path, tmp_path: Path) -> None:
    for number in ("0", "3"):
        shutil.copytree(sweep / number, tmp_path / "s" / number)
    advice = Comparison.read([tmp_path / "s"]).advice
    assert advice is not None
    jobs = jobs_of(advice.partition("four seeds: ")[2])
    assert len(jobs) == 10
    assert {o for job in jobs for o in job if o.startswith("lr=")} == {"lr=0.01", "lr=0.03"}
    assert all("model=relu2_small" in job and "epochs=12" in job for job in jobs)
    found = Comparison(grid(FOUR[:2], [[0], [0]]))
    assert found.configurations["low"].isna().all()
    assert found.configurations["p"].isna().all()
    assert "With one seed each, a difference may be chance." in found.answer[0]


def test_runs_that_lack_something_are_shown_without_it(sweep: Path, tmp_path: Path) -> None:
    for number in range(6):
        shutil.copytree(sweep / str(number), tmp_path / str(number))
    (tmp_path / "0" / "predictions.npz").write_bytes(b"damaged")
    (tmp_path / "1" / "history.csv").unlink()
    (tmp_path / "2" / "result.json").unlink()
    record = json.loads((tmp_path / "3" / "run.json").read_text())
    del record["settings"], record["sha256"]  # as an older version wrote it
    (tmp_path / "3" / "run.json").write_text(json.dumps(record))
    found = Comparison.read([tmp_path])
    assert list(found.configurations["n"]) == [3, 3]
    assert sorted(found.configurations["finished"]) == [2, 3]
    assert found.mcnemar("C1", "C2") is not None
    assert found.runs["epochs"].isna().sum() == 1
    assert found.answer
    assert found.notes
    (tmp_path / "4" / "result.json").write_text("{")
    with pytest.raises(DataError, match=r"4/result\.json: not the record of a run"):
        Comparison.read([tmp_path])
    (tmp_path / "4" / "run.json").unlink()
    (tmp_path / "5" / "history.csv").write_text("epoch,val/loss,time\n1,x,1\n")
    with pytest.raises(DataError, match="not the history of a run"):
        Comparison.read([tmp_path]).curves()


def test_places_without_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        run_folders([tmp_path / "none"])
    with pytest.raises(DataError, match=r"holds no run\.json"):
        run_folders([tmp_path])
    with pytest.raises(DataError, match="holds no runs"):
        latest(tmp_path)
    with pytest.raises(DataError, match="there are no runs"):
        Comparison([])


def test_a_metric_that_no_run_has_is_refused(sweep: Path) -> None:
    with pytest.raises(DataError, match="did you mean val/accuracy"):
        Comparison.read([sweep], "val/acuracy")


def test_the_diagnosis_is_set_beside_the_ranking(comparison: Comparison) -> None:
    frame = comparison.reasons()
    own = frame[(frame["configuration"] == "C1") & (frame["layer"] == 1)].iloc[0]
    folders = comparison.runs.query("configuration == 'C1'")["folder"]
    histories = [pd.read_csv(Path(folder) / "history.csv") for folder in folders]
    looks = [history.dropna(subset=["layer1/update_ratio"]) for history in histories]
    last = [history.iloc[-1] for history in looks]
    assert own["dead"] == pytest.approx(np.mean([row["layer1/dead"] for row in last]))
    first = [history["layer1/gradient_norm"].iloc[0] for history in looks]
    assert own["gradient_first"] == pytest.approx(np.mean(first))


def test_the_end_of_a_sweep_shows_configurations_the_answer_and_the_links(
    ended: Ended, comparison: Comparison, sweep: Path
) -> None:
    lines = ended.out.splitlines()
    table = [line for line in lines if re.match(r"C\d ", line)]
    assert len(table) == 3
    assert table[0].split()[:2] == ["C1", "0.03"]
    assert f"{comparison.configurations['mean'].iloc[0]:.4f}" in table[0]
    assert "0 of 3 (3 diverged)" in table[2]
    text = " ".join(" ".join(lines).split())
    for sentence in comparison.answer:
        assert sentence in text
    assert str(sweep / "report.html") in ended.out
    keys = [line.split()[0] for line in lines]
    assert keys.index("answer") < keys.index("report") < keys.index("MLflow")
    page = (sweep / "report.html").read_text(encoding="utf-8")
    assert "lr=0.03" in page


def test_mlflow_opens_grouped_by_configuration_and_holds_a_summary(
    ended: Ended, comparison: Comparison, sweep: Path, tmp_path: Path
) -> None:
    client = MlflowClient(ended.store)
    (experiment,) = [e for e in client.search_experiments() if e.name == "scratchgrid"]
    grouped = json.loads(experiment.tags[view_tag(sweep.name)])
    assert grouped["groupBy"]["groupByKeys"] == [{"mode": "param", "groupByData": "lr"}]
    assert grouped["groupBy"]["aggregateFunction"] == "average"
    assert "PARALLEL" not in {chart["type"] for chart in grouped["compareRunCharts"]}
    single = json.loads(experiment.tags[view_tag(run_by_run(sweep.name))])
    assert single["groupBy"] is None
    assert "PARALLEL" in {chart["type"] for chart in single["compareRunCharts"]}
    assert f"viewStateShareKey={run_by_run(sweep.name)}" in ended.out
    (summary,) = client.search_runs([experiment.experiment_id], "tags.kind = 'sweep'")
    assert summary.data.tags["summary_of"] == sweep.name
    assert comparison.answer[0] in summary.data.tags["mlflow.note.content"]
    assert {file.path for file in client.list_artifacts(summary.info.run_id)} == {
        *("report.html", "leaderboard.json", "plan.json")
    }
    assert json.loads(summary.data.tags["mlflow.loggedArtifacts"]) == [
        {"path": "leaderboard.json", "type": "table"}
    ]
    path = client.download_artifacts(summary.info.run_id, "leaderboard.json", str(tmp_path))
    table = pd.read_json(path, orient="split")
    assert list(table["configuration"]) == ["C1", "C2", "C3"]
    assert table["mean"].iloc[0] == pytest.approx(comparison.configurations["mean"].iloc[0])
    found = client.search_runs([experiment.experiment_id], f"tags.sweep_id = '{sweep.name}'")
    assert len(found) == 9  # the summary is none of them


@pytest.mark.slow
def test_an_offline_sweep_reaches_mlflow_later_with_its_summary(tmp_path: Path) -> None:
    sweep = ("-m", "model=relu2_small", "lr=0.01,0.1", "seed=0,1", "epochs=2")
    ended = run(tmp_path, *sweep, "tracking.offline=true")
    assert ended.code == 0, ended.err
    (folder,) = ended.outputs.glob("sweeps/*")
    assert f"python -m src.sync --outputs {tmp_path} {folder}" in ended.out
    assert not (tmp_path / "mlflow.db").exists()
    told = [sys.executable, "-m", "src.sync", "--outputs", str(tmp_path), str(folder)]
    done = subprocess.run(told, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(ended.runs_in_mlflow()) == 4
    client = MlflowClient(ended.store)
    experiment = client.get_experiment_by_name("scratchgrid")
    assert experiment
    (summary,) = client.search_runs([experiment.experiment_id], "tags.kind = 'sweep'")
    assert summary.info.status == "FINISHED"
    assert summary.data.tags["summary_of"] == folder.name
    assert Comparison.read([folder]).answer[0] in summary.data.tags["mlflow.note.content"]
    for name in ("report.html", "leaderboard.json", "plan.json"):
        kept = Path(client.download_artifacts(summary.info.run_id, name, str(tmp_path)))
        assert kept.read_bytes() == (folder / name).read_bytes()
    assert view_tag(folder.name) in experiment.tags
    done = subprocess.run(told, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "MLflow has everything" in done.stdout


def test_runs_are_found_by_mlflow_s_own_filter(ended: Ended, comparison: Comparison) -> None:
    found = Comparison.find("params.lr = '0.03'", ended.outputs)
    assert list(found.runs["seed"]) == [0, 1, 2]
    assert len(Comparison.find("", ended.outputs).runs) == 9
    with pytest.raises(UserError, match="MLflow refuses it"):
        Comparison.find("lr is 0.03", ended.outputs)
    with pytest.raises(DataError, match="holds no runs that fit --filter"):
        Comparison.find("params.lr = '7'", ended.outputs)
    with pytest.raises(UserError, match="there is no MLflow store"):
        Comparison.find("", ended.outputs / "none")


def test_what_mlflow_alone_has_gives_the_same_numbers(
    ended: Ended, comparison: Comparison, sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = sweep.with_name("hidden")
    sweep.rename(hidden)  # as for runs of another computer
    try:
        found = Comparison.find("", ended.outputs)
        pd.testing.assert_frame_equal(
            found.configurations.drop(columns=["group", "seconds"]),
            comparison.configurations.drop(columns=["group", "seconds"]),
        )
        for path in ended.outputs.glob("artifacts/*/artifacts/history.csv"):
            path.rename(path.with_suffix(".away"))
        found = Comparison.find("", ended.outputs)
        ours, theirs = (
            one.curves().sort_values(["configuration", "val/loss"], ignore_index=True)
            for one in (found, comparison)
        )
        theirs = theirs[theirs["configuration"] != "C3"]
        ours = ours[ours["configuration"] != "C3"]
        pd.testing.assert_frame_equal(
            ours.drop(columns="run"), theirs.drop(columns="run"), check_dtype=False
        )
    finally:
        for path in ended.outputs.glob("artifacts/*/artifacts/history.away"):
            path.rename(path.with_suffix(".csv"))
        hidden.rename(sweep)


def test_runs_of_another_program_are_shown_without_what_they_lack(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(store)
    experiment = client.create_experiment("theirs", (tmp_path / "files").as_uri())
    for rate in ("0.1", "0.2"):
        for repeat in range(3):
            own = client.create_run(experiment).info.run_id
            client.log_param(own, "rate", rate)
            for step in range(4):
                value = float(rate) + repeat / 100 + step / 10
                client.log_metric(own, "accuracy", value, step=step)
            client.set_terminated(own)
    found = Comparison.find("", tmp_path, "theirs", "accuracy")
    frame = found.configurations
    assert list(frame["rate"]) == [0.2, 0.1]
    assert list(frame["mean"]) == pytest.approx([0.51, 0.41])
    assert frame["test_mean"].isna().all()
    notes = " ".join(found.notes)
    assert "do not say their seed" in notes
    assert "There is no test over samples" in notes
    with pytest.raises(DataError, match="no run has this metric"):
        Comparison.find("", tmp_path, "theirs", "val/accuracy")


def test_the_command_line_compares_writes_and_draws(
    sweep: Path, comparison: Comparison, tmp_path: Path
) -> None:
    table, page = tmp_path / "table.csv", tmp_path / "page.html"
    done = command(sweep, "--csv", table, "--html", page)
    assert done.returncode == 0, done.stderr
    assert comparison.answer[1] in " ".join(done.stdout.split())
    assert re.search(r"\d+% █+ +lr", done.stdout)
    written = pd.read_csv(table, index_col="configuration")
    assert list(written["mean"].dropna()) == pytest.approx(
        list(comparison.configurations["mean"].dropna())
    )
    assert page.stat().st_size > 10_000
    picture = tmp_path / "pair.png"
    done = command(sweep, "--pair", "C1", "C2", "--picture", picture)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert pair_over_seeds(comparison.pair("C1", "C2"), "val/accuracy") in said
    assert "over seeds; p " in said
    assert pair_on_samples(comparison.pair("C1", "C2")) in said
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_by_default_the_latest_sweep_is_compared_and_mistakes_are_told(
    ended: Ended, sweep: Path, tmp_path: Path
) -> None:
    assert latest(ended.outputs) == [sweep]
    done = command("--outputs", ended.outputs, "nowhere")
    assert done.returncode == 2
    assert "nowhere: no such folder, and no sweep in" in done.stderr
    done = command("--outputs", tmp_path)
    assert done.returncode == 2
    assert "holds no runs" in done.stderr


def test_a_folder_is_read_as_it_was_asked_and_ended(sweep: Path) -> None:
    kept = read_folder(sweep / "0")
    assert kept.settings["model"] == "relu2_small"
    assert kept.settings["lr"] == "0.01"
    assert kept.settings["initializer.weights"] == "xavier_normal"
    assert (kept.status, kept.epochs, kept.diverged) == ("FINISHED", 12, False)
    assert kept.versions["NumPy"] == np.__version__

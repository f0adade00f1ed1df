"""A sweep with seeds is compared by configuration: in frames, in the terminal and in MLflow."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from scipy import stats

from src.compare import Comparison, latest
from src.comparison.configurations import group
from src.comparison.kept import KeptRun, read_folder, run_folders
from src.comparison.wording import pair_on_samples, pair_over_seeds
from src.experiment.predictions import Predictions
from src.support.errors import ConfigError, DataError, UserError
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
    expected = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert [best["low"], best["high"]] == pytest.approx(expected)
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
    first, second = comparison.answer
    assert first.startswith(("lr=0.03 is the best: ", "lr=0.03 leads with "))
    gap = frame["mean"].iloc[0] - frame["mean"].iloc[1]
    assert f"{frame['mean'].iloc[0]:.4f}" in first
    assert f"{gap:.4f} ahead of lr=0.01" in first
    assert first.endswith(f"test/accuracy {frame['test_mean'].iloc[0]:.4f}).")
    better, worse = frame["mean"].iloc[:2]
    share = r"it explains \d+% of the variance between runs"
    ends = rf"on average {better:.4f} with 0\.03, {worse:.4f} with 0\.01"
    assert re.fullmatch(rf"lr matters most: {share} \({ends}\), then the seed \d+%\.", second)
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
    expected = stats.ttest_rel(first, second)
    assert pair.paired
    assert pair.p == pytest.approx(expected.pvalue)
    assert [pair.low, pair.high] == pytest.approx(list(expected.confidence_interval()))
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


def test_the_first_sentence_says_how_far_ahead_the_best_is_and_of_what() -> None:
    clear = {"xs": [0.95, 0.96, 0.97], "xt": [0.85, 0.86, 0.87], "yt": [0.5, 0.52, 0.51]}
    assert (
        Comparison(seeded(clear))
        .answer[0]
        .startswith(
            "a=x b=s is the best: val/accuracy 0.9600, 0.1000 ahead of the same with b=t, which is "
            "more than chance explains (95% interval 0.9352 to 0.9848 over 3 seeds"
        )
    )
    both = {"xs": [0.95, 0.96, 0.97], "yt": [0.95, 0.97, 0.95]}
    assert (
        Comparison(seeded(both))
        .answer[0]
        .startswith(
            "a=x b=s leads with val/accuracy 0.9600, 0.0033 ahead of a=y b=t, but can't be told "
            "from the other (95% interval "
        )
    )
    level = {"xs": [0.95, 0.96, 0.97], "xt": [0.96, 0.97, 0.95]}
    assert "val/accuracy 0.9600, level with b=t, but can't" in Comparison(seeded(level)).answer[0]


def test_the_second_sentence_says_what_matters_and_between_which_ends() -> None:
    grid = {
        "xs": [0.95, 0.96],
        "xt": [0.93, 0.94],
        "ys": [0.55, 0.56],
        "yt": [0.53, 0.54],
    }
    second = Comparison(seeded(grid)).answer[1]
    assert second == (
        "a matters most: it explains 100% of the variance between runs (on average 0.9450 with x, "
        "0.5450 with y)."
    )
    noise = {"xs": [0.1, 0.9], "xt": [0.9, 0.3], "ys": [0.2, 0.9], "yt": [0.8, 0.3]}
    said = Comparison(seeded(noise)).answer[1]
    assert said.startswith("The seed matters more than any setting: ")


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


def test_configurations_that_only_guess_are_named(tmp_path: Path) -> None:
    runs = []
    best = {"0.1": [0.9, 0.91], "1": [0.2, 0.12], "3": [0.1, 0.14]}  # of any epoch
    for lr, accuracies in best.items():
        for seed, accuracy in enumerate(accuracies):
            folder = tmp_path / f"{lr}_{seed}"
            folder.mkdir()
            (folder / "history.csv").write_text(f"epoch,val/accuracy\n1,{accuracy}\n2,0.1\n")
            settings = {"lr": lr, "seed": str(seed), "model.outputs": "10"}
            runs.append(made(settings, accuracy, folder=folder))
    assert Comparison(runs).explanations == {
        "C2": "1 of 2 never do better than guessing one of 10 classes",
        "C3": "it never does better than guessing one of 10 classes",
    }


def test_one_seed_has_no_interval_and_the_command_that_adds_seeds_is_shown() -> None:
    runs = [made({"lr": lr}, float(lr), overrides=[f"lr={lr}"]) for lr in ("0.1", "0.3")]
    found = Comparison(runs)
    assert found.configurations["low"].isna().all()
    assert found.configurations["p"].isna().all()
    assert found.advice is not None
    assert "no interval exists" in found.advice
    assert found.advice.endswith("python -m src.run -m lr=0.3 'seed=range(5)'")
    assert "each configuration has one seed, so this may be chance" in found.answer[0]


def test_the_command_that_adds_seeds_is_the_sweep_s_own(sweep: Path, tmp_path: Path) -> None:
    for number in ("0", "3"):
        shutil.copytree(sweep / number, tmp_path / "s" / number)
    shutil.copy(sweep / "multirun.yaml", tmp_path / "s")
    advice = Comparison.read([tmp_path / "s"]).advice
    assert advice is not None
    assert " -m outputs=" in advice
    assert " model=relu2_small lr=0.01,0.03,1e20 " in advice
    assert "'seed=range(5)'" in advice
    assert "range(3)" not in advice


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
    (tmp_path / "4" / "run.json").write_text("{")
    with pytest.raises(ConfigError, match=r"4/run\.json: not the record of a run"):
        Comparison.read([tmp_path])
    (tmp_path / "4" / "run.json").unlink()
    (tmp_path / "5" / "history.csv").write_text("epoch,val/loss\n1,x\n")
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


def test_an_offline_sweep_reaches_mlflow_later_with_its_summary(tmp_path: Path) -> None:
    sweep = ("-m", "model=relu2_small", "lr=0.01,0.1", "seed=0,1", "epochs=2")
    ended = run(tmp_path, *sweep, "tracking.offline=true")
    assert ended.code == 0, ended.err
    (folder,) = ended.outputs.glob("sweeps/*")
    assert f"python -m src.sync {folder}" in ended.out
    assert not (tmp_path / "mlflow.db").exists()
    told = [sys.executable, "-m", "src.sync", str(folder)]
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
    assert "paired over seeds" in said
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

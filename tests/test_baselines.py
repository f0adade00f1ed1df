"""The command that checks published claims, with figures that reach them and figures that miss."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from src import baselines
from src.baselines import Claim, claims, curve_claim, markdown, recipes
from src.runs.job import Curve, Reference, read_curve
from src.runs.record import Record
from src.sweep.plan import Plan
from tests.conftest import ROOT, Ended
from tests.test_run import runs, wait_for_a_run

REFERENCE = Reference(
    "somebody",
    {"val/accuracy": 0.98, "train/loss": 0.4},
    {"val/accuracy": 0.003, "train/loss": 0.05},
)


@pytest.mark.parametrize(
    ("metric", "published", "mean", "verdict"),
    [
        ("val/accuracy", 0.98, 0.9775, "as published"),
        ("val/accuracy", 0.98, 0.9825, "as published"),
        ("val/accuracy", 0.98, 0.976, "worse"),
        ("val/accuracy", 0.98, 0.99, "better"),
        ("train/loss", 0.4, 0.39, "better"),
        ("train/loss", 0.4, 0.41, "worse"),
        ("test/accuracy", None, 0.97, ""),
    ],
)
def test_a_verdict_asks_whether_ours_is_as_good(
    metric: str, published: float | None, mean: float, verdict: str
) -> None:
    assert Claim("r", metric, published, mean, 0.0, 0.003).verdict == verdict


def test_ours_is_the_mean_and_the_standard_deviation_over_the_seeds() -> None:
    metrics = [{"val/accuracy": a, "train/loss": 0.3} for a in (0.97, 0.98, 0.99)]
    accuracy, loss = claims("r", REFERENCE, metrics, "val/accuracy")
    assert (accuracy.mean, accuracy.spread, accuracy.tolerance) == pytest.approx(
        (0.98, 0.01, 0.003)
    )
    assert (loss.metric, loss.verdict) == ("train/loss", "better")
    (alone,) = claims("r", Reference("nobody", {}, {}), metrics, "val/accuracy")
    assert (alone.published, alone.verdict) == (None, "")
    assert claims("r", REFERENCE, metrics[:1], "val/accuracy")[0].spread == 0


def test_a_curve_is_compared_from_its_start_on_by_its_greatest_distance() -> None:
    curve = Curve("relu10_fullbatch.csv", "train/accuracy", 301, 0.03)
    epochs, published = (np.array(values) for values in read_curve(curve))
    ours = np.zeros((2, 501))
    at = epochs.astype(int) - 1
    ours[0, at], ours[1, at] = published + 0.03, published - 0.01
    ours[:, at[epochs < 301]] = 0  # far away, and not asked
    found = curve_claim("r", Reference("s", {}, {}, curve), ours)
    assert found is not None
    assert found.distance == pytest.approx(0.01)
    assert found.verdict == "as published"
    ours[0, at[-1]] += 0.05
    apart = curve_claim("r", Reference("s", {}, {}, curve), ours)
    assert apart is not None
    assert apart.distance == pytest.approx(0.035)
    assert apart.verdict == "worse"
    assert curve_claim("r", REFERENCE, ours) is None


def test_every_recipe_has_its_claims() -> None:
    found = recipes()
    assert {
        "openml_relu128",
        "relu100x200_minibatch",
        "sigmoid16x16_fullbatch",
        "relu10_fullbatch",
    } <= set(found)
    assert {"nielsen30", "nielsen100", "lecun300"} <= set(found)
    for reference in found.values():
        assert reference.source


def sweep(folder: Path, accuracy: float) -> None:
    """Leave in a folder what a sweep of one recipe over two seeds would."""
    jobs = [["experiment=relu10_fullbatch", f"seed={seed}"] for seed in (0, 1)]
    Plan.of("s", jobs).write(folder)
    epochs, published = read_curve(Curve("relu10_fullbatch.csv", "train/accuracy", 301, 0.03))
    curve = np.interp(range(1, 502), epochs, published)
    for k, job in enumerate(jobs):
        place = folder / str(k)
        place.mkdir()
        metrics = {"train/accuracy": 0.8846, "test/accuracy": accuracy}
        Record(
            f"{k}", job, "test/accuracy", status="FINISHED", value=accuracy, metrics=metrics
        ).write(place)
        (place / "history.csv").write_text(
            "epoch,train/accuracy,time\n"
            + "".join(f"{epoch},{a},0\n" for epoch, a in enumerate(curve, 1))
        )


@pytest.mark.slow
@pytest.mark.parametrize(("accuracy", "met"), [(0.881, True), (0.95, True), (0.80, False)])
def test_the_table_and_the_pictures_are_kept_and_one_claim_that_fails_fails_all(
    accuracy: float, met: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(tmp_path, accuracy)
    assert baselines.judge(tmp_path, {"relu10_fullbatch": recipes()["relu10_fullbatch"]}) is met
    shown = capsys.readouterr().out
    assert ("worse" in shown) is not met
    assert f"{accuracy:.4f} ± 0.0000" in shown
    table = (tmp_path / "baselines.md").read_text()
    assert table.count("relu10_fullbatch") == 3
    assert (
        "| relu10_fullbatch | train/accuracy, curve from epoch 301 | curve | 0.0000 apart at most |"
        in table
    )
    assert (tmp_path / "relu10_fullbatch.png").read_bytes().startswith(b"\x89PNG")
    json.loads((tmp_path / "0" / "result.json").read_text())


def test_the_markdown_is_a_table() -> None:
    lines = markdown([Claim("r", "val/accuracy", 0.98, 0.9812, 0.0004, 0.003)]).splitlines()
    assert lines[0] == "| recipe | metric | published | ours | tolerance | verdict |"
    assert lines[2] == "| r | val/accuracy | 0.9800 | 0.9812 ± 0.0004 | 0.0030 | as published |"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nielsen33"], "no such recipe as nielsen33; there are "),
        (["nielsen30", "--seeds", "2", "epochs=1"], "epochs=1: changes the recipe"),
        (["seed=5"], "seed=5: changes the recipe"),
        (["data.path=a,b"], "data.path=a,b: changes the recipe"),
        (["--seeds", "0"], "--seeds and --jobs must be 1 or more"),
        (["--jobs", "0"], "--seeds and --jobs must be 1 or more"),
    ],
)
def test_what_cant_be_checked_is_refused(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["baselines", *arguments])
    with pytest.raises(SystemExit) as caught:
        baselines.main()
    assert caught.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.long)],
)
def test_what_ends_the_command_ends_its_sweep_well(number: int, code: int, tmp_path: Path) -> None:
    images = tmp_path / "t.csv"
    rows = np.random.default_rng(0).integers(0, 255, (200, 784))
    images.write_text(
        "".join(f"{k % 10},{','.join(map(str, row))}\n" for k, row in enumerate(rows))
    )
    sweep = [
        "-m",
        "seed=0,1",
        "epochs=1000000",
        "batching=full",
        f"outputs={tmp_path}/o",
        "data=csv",
        f"data.path={images}",
    ]
    script = (
        "import signal, sys; from src import baselines; "
        "signal.signal(signal.SIGINT, signal.default_int_handler);"
        f"sys.exit(baselines._run({sweep!r}))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for_a_run(tmp_path / "o", 2)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert {found.info.status for found in runs(Ended(tmp_path / "o", code, "", ""))} == {"KILLED"}

"""The benchmark measures every row and writes its table. No test judges a time."""

import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from src.training.batching import Mini, Sample
from tests.benchmarks import reporting, stacks
from tests.benchmarks.measuring import Times
from tests.benchmarks.works import (
    ALONE,
    JAX,
    ONE_CORE,
    OURS,
    PEERS,
    PLAIN,
    PYTORCH,
    REQUIRED,
    SKLEARN,
    WORKS,
)
from tests.conftest import ROOT


def bench(outputs: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it as a process of its own: it holds threads, and others' libraries."""
    environment = {**os.environ, "SCIKIT_LEARN_DATA": str(outputs / "none")}
    environment.pop("SCRATCHGRID_MNIST", None)  # random images do
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks",
        "--quick",
        "--rounds",
        "1",
        "--outputs",
        str(outputs),
    ]
    return subprocess.run(
        [*command, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_every_row_is_measured_and_kept(tmp_path: Path) -> None:
    ended = bench(tmp_path, "--peers")
    assert ended.returncode == 0, ended.stderr
    found = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    table = (tmp_path / "bench.md").read_text(encoding="utf-8")
    assert [row["work"] for row in found["rows"]] == [work.name for work in WORKS]
    for row, work in zip(found["rows"], WORKS, strict=True):
        assert {OURS, PLAIN} <= set(row["microseconds"])
        assert (ALONE in row["microseconds"]) == (work.models > 1)
        assert all(len(rounds) == 1 for rounds in row["microseconds"].values())
        assert f"| {work.name} |" in table
        assert work.name in ended.stdout
    assert "random images" in found["images"]
    assert found["machine"]["cores"] >= 1
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_scikit_learn_is_measured_beside_it(tmp_path: Path) -> None:
    ended = bench(tmp_path, "--peers", SKLEARN, "--only", "784-10-10")
    assert ended.returncode == 0, ended.stderr
    (row,) = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))["rows"]
    assert SKLEARN in row["ratios"]


def test_every_required_ratio_is_of_a_row_that_there_is() -> None:
    assert set(REQUIRED) <= {work.name for work in WORKS}
    required = {who for ratios in REQUIRED.values() for who in ratios}
    assert required == {*PEERS, ALONE, ONE_CORE}


def test_arithmetic_is_counted_without_the_gradient_of_the_input() -> None:
    assert WORKS[0].flops == 2 * (2 * 784 * 128 + 3 * 128 * 10)


def test_a_ratio_is_taken_within_a_round_and_marked() -> None:
    work = WORKS[0]
    times = Times(
        {
            OURS: [1.0, 10.0, 1.0],
            PLAIN: [4.0, 40.0, 4.0],
            PYTORCH: [2.5, 25.0, 1.0],
            JAX: [1.0, 11.0, 1.1],
        }
    )
    times.threads = {OURS: 1}
    report = reporting.Report({work: times}, "images", {1: 100.0}, {}, [SKLEARN])
    assert times.ratio(PYTORCH, OURS) == pytest.approx(2.5)
    (row,) = report.rows
    assert row[-4:] == ["2.50 · 2.50× ✓ ≥ 2", "", "1.10 · 1.10× ✗ ≥ 1.15", ""]
    head: dict[str, Any] = {
        "versions": {},
        "settings": {},
        "blas": [],
        "load": None,
        "cpu": "",
        "cores": 1,
        "python": "",
    }
    report = replace(report, machine=head)
    assert report.notes[-1].startswith("Not installed: scikit-learn.")
    console = Console(file=io.StringIO(), width=200)
    report.show(console)
    assert ".[bench]" in console.file.getvalue()  # type: ignore[attr-defined]
    assert report.unmet == ["784-128-10 relu, batch 32: JAX 1.10×, required 1.15×"]


@pytest.mark.slow
def test_stacks_are_measured_beside_single_networks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stacks, "SHAPES", ((3,),))
    monkeypatch.setattr(stacks, "TOGETHER", (2,))
    monkeypatch.setattr(stacks, "BATCHINGS", {"per sample": (Sample(), 6), "batch 4": (Mini(4), 8)})
    monkeypatch.setattr(stacks, "use_at_most", lambda cores: None)  # it holds for the process
    monkeypatch.setattr(sys, "argv", ["stacks", "--optimizer", "adam"])
    monkeypatch.delenv("SCRATCHGRID_MNIST", raising=False)
    stacks.main()
    printed = capsys.readouterr().out
    for name in ("per sample", "batch 4"):
        assert f"{name}:" in printed
    assert len(re.findall(r"\d+\.\d\d · \d+\.\d\d", printed)) == 2

"""The README and the pages under docs show only commands that work."""

import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from src.api import train
from src.config import arguments
from src.config.reader import read
from src.support.paths import CONF
from tests.conftest import ROOT

# The commands of extending.md need what that page adds: tests/test_docs.py follows it.
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted({*(ROOT / "docs").glob("*.md")} - {ROOT / "docs/extending.md"}),
]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
LINES = [
    line.partition(" #")[0].strip()
    for block in re.findall(r"^```sh\n(.*?)^```", TEXT, re.S | re.M)
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip()
]
RUNS = sorted({line for line in LINES if line.startswith("python -m src.run")})
# Sweeps whose runs our own sweepers decide: they are planned.
PLANNED = re.compile(r"\+sweep=|sweep\.|samples=|plan=true|hydra/sweeper=|batching\.size=16,64")
LONG = re.compile(r"debug=(overfit|fast)|card .*seed")
SWEEPS = [line for line in RUNS if " -m " in line.removeprefix("python -m")]
MAKES = sorted(
    {line.split()[1] for line in LINES if line.startswith("make")}
    | set(re.findall(r"`make ([\w-]+)[ `]", TEXT))
)
README = PAGES[0].read_text(encoding="utf-8")
PYTHON = [
    page.name + ":" + block
    for page in PAGES
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M)
]
KNOWN = re.compile(
    r"python -m src\.(run|pictures|compare|sync)( |$)|make \w+|\. \.venv/bin/activate$"
    r"|\.venv/bin/(pre-commit install|python -m pip install )"
    r"|pip install \"\.\[\w+\]\"$|export (DASK|MLFLOW)_\w+=|dask scheduler$"
)


def cases(examples: Iterable[str]) -> list[Any]:
    """Return the cases of a test, of which those that the README does not show are slow.

    So are some that take long and are much like others.
    """
    return [
        example
        if example.removeprefix("README.md:") in README and not LONG.search(example)
        else pytest.param(example, marks=pytest.mark.slow)
        for example in examples
    ]


def overrides(line: str) -> list[str]:
    """Return the settings of a command, without Hydra's own options."""
    return [word for word in shlex.split(line)[3:] if "=" in word and not word.startswith("hydra")]


def jobs(line: str) -> list[list[str]]:
    """Return the overrides of every run that a command makes."""
    parsed = OverridesParser.create().parse_overrides(overrides(line))
    values = (
        [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
        if override.is_sweep_override()
        else [str(override.input_line)]
        for override in parsed
    )
    return [list(job) for job in itertools.product(*values)]


def alone(line: str) -> bool:
    """Tell whether a command is one run on data that every copy has."""
    needs_a_file = re.search(r"data=(?!digits)|data\.path|\.npz|experiment=", line)
    return line not in SWEEPS and not needs_a_file and not shows_only(line)


def shows_only(line: str) -> bool:
    """Tell whether a command shows or checks something, and trains little or nothing."""
    return "--help" in line or "--cfg" in line or "debug=" in line


def test_something_is_shown() -> None:
    assert len(RUNS) >= 25
    assert len(SWEEPS) >= 5
    assert sum(map(alone, RUNS)) >= 8
    assert len(PYTHON) >= 3
    assert {"run", "test", "test-all", "ui", "help"} <= set(MAKES)


def test_every_command_is_of_a_kind_that_is_tested() -> None:
    assert [line for line in LINES if not KNOWN.match(line)] == []


@pytest.mark.parametrize("line", cases(line for line in SWEEPS if PLANNED.search(line)))
def test_every_sweep_of_ours_is_planned(line: str, tmp_path: Path) -> None:
    asked = [word for word in shlex.split(line)[1:] if not word.startswith(("samples=", "plan="))]
    few = [] if "sweep.zip" in line or "batching.size" in line else ["samples=2"]
    shown = [] if "optuna" in line else ["plan=true"]
    short = [] if shown else ["debug=fast"]
    command = [sys.executable, *asked, *few, *shown, *short, f"outputs={tmp_path}"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout


@pytest.mark.parametrize("line", cases(line for line in RUNS if not PLANNED.search(line)))
def test_every_run_composes(line: str) -> None:
    if line in SWEEPS:
        assert len(jobs(line)) > 1
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for job in jobs(line)[:18]:
            read(compose("config", arguments.overrides(job)))


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One MLflow store for all: to make one takes longer than to train."""
    folder = tmp_path_factory.mktemp("working") / "outputs"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("line", cases(filter(alone, RUNS)))
def test_every_run_on_the_bundled_data_trains(line: str, outputs: Path) -> None:
    run = train(*overrides(line), "epochs=2", f"outputs={outputs}", show=False)
    assert len(run.history) == 2


@pytest.mark.parametrize("line", cases(filter(shows_only, RUNS)))
def test_every_command_that_checks_or_shows_something_succeeds(line: str, tmp_path: Path) -> None:
    command = [sys.executable, *shlex.split(line)[1:]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout


@pytest.mark.parametrize("code", cases(PYTHON))
def test_every_python_example_runs(
    code: str, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(outputs.parent)  # where the examples find the folder "outputs"
    names = {"images": np.zeros((5, 784), np.uint8)}
    exec(compile(code.partition(":")[2], code.partition(":")[0], "exec"), names)


@pytest.mark.parametrize("line", [line for line in LINES if "src.pictures" in line])
def test_the_pictures_of_a_run_are_drawn(line: str, outputs: Path) -> None:
    run = train("epochs=1", f"outputs={outputs}", show=False)
    command = [sys.executable, *shlex.split(line.replace("outputs/runs/RUN", str(run.folder)))[1:]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    drawn = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert drawn.returncode == 0, drawn.stderr


@pytest.mark.parametrize("target", MAKES)
def test_every_make_target_shown_is_there(target: str) -> None:
    assert re.search(rf"^{target}:.*## ", (ROOT / "Makefile").read_text(), re.M)

"""The pages under docs are true: examples run, the reference is complete, links lead somewhere."""

import importlib
import json
import operator
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from docs import generate
from src.runs.job import METRICS
from src.support.paths import CONF
from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
EXTENDING = TEXTS["docs/extending.md"]
SECTIONS = {
    part.splitlines()[0]: part
    for part in EXTENDING.split("\n## ")[1:]
    if "```sh" in part and not part.startswith("Add a dataset")  # tests/test_data.py follows it
}

FILES = re.compile(r"^(Append to|Create) `([^`]+)`:\n\n```\w+\n(.*?)^```", re.M | re.S)
COMMANDS = re.compile(r"^```sh\n(.*?)^```", re.M | re.S)


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of everything that a run needs."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("src", "conf", "hydra_plugins"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    python, *arguments = shlex.split(command)
    assert python == "python"
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("title", SECTIONS)
def test_following_the_page_to_the_letter_adds_an_option_that_learns(
    title: str, project: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "project"
    shutil.copytree(project, folder)
    steps = FILES.findall(SECTIONS[title])
    assert len(steps) >= 2
    for what, name, content in steps:
        path = folder / name
        assert path.exists() == (what == "Append to"), name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(f"\n\n{content}" if what == "Append to" else content)

    commands = [line for block in COMMANDS.findall(SECTIONS[title]) for line in block.splitlines()]
    for command in commands:
        ended = run(command, folder)
        assert ended.returncode == 0, f"{command}\n{ended.stdout}{ended.stderr}"
    results = [json.loads(path.read_text()) for path in folder.glob("outputs/runs/*/result.json")]
    values = [r["value"] for r in results if "debug=gradcheck" not in r["overrides"]]
    assert len(values) == sum("debug=gradcheck" not in command for command in commands)
    assert min(values) > 0.85


def test_the_reference_is_what_make_docs_writes() -> None:
    assert generate.PAGE.read_text(encoding="utf-8") == generate.reference(), "run make docs"


def test_every_choice_is_in_the_reference() -> None:
    folders = {path.parent.relative_to(CONF) for path in CONF.rglob("*.yaml")}
    internal = {"hydra/help", "hydra/job_logging", "."}
    assert {folder.as_posix() for folder in folders} - internal == set(generate.CHOICES)


@pytest.mark.parametrize("group", generate.CHOICES)
def test_every_option_and_setting_has_a_meaning(group: str) -> None:
    options = generate.options(group)
    meanings: dict[str, set[str]] = {}
    for option in options:
        assert option.meaning, option.name
        for setting in option.settings:
            meanings.setdefault(setting.key, set()).update(filter(None, [setting.meaning]))
    assert [key for key, found in meanings.items() if len(found) != 1] == []


def test_every_root_setting_has_a_meaning() -> None:
    settings = generate.root_settings()
    assert {"lr", "epochs", "seed", "metric"} <= {setting.key for setting in settings}
    assert [setting.key for setting in settings if not setting.meaning] == []


def test_the_reference_knows_every_metric() -> None:
    assert [
        metric for metric in METRICS if f"| `{metric}` |" not in TEXTS["docs/reference.md"]
    ] == []


@pytest.mark.slow
def test_the_reference_names_the_files_that_a_run_leaves(project: Path, tmp_path: Path) -> None:
    command = f"python -m src.run epochs=2 diagnose=1 outputs={shlex.quote(str(tmp_path))}"
    ended = run(command, project)
    assert ended.returncode == 0, ended.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    left = {path.name + ("/" if path.is_dir() else "") for path in folder.iterdir()}
    table = TEXTS["docs/reference.md"].partition("## Files")[2].partition("A sweep's folder")[0]
    named = set(re.findall(r"`([.\w]+(?:\.\w+|/))`", table))
    inside = {"config.yaml", "overrides.yaml", "hydra.yaml"}  # of .hydra
    until_the_end = {"checkpoint.previous.npz"}
    assert left == named - inside - until_the_end


def test_the_reference_names_every_environment_variable_that_is_meant_for_users() -> None:
    sources = [*(ROOT / "src").rglob("*.py"), *(ROOT / "conf").rglob("*.yaml")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    asked = set(re.findall(r"oc\.env:(\w+)|environ\.get\(\"(\w+)\"|\"(\w+)\" in os\.environ", text))
    names = {next(filter(None, groups)) for groups in asked} - {"PYTHONPATH"}  # Python's own
    table = TEXTS["docs/reference.md"].partition("## Environment variables")[2]
    assert {name for name in names if f"`{name}`" not in table} == set()


@pytest.mark.parametrize("page", TEXTS)
def test_every_link_leads_somewhere(page: str) -> None:
    folder = (ROOT / page).parent
    for target, anchor in re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]+))?\)", TEXTS[page]):
        path = (folder / target).resolve() if target else ROOT / page
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
            assert anchor in map(_anchor, headings), f"{target}#{anchor}"


def _anchor(heading: str) -> str:
    """Return the anchor that Markdown viewers give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", TEXTS)
def test_every_path_named_in_the_text_exists(page: str) -> None:
    prose = re.sub(r"^```.*?^```", "", TEXTS[page], flags=re.M | re.S)
    named = re.findall(r"`((?:src|conf|docs|tests|hydra_plugins)/[\w/.]+)`", prose)
    created = {name for _, name, _ in FILES.findall(TEXTS[page])}
    assert [name for name in named if not (ROOT / name).exists() and name not in created] == []


NAMED = re.findall(r"`([\w.]+)` in\s+\[`[^`]+`\]\(\.\./([^)]+)\)", TEXTS["docs/reading.md"])


@pytest.mark.parametrize(("name", "path"), NAMED)
def test_the_reading_guide_names_what_is_there(name: str, path: str) -> None:
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    assert operator.attrgetter(name)(module).__module__ == module.__name__


def test_the_reading_guide_answers_questions() -> None:
    assert len(NAMED) >= 8

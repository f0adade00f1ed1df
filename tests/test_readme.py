"""The README shows only commands that are there and compose."""

import re
import shlex

import pytest
from hydra import compose, initialize_config_dir

from src.config.reader import read
from src.support.paths import CONF
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.partition("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.S)
    for line in block.splitlines()
]
RUNS = sorted({line for line in COMMANDS if line.startswith("python -m src.run")})
MAKES = sorted(
    {line.split()[1] for line in COMMANDS if line.startswith("make")}
    | set(re.findall(r"`make (\w+)`", README))
)


@pytest.mark.parametrize("line", RUNS)
def test_every_run_shown_composes(line: str) -> None:
    overrides = [word for word in shlex.split(line)[3:] if "=" in word]
    first = [
        re.sub(
            r"^([^=]+)=(range\((\d+).*|([^\[,]+),.*)$", lambda m: f"{m[1]}={m[4] or 0}", override
        )
        for override in overrides
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        read(compose("config", first))


@pytest.mark.parametrize("target", MAKES)
def test_every_make_target_shown_is_there(target: str) -> None:
    assert re.search(rf"^{target}:.*## ", (ROOT / "Makefile").read_text(), re.M)


def test_something_is_shown() -> None:
    assert len(RUNS) >= 10
    assert {"run", "test", "ui", "help"} <= set(MAKES)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!http)([^)#]+)\)", README))))
def test_every_link_into_the_project_leads_somewhere(link: str) -> None:
    assert (ROOT / link).exists()

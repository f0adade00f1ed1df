"""Imports point one way, and each heavy library is known to one place."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import ROOT

# From the bottom up: a package imports only itself and those before it; entry points import packages.
PACKAGES = [
    "support",
    "nn",
    "data",
    "training",
    "tracking",
    "experiment",
    "config",
    "sweep",
    "terminal",
]
ENTRY_POINTS = {"run", "ui", "baselines", "api", "estimator", "pictures"}
LIBRARIES = {
    "mlflow": {"tracking"},
    "hydra": {"run", "config", "api"},
    "omegaconf": {"run", "config", "ui", "api", "sweep"},
    "matplotlib": {"experiment"},
    "rich": {"terminal"},
    "sklearn": {"data", "estimator"},
}


def name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")


SOURCES = {name(path): path for path in sorted((ROOT / "src").rglob("*.py"))}
SOURCES.pop("__init__")


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= (
                {f"{node.module}.{alias.name}" for alias in node.names}
                if node.module == "src"
                else {node.module}
            )
    return found


def package(module: str) -> str:
    return module.split(".")[0]


def graph() -> dict[str, set[str]]:
    """For each module of ours the modules of ours that it imports, wherever in the file."""
    found = {}
    for module, path in SOURCES.items():
        ours = {name.removeprefix("src.") for name in imports(path) if name.startswith("src.")}
        found[module] = {name for name in ours if name in SOURCES} - {module}
    return found


def test_the_root_holds_entry_points_and_packages_only() -> None:
    assert {package(module) for module in SOURCES} == {*PACKAGES, *ENTRY_POINTS}


def test_packages_import_one_way() -> None:
    for module, imported in graph().items():
        if (own := package(module)) in PACKAGES:
            allowed = PACKAGES[: PACKAGES.index(own) + 1]
            assert {package(name) for name in imported} <= set(allowed), module


def test_modules_import_one_way() -> None:
    TopologicalSorter(graph()).prepare()  # raises CycleError, which names the modules


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_known_to_its_places_alone(library: str) -> None:
    users = {
        package(module)
        for module, path in SOURCES.items()
        if any(found.split(".")[0] == library for found in imports(path))
    }
    assert users == LIBRARIES[library]


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"], ["lr=0"]])
def test_help_and_a_wrong_configuration_never_wait_for_the_heavy_libraries(
    arguments: list[str],
) -> None:
    script = (
        "import sys; from src.run import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'mlflow', 'matplotlib', 'sklearn', 'pandas', 'scipy'} & set(sys.modules); assert not heavy, heavy"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


def test_every_module_says_in_one_sentence_why_it_exists() -> None:
    for path in SOURCES.values():
        first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()
        assert first, path
        assert first[0].rstrip().endswith((".", "``")), path

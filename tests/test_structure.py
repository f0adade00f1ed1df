"""Imports point one way, and each heavy library is known to one place."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

# From the bottom up: a module imports only what stands above it here.
ORDER = [
    "errors", "archives", "plain", "randomness", "threads", "interrupts", "nn.layers", "nn.losses", "nn.network", "nn.weights",
    "nn.initializers", "nn.gradcheck", "batching", "optimizers", "watching", "schedules", "stopping",
    "data.splitting", "data.dataset", "data.digits", "data.idx", "data.csv", "data.npz", "data.mnist", "data",
    "diagnostics", "engines.base", "engines.plain", "engines.inplace", "engines.buffered", "engines.chunked",
    "engines.deferred", "engines.stack", "engines.batched_stack", "engines.deferred_stack", "engines.choice",
    "training", "experiment", "predictions", "tracking.links", "tracking.view", "tracking.store",
    "tracking.provenance", "tracking.tracker", "plots", "config", "estimator", "preflight", "runner", "sweep.plan",
    "origin", "sweep.groups", "sweep.together", "sweep.workers", "sweep.sharing", "report", "composition", "explain",
    "warm", "run", "api", "baselines", "ui",
]  # fmt: skip
PACKAGES = ["nn", "engines", "sweep", "tracking"]  # their __init__ imports nothing
ELSEWHERE = {"serving"}  # stored with each model and run where it is loaded
LIBRARIES = {
    "mlflow": {"tracking.store", "tracking.tracker", "serving"},
    "hydra": {"run", "explain", "composition", "api"},
    "omegaconf": {"run", "config", "preflight", "explain", "ui", "composition", "api", "origin"},
    "matplotlib": {"plots"},
    "rich": {"report"},
    "sklearn": {"data.digits", "data.mnist", "data.splitting", "estimator"},
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
            found |= {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "src" else {node.module}
    return found


def test_every_module_has_its_place_in_the_order() -> None:
    assert set(SOURCES) == {*ORDER, *PACKAGES, *ELSEWHERE}


@pytest.mark.parametrize("module", ORDER)
def test_imports_point_one_way(module: str) -> None:
    above = {"src", f"src.{module}", *(f"src.{earlier}" for earlier in ORDER[: ORDER.index(module)])}
    ours = {found for found in imports(SOURCES[module]) if found.split(".")[0] == "src"}
    assert ours <= above


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_known_to_its_places_alone(library: str) -> None:
    users = {
        module for module, path in SOURCES.items() if any(found.split(".")[0] == library for found in imports(path))
    }
    assert users == LIBRARIES[library]


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"], ["lr=0"]])
def test_help_and_a_wrong_configuration_never_wait_for_the_heavy_libraries(arguments: list[str]) -> None:
    script = (
        "import sys; from src.run import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'mlflow', 'matplotlib', 'sklearn', 'pandas', 'scipy'} & set(sys.modules); assert not heavy, heavy"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_every_module_says_in_one_sentence_why_it_exists() -> None:
    for path in SOURCES.values():
        first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()
        assert first, path
        assert first[0].rstrip().endswith((".", "``")), path

"""Imports point one way, each library has one place, and the text keeps to the project's style."""

import ast
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import ROOT

# From the bottom up: a package imports only itself and those before it.
PACKAGES = [
    "support",
    "nn",
    "data",
    "training",
    "runs",
    "tracking",
    "config",
    "comparison",
    "terminal",
    "sweep",
]
ENTRY_POINTS = {
    "run",
    "server",
    "sync",
    "ui",
    "baselines",
    "api",
    "estimator",
    "pictures",
    "compare",
}
LIBRARIES = {
    "mlflow": {"tracking"},
    "hydra": {"run", "config", "api", "sweep"},
    "omegaconf": {"run", "sync", "config", "ui", "api", "sweep"},
    "dask": {"sweep"},
    "distributed": {"sweep"},
    "matplotlib": {"runs"},
    "plotly": {"comparison"},
    "jinja2": {"comparison"},
    "rich": {"terminal"},
    "sklearn": {"comparison", "data", "estimator"},
    "pandas": {"comparison"},
}


def name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")


SOURCES = {name(path): path for path in sorted((ROOT / "src").rglob("*.py"))}
SOURCES.pop("__init__")


def imports(path: Path) -> set[str]:
    return imports_of(ast.parse(path.read_text(encoding="utf-8")))


def imports_of(tree: ast.AST) -> set[str]:
    """Return the modules that are imported anywhere in a file or a function."""
    found: set[str] = set()
    for node in ast.walk(tree):
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
    """Return for each module of ours the modules of ours that it imports, anywhere in the file."""
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


# Modules that bring a library which takes long to import, or may not be installed: they alone may
# be imported in a function.
LATE = {
    "comparison.from_mlflow",
    "comparison.images",
    "comparison.wording",
    "runs.pictures.folder",
    "runs.pictures.images",
    "runs.pictures.style",
    "runs.tracking",
    "support.errors",
    "support.masking",
    "sweep.clusters",
    "sweep.dask_executor",
    "sweep.dask_worker",
    "sweep.ending",
    "sweep.study",
    "tracking.kept_run",
    "tracking.mlflow_internals",
    "tracking.schema",
    "tracking.store",
    "training.engines.choice",
}


def test_imports_stand_at_the_top_unless_they_are_slow() -> None:
    late: set[str] = set()
    for module, path in SOURCES.items():
        if package(module) in PACKAGES:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef):
                    late |= {name for name in imports_of(node) if name.startswith("src.")}
    assert {name.removeprefix("src.") for name in late} == LATE


def test_plugins_are_shims() -> None:
    for path in (ROOT / "hydra_plugins").rglob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 100
        assert not {name for name in imports(path) if name.startswith("src")}, path


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
        "heavy = {'mlflow', 'matplotlib', 'sklearn', 'pandas', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


def test_a_run_on_the_digits_is_prepared_without_scikit_learn() -> None:
    script = (
        "import sys\n"
        "from src.config.composition import compose, composer\n"
        "from src.config.preflight import check\n"
        "with composer(): config = compose([])\n"
        "job, _ = check(config)\n"
        "assert job.experiment.data.name == 'digits'\n"
        "assert job.experiment.data.split.stratify\n"
        "assert 'sklearn' not in sys.modules"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_every_module_says_in_one_sentence_why_it_exists() -> None:
    for path in SOURCES.values():
        first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()
        assert first, path
        assert first[0].rstrip().endswith((".", "``")), path


CODE = sorted(
    path
    for folder in ("src", "hydra_plugins", "docs", "locks")
    for path in (ROOT / folder).rglob("*.py")
)


def test_no_line_of_code_is_over_100_characters() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in CODE
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(re.sub(r"  # (type: ignore|noqa).*", "", line)) > 100
    ]
    assert not long, "\n".join(long)


Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def undocumented(tree: ast.Module | ast.ClassDef, place: str) -> Iterator[str]:
    """Yield the public definitions without a docstring, each by its dotted name."""
    for node in tree.body:
        if not isinstance(node, Definition) or node.name.startswith("_"):
            continue
        if any("overload" in ast.dump(decorator) for decorator in node.decorator_list):
            continue
        if ast.get_docstring(node) is None:
            yield f"{place}.{node.name}"
        if isinstance(node, ast.ClassDef):
            yield from undocumented(node, f"{place}.{node.name}")


def overrides(name: str) -> bool:
    """Tell whether a method is declared, and so documented, in a base of its class."""
    owner = pkgutil.resolve_name(name.rpartition(".")[0])
    bases = owner.__mro__[1:] if isinstance(owner, type) else ()
    return any(hasattr(base, name.rpartition(".")[2]) for base in bases)


@pytest.mark.parametrize("module", SOURCES)
def test_everything_public_has_a_docstring(module: str) -> None:
    tree = ast.parse(SOURCES[module].read_text(encoding="utf-8"))
    missing = [name for name in undocumented(tree, f"src.{module}") if not overrides(name)]
    assert missing == []


# What the project once wrote, and what it writes instead.
UNWANTED = {
    r"\b[Cc]ourses?\b": "training run",
    r"\blanes?\b": "order group, partial sums",
    r"\btwins?\b": "in-place activation",
    r"\bremembers?\b|\bremembered\b": "buffers, optimizer state",
    r"\bwant of\b": "because … is missing",
    r"\bcan't be had\b|\bcould not be had\b": "is unreachable, can't be opened",
    r"\bwhich is nothing\b": "is empty",
    r"\bis no (number|list|file|folder|port|choice)\b": "is not a …",
    r"\b(must be|number or) a text\b": "a string",
    r"\bwants quotes\b": "quote the value",
    r"\blacks its\b": "is missing",
    r"(?<!goal )\bis to be(at)?\b|\bare to be\b": "the goal is, must be",
    r"[\d}] %(?![\w(])": "95%, without a space",
    r"\b(a|an|one) (class|dict|file|folder|line|number|process|record|row|tuple) an? \w": "per",
}
TEXTS = [
    *(path for path in CODE if path.relative_to(ROOT).parts[0] in ("src", "hydra_plugins", "docs")),
    *(ROOT / "conf").rglob("*.yaml"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile")),
]


@pytest.mark.parametrize("phrase", UNWANTED)
def test_unwanted_phrases_do_not_come_back(phrase: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in TEXTS
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(phrase, line)
    ]
    assert not found, "\n".join([f"write: {UNWANTED[phrase]}", *found])

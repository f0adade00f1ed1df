"""``make mutants``: try a random sample of mutants and report the share that a test finds.

make mutants                                       # 400 of all mutants, stratified by file
make mutants ARGS="--sample 0 nn/losses.py"        # every mutant of one file
"""

import argparse
import ast
import importlib.abc
import importlib.util
import multiprocessing
import os
import random
import resource
import signal
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from types import ModuleType
from typing import cast

from tests.mutation.mutants import Mutant, mutants, mutated

ROOT = Path(__file__).parents[2]
_FORK = multiprocessing.get_context("fork")

_ENGINES = ["equivalence", "training"]
# The tests that a fault in a file should fail, the quickest first.
TESTS = {
    "nn/layers.py": ["nn", "equivalence"],
    "nn/losses.py": ["nn", "equivalence"],
    "nn/network.py": ["nn"],
    "nn/initializers.py": ["initializers"],
    "nn/weights.py": ["initializers"],
    "nn/gradcheck.py": ["gradcheck"],
    "data/splitting.py": ["splitting", "data"],
    "experiment/predictions.py": ["predictions"],
    "training/batching.py": ["batching"],
    "training/metric_watch.py": ["schedules", "stopping"],
    "training/loop.py": ["training", "equivalence"],
    "training/engines/choice.py": ["engines"],
    "training/optimizers.py": ["optimizers", "equivalence"],
    "training/schedules.py": ["schedules"],
    "training/scoring.py": ["training", "equivalence"],
    "training/stopping.py": ["stopping"],
    "training/training_run.py": ["training", "stopping", "equivalence", "diagnostics"],
}


def tests_of(file: str) -> list[str]:
    """Return the test files that judge the mutants of a file under ``src``."""
    names = TESTS.get(file, _ENGINES)
    paths = [ROOT / "tests" / f"test_{name}.py" for name in names]
    return [str(path) for path in paths if path.exists()]


def judged() -> list[str]:
    """Return every file whose mutants are tried: the mathematics and the training."""
    engines = (ROOT / "src" / "training" / "engines").glob("*.py")
    names = sorted(path.relative_to(ROOT / "src").as_posix() for path in engines)
    others = [name for name in names if name not in TESTS and not name.endswith("__init__.py")]
    return [*TESTS, *others]


def sample(files: Sequence[str], size: int, seed: int) -> list[tuple[str, Mutant]]:
    """Draw mutants of every file in proportion to how many it has; all of them where size is 0."""
    each = {file: mutants(_source(file)) for file in files}
    total = sum(map(len, each.values()))
    chosen: list[tuple[str, Mutant]] = []
    for file, found in each.items():
        count = round(size * len(found) / total) if 0 < size < total else len(found)
        picked = random.Random(f"{seed} {file}").sample(range(len(found)), count)
        chosen += [(file, found[k]) for k in sorted(picked)]
    return chosen


def _source(file: str) -> str:
    return (ROOT / "src" / file).read_text("utf-8")


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the mutant where its module is imported."""

    def __init__(self, file: str, tree: ast.Module) -> None:
        self.name = ".".join(("src", *Path(file).with_suffix("").parts))
        self.code = compile(tree, str(ROOT / "src" / file), "exec")

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return importlib.util.spec_from_loader(name, self) if name == self.name else None

    def exec_module(self, module: ModuleType) -> None:
        exec(self.code, module.__dict__)


def _judge(file: str, mutant: Mutant | None, tests: list[str], seconds: int) -> None:
    """Run the tests of a mutant, or of the code as it is, and exit with pytest's code."""
    import pytest
    from hypothesis import Phase, settings

    # A loop that never ends counts as found, and so does a deadlock. The limit is processor time,
    # because a busy machine must not find a mutant.
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    signal.alarm(20 * seconds)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    settings.register_profile(
        "mutants",
        database=None,
        deadline=None,
        derandomize=True,
        max_examples=30,
        phases=[Phase.explicit, Phase.generate],
    )
    if mutant:
        sys.meta_path.insert(0, _Finder(file, mutated(_source(file), mutant.number)))
    arguments = [
        "-x",
        "-q",
        "--assert=plain",
        "-p",
        "no:cacheprovider",
        "--hypothesis-profile=mutants",
    ]
    code = 1
    try:
        code = int(pytest.main([*arguments, *tests]))
    finally:
        os._exit(code)


def _run(
    chosen: Sequence[tuple[str, Mutant]], jobs: int, seconds: int
) -> Iterator[tuple[str, Mutant, bool]]:
    """Try the mutants and yield each, and whether a test found it."""
    waiting = list(reversed(chosen))
    running: dict[int, tuple[ForkProcess, str, Mutant]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            file, mutant = waiting.pop()
            arguments = (file, mutant, tests_of(file), seconds)
            process = _FORK.Process(target=_judge, args=arguments)
            process.start()
            running[process.sentinel] = (process, file, mutant)
        for sentinel in wait(list(running)):
            process, file, mutant = running.pop(cast(int, sentinel))
            process.join()
            yield file, mutant, process.exitcode != 0


def main() -> None:
    """Parse the arguments, try the mutants and print the table."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("files", nargs="*", help="under src; all of the mathematics by default")
    parser.add_argument("--sample", type=int, default=400, help="how many mutants; 0 for all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=200, help="processor time for one mutant")
    given = parser.parse_args()

    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    import sklearn.metrics
    import sklearn.model_selection  # noqa: F401 (what every child would import again)

    files = given.files or judged()
    for tests in {tuple(tests_of(file)) for file in files}:
        unchanged = _FORK.Process(target=_judge, args=("", None, list(tests), given.seconds))
        unchanged.start()
        unchanged.join()
        if unchanged.exitcode:
            parser.error(f"{' '.join(tests)} fail without a mutant: make them pass first")

    chosen = sample(files, given.sample, given.seed)
    random.Random(given.seed).shuffle(chosen)  # so that a part of the run is a fair sample, too
    tried: list[tuple[str, Mutant, bool]] = []
    try:
        for file, mutant, killed in _run(chosen, given.jobs, given.seconds):
            tried.append((file, mutant, killed))
            if not killed:
                print(f"[{len(tried)}/{len(chosen)}] survived: {file} {mutant}", flush=True)
    except KeyboardInterrupt:
        print(f"stopped after {len(tried)} of {len(chosen)} mutants")
    _report(files, tried)


def _report(files: Sequence[str], tried: Sequence[tuple[str, Mutant, bool]]) -> None:
    """Print how many mutants of each file were killed, and the share with its interval."""
    from scipy.stats import binomtest

    print(f"\n{'file':40} mutants  killed")
    for file in files:
        found = [killed for name, _, killed in tried if name == file]
        print(f"{file:40} {len(found):7}  {sum(found):6}")
    found = [killed for _, _, killed in tried]
    share = binomtest(sum(found), len(found)).proportion_ci(method="wilson")
    print(
        f"{'all':40} {len(found):7}  {sum(found):6}  {sum(found) / len(found):.1%}, "
        f"95% interval {share.low:.1%} to {share.high:.1%}"
    )


if __name__ == "__main__":
    main()

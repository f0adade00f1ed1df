"""``make mutants``: try a random sample of mutants and report the share that a test finds.

make mutants                                       # 60 of each package
make mutants ARGS="--sample 100 sweep tracking"    # 100 of each of these two
make mutants ARGS="--sample 0 nn/losses.py"        # every mutant of one file
make mutants ARGS="nn/losses.py:7 nn/losses.py:31" # survivors again, after a test was added
"""

import argparse
import ast
import contextlib
import importlib.abc
import importlib.util
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec
from multiprocessing.context import ForkProcess
from pathlib import Path
from types import ModuleType

from tests.mutation.mutants import Mutant, mutants, mutated

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
_FORK = multiprocessing.get_context("fork")

_ENGINES = ["equivalence", "training"]
# Those of test_compare that start no process.
_COMPARED = [
    f"compare::test_{name}"
    for name in (
        "what_a_choice_implies_is_no_column_and_what_was_typed_is_one",
        "another_division_of_the_data_is_a_replicate_and_other_data_is_not",
        "a_configuration_that_diverges_at_times_does_not_lead",
        "the_second_sentence_says_what_matters_and_between_which_ends",
        "a_setting_that_varies_alone_is_not_said_to_matter_most",
        "noise_is_not_said_to_matter",
        "after_halving_all_runs_are_compared_at_the_last_epoch_that_they_reached",
        "a_run_that_restores_its_best_weights_counts_with_the_first_best_epoch",
        "seeds_of_a_division_count_as_one_and_equal_divisions_as_one",
        "a_faster_configuration_that_ties_with_the_best_is_named",
        "configurations_that_end_at_chance_are_named_with_the_reason",
        "a_loss_that_still_falls_is_measured_from_that_of_a_guess",
        "the_loss_of_a_guess_is_that_of_equal_outputs",
        "no_reason_is_given_for_being_behind_where_a_configuration_is_not",
        "the_command_adds_four_seeds_to_what_has_one_and_to_nothing_else",
        "no_command_is_shown_that_would_add_something_else",
    )
]
# The tests that a fault in a file or a folder of src should fail, the quickest first: the names of
# test files, which may be patterns, or of single tests. The longest place counts. A mutant is in
# the process of the tests only: those that start other processes find nothing, and cost time.
TESTS = {
    "comparison": ["wording", "scores", "*comparison_statistics", *_COMPARED, "sentences"],
    "comparison/from_mlflow.py": ["compare"],
    "comparison/images.py": ["compare"],
    "comparison/kept.py": ["compare"],
    "comparison/provenance.py": ["compare"],
    "comparison/summary.py": ["compare"],
    "data/splitting.py": ["splitting", "data"],
    "runs/checkpoints.py": ["checkpoint"],
    "runs/predictions.py": ["predictions"],
    "runs/record.py": ["unfinished_jobs"],
    "runs/recorder.py": ["stack_runs"],
    "runs/tracking.py": ["store_rules"],
    "support/masking.py": ["store_rules"],
    "nn/layers.py": ["nn", "equivalence"],
    "nn/losses.py": ["nn", "equivalence"],
    "nn/network.py": ["nn"],
    "nn/initializers.py": ["initializers"],
    "nn/weights.py": ["initializers"],
    "nn/gradcheck.py": ["gradcheck"],
    "sweep/away.py": ["sweep_parts"],
    "sweep/calibration.py": ["sweep_parts"],
    "sweep/company.py": ["stack_resume"],
    "sweep/convergence.py": ["unfinished_jobs"],
    "sweep/executors.py": ["local_workers"],
    "sweep/grouping.py": ["grouping"],
    "sweep/jobs.py": ["sweep_parts"],
    "sweep/plan.py": ["unfinished_jobs"],
    "sweep/pruning.py": ["sweep_parts", "unfinished_jobs"],
    "sweep/run_context.py": ["sweep_parts"],
    "sweep/sampling.py": ["sweep_parts", "sampling::test_draws_follow_their_distribution"],
    "sweep/sharing.py": ["stacked::test_shared_data_is_the_data_in_arrays_of_numpy_s_own"],
    "sweep/stack.py": ["stack_runs"],
    "sweep/study.py": [
        "study::test_a_study_is_continued_from_its_database",
        "study::test_trials_are_overrides_and_a_run_that_failed_counts_as_worst",
        "study::test_the_pruner_ends_trials_that_are_worse_than_those_before",
        "study::test_trials_that_did_not_run_to_an_end_are_no_part_of_the_search",
    ],
    "tracking/errors.py": ["store_rules"],
    "tracking/fetch.py": ["mlflow_store"],
    "tracking/kept_run.py": ["mlflow_store"],
    "tracking/links.py": [
        "sweep::test_links_lead_to_the_store_s_own_server_and_never_show_a_password",
        "mlflow_store",
    ],
    "tracking/mirror.py": ["told"],
    "tracking/model.py": ["mlflow_store", "upload"],
    "tracking/schema.py": ["mlflow_store"],
    "tracking/search.py": ["mlflow_store"],
    "tracking/served_model.py": ["upload"],
    "tracking/store.py": ["mlflow_store"],
    "tracking/summary.py": ["told"],
    "tracking/told.py": ["told"],
    "tracking/upload.py": ["upload"],
    "tracking/view.py": ["mlflow_store"],
    "training/batching.py": ["batching"],
    "training/engines": _ENGINES,
    "training/engines/choice.py": ["engines"],
    "training/loop.py": _ENGINES[::-1],
    "training/metric_watch.py": ["schedules", "stopping"],
    "training/optimizers.py": ["optimizers", "equivalence"],
    "training/schedules.py": ["schedules"],
    "training/scoring.py": _ENGINES[::-1],
    "training/stopping.py": ["stopping"],
    "training/training_run.py": ["training", "stopping", "equivalence", "diagnostics"],
}


def tests_of(file: str) -> list[str]:
    """Return the tests that judge the mutants of a file under ``src``, as pytest names them."""
    places = [place for place in TESTS if file == place or file.startswith(f"{place}/")]
    found = []
    for name in TESTS[max(places, key=len)] if places else ():
        pattern, _, test = name.partition("::")
        paths = sorted((ROOT / "tests").glob(f"test_{pattern}.py"))
        found += [f"{path}::{test}" if test else str(path) for path in paths]
    return list(dict.fromkeys(found))


def judged(places: Iterable[str]) -> list[str]:
    """Return the files under ``src`` at or below these places that have tests in ``TESTS``."""
    found: list[Path] = []
    for path in map(SOURCE.joinpath, places):
        found += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    files = dict.fromkeys(path.relative_to(SOURCE).as_posix() for path in found)
    return [file for file in files if tests_of(file) and not file.endswith("__init__.py")]


def sample(files: Sequence[str], size: int, seed: int) -> list[tuple[str, Mutant]]:
    """Draw ``size`` mutants of each package; all of them where size is 0 or they are fewer."""
    packages: dict[str, list[tuple[str, Mutant]]] = {}
    for file in files:
        found = [(file, mutant) for mutant in mutants(_source(file))]
        packages.setdefault(_package(file), []).extend(found)
    chosen: list[tuple[str, Mutant]] = []
    for package, found in packages.items():
        count = min(size or len(found), len(found))
        chosen += random.Random(f"{seed} {package}").sample(found, count)
    return chosen


def named(text: str) -> tuple[str, Mutant]:
    """Return the mutant ``file:number``, as a survivor is printed."""
    file, _, number = text.partition(":")
    return file, mutants(_source(file))[int(number)]


def _package(file: str) -> str:
    return file.split("/")[0]


def _source(file: str) -> str:
    return (SOURCE / file).read_text("utf-8")


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the mutant where its module is imported."""

    def __init__(self, file: str, tree: ast.Module) -> None:
        self.name = ".".join(("src", *Path(file).with_suffix("").parts))
        self.code = compile(tree, str(SOURCE / file), "exec")

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

    # A loop that never ends counts as found, and so does a deadlock. A busy machine must not find
    # a mutant, so most of the limit is processor time.
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    signal.alarm(10 * seconds)
    os.setpgid(0, 0)  # it ends with all processes that it starts
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
    chosen: Sequence[tuple[str, Mutant]], jobs: int, limits: Mapping[tuple[str, ...], int]
) -> Iterator[tuple[str, Mutant, bool]]:
    """Try the mutants and yield each, and whether a test found it."""
    waiting = list(reversed(chosen))
    running: list[tuple[ForkProcess, str, Mutant]] = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                file, mutant = waiting.pop()
                tests = tests_of(file)
                arguments = (file, mutant, tests, limits[tuple(tests)])
                process = _FORK.Process(target=_judge, args=arguments)
                process.start()
                running.append((process, file, mutant))
            time.sleep(0.05)  # a sentinel would be held open by what a mutant leaves running
            for ended in [one for one in running if not one[0].is_alive()]:
                running.remove(ended)
                process, file, mutant = ended
                _end(process)
                yield file, mutant, process.exitcode != 0
    finally:
        for process, _, _ in running:
            _end(process)


def _end(process: ForkProcess) -> None:
    """End what a mutant has started, and the mutant itself."""
    assert process.pid
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _processor_seconds() -> float:
    """Return the processor time of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Parse the arguments, try the mutants and print the table."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("places", nargs="*", help="files and folders under src, or FILE:NUMBER")
    parser.add_argument("--sample", type=int, default=60, help="mutants of each package; 0 for all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()

    # What every child would import again. None of it imports ``src``.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    for module in ("hydra", "mlflow.tracking", "pandas", "sklearn.model_selection", "scipy.stats"):
        importlib.import_module(module)

    again = [named(place) for place in given.places if ":" in place]
    places = [place for place in given.places if ":" not in place]
    files = judged(places or TESTS) if places or not again else []
    chosen = [*again, *sample(files, given.sample, given.seed)]
    limits: dict[tuple[str, ...], int] = {}
    for tests in {tuple(tests_of(file)) for file, _ in chosen}:
        before = _processor_seconds()
        unchanged = _FORK.Process(target=_judge, args=("", None, list(tests), 1000))
        unchanged.start()
        unchanged.join()
        if unchanged.exitcode:
            parser.error(f"{' '.join(tests)} fail without a mutant: make them pass first")
        limits[tests] = 10 + int(2 * (_processor_seconds() - before))

    random.Random(given.seed).shuffle(chosen)  # so that a part of the run is a fair sample, too
    tried: list[tuple[str, Mutant, bool]] = []
    try:
        for file, mutant, killed in _run(chosen, given.jobs, limits):
            tried.append((file, mutant, killed))
            word = "killed  " if killed else "SURVIVED"
            progress = f"[{len(tried)}/{len(chosen)}]"
            print(f"{progress} {word} {file}:{mutant.number} {mutant}", flush=True)
    except KeyboardInterrupt:
        print(f"stopped after {len(tried)} of {len(chosen)} mutants")
    _report(tried)


def _report(tried: Sequence[tuple[str, Mutant, bool]]) -> None:
    """Print how many mutants of each file and of each package were killed, and the shares."""
    files: dict[str, list[bool]] = {}
    packages: dict[str, list[bool]] = {}
    for file, _, killed in sorted(tried, key=lambda one: one[0]):
        files.setdefault(file, []).append(killed)
        packages.setdefault(_package(file), []).append(killed)
    print(f"\n{'':32} killed  share  95% interval")
    for file, found in files.items():
        print(f"{file:32} {sum(found):3}/{len(found)}")
    for package, found in packages.items():
        print(f"{package:32} {_share(found)}")


def _share(found: Sequence[bool]) -> str:
    from scipy.stats import binomtest

    killed, tried = sum(found), len(found)
    interval = binomtest(killed, tried).proportion_ci(method="wilson")
    return f"{killed:3}/{tried:<3} {killed / tried:5.1%}  {interval.low:.1%} to {interval.high:.1%}"


if __name__ == "__main__":
    main()

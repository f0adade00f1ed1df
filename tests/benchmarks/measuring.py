"""Times passes in turn, and says on what machine."""

import contextlib
import gc
import importlib.metadata
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from src.support.threads import available_cores, one_blas_thread

_SECONDS = 0.3  # a measurement is of as many passes as this takes, and of one at least
_SETTINGS = (
    "OPENBLAS_CORETYPE",
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
)  # which change speeds
_PAUSE = 0.05  # for the threads of the one before to go to sleep


@dataclass(frozen=True)
class Runner:
    """A way to train for a pass: ``run`` has ended when it returns."""

    run: Callable[[], object]
    samples: int  # in a pass, times the networks that it trains
    threads: int
    calm: bool = False  # whether BLAS is held to one thread, as it is in our training
    close: Callable[[], object] = lambda: None  # called after the last pass


@dataclass
class Times:
    """The microseconds per sample and network of one row, by who it was and round by round."""

    rounds: dict[str, list[float]] = field(default_factory=dict)
    threads: dict[str, int] = field(default_factory=dict)

    def median(self, who: str) -> float:
        return statistics.median(self.rounds[who])

    def ratio(self, who: str, ours: str) -> float:
        """Return how many times longer it took than ours: the median of the rounds' ratios."""
        return statistics.median(
            a / b for a, b in zip(self.rounds[who], self.rounds[ours], strict=True)
        )


def measure(
    runners: Mapping[str, Runner], rounds: int, quick: bool, tick: Callable[[str], None]
) -> Times:
    """Time all of them, one after the other in each round. The first pass is not timed."""
    times = Times(
        {who: [] for who in runners}, {who: runner.threads for who, runner in runners.items()}
    )
    passes = {}
    for who, runner in runners.items():
        tick(who)
        _time(runner, 1, 0)
        passes[who] = 1 if quick else max(1, math.ceil(_SECONDS / _time(runner, 1)))
    for _ in range(rounds):
        for who, runner in runners.items():
            tick(who)
            seconds = _time(runner, passes[who], 0 if quick else _PAUSE)
            times.rounds[who].append(seconds / passes[who] / runner.samples * 1e6)
    for runner in runners.values():
        runner.close()
    return times


def _time(runner: Runner, passes: int, pause: float = _PAUSE) -> float:
    with _held(runner.calm), np.errstate(all="ignore"):
        gc.collect()
        time.sleep(pause)
        start = time.perf_counter()
        for _ in range(passes):
            runner.run()
        return time.perf_counter() - start


@contextlib.contextmanager
def _held(calm: bool) -> Iterator[None]:
    with one_blas_thread() if calm else contextlib.nullcontext():
        yield


def peak(threads: int, quick: bool) -> float:
    """Return the GFLOP/s of NumPy's product of two large float32 matrices: the most there is."""
    n = 256 if quick else 2048
    rng = np.random.default_rng(0)
    a, b = (rng.random((n, n), np.float32) for _ in range(2))
    out = np.empty_like(a)
    best = math.inf
    with threadpool_limits(threads, "blas"):
        np.matmul(a, b, out=out)
        for _ in range(5):
            start = time.perf_counter()
            np.matmul(a, b, out=out)
            best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best / 1e9


def machine() -> dict[str, Any]:
    """Return what the figures depend on: processor, cores, versions. No names, no folders."""
    blas = [
        {
            key: library.get(key)
            for key in ("internal_api", "version", "architecture", "num_threads")
        }
        for library in threadpool_info()
        if library["user_api"] == "blas"
    ]
    versions = {}
    for package in ("numpy", "scipy", "torch", "scikit-learn", "jax", "jaxlib"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    load = [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None
    return {
        "cpu": _processor(),
        "cores": available_cores(),
        "system": platform.system(),
        "python": platform.python_version(),
        "blas": blas,
        "settings": {name: os.environ[name] for name in _SETTINGS if name in os.environ},
        "versions": versions,
        "load": load,
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

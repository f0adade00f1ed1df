"""How many threads may compute: one for BLAS while training, and one per core for our own chunks.

With BLAS on one thread, equal calls give equal bytes wherever they run, and small products
are faster.
"""

import contextlib
import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from threadpoolctl import ThreadpoolController


def one_blas_thread() -> AbstractContextManager[Any]:
    """Hold BLAS to one thread for the block, and restore what it had afterwards."""
    limit: AbstractContextManager[Any] = _controller().limit(limits=1, user_api="blas")
    return limit


@functools.cache
def _controller() -> ThreadpoolController:
    """Find the BLAS libraries, once: that takes longer than many an epoch."""
    import scipy.linalg.blas  # noqa: F401 (it has a BLAS of its own, which must be loaded to be found)

    return ThreadpoolController()


_most_cores: int | None = None


def available_cores() -> int:
    """Return how many cores this process may use.

    That is the least of the machine's cores, the process's affinity, a container's CPU quota, and
    what ``use_at_most`` has set.
    """
    import joblib  # it takes a while to import

    given: int = joblib.cpu_count()
    return min(given, _most_cores or given)


@contextlib.contextmanager
def at_most(cores: int) -> Iterator[None]:
    """Leave all but so many cores to other processes in the block."""
    global _most_cores
    before = _most_cores
    use_at_most(cores)
    try:
        yield
    finally:
        _most_cores = before


def use_at_most(cores: int) -> None:
    """Leave all but so many cores to other processes."""
    global _most_cores
    _most_cores = max(1, cores)

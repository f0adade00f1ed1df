"""One thread for BLAS: equal calls give equal bytes wherever they run, and small products are quicker. And how many cores."""

import functools
import os
from contextlib import AbstractContextManager
from typing import Any

from threadpoolctl import ThreadpoolController


def one_blas_thread() -> AbstractContextManager[Any]:
    """Hold BLAS to one thread for the block, and give it back what it had afterwards."""
    limit: AbstractContextManager[Any] = _controller().limit(limits=1, user_api="blas")
    return limit


@functools.cache
def _controller() -> ThreadpoolController:
    import scipy.linalg.blas  # noqa: F401 (its BLAS is one of its own, and must be there to be found)

    return ThreadpoolController()  # finding the libraries takes longer than many an epoch: once


_most_cores: int | None = None


def available_cores() -> int:
    """Return how many cores this process may use: whoever started it may have given it fewer than there are."""
    given = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return min(given, _most_cores or given)


def use_at_most(cores: int) -> None:
    """Leave the other cores to the processes beside this one."""
    global _most_cores
    _most_cores = max(1, cores)

"""One thread for BLAS: equal calls give equal bytes wherever they run, and small products are quicker."""

import functools
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

"""BLAS where NumPy's own functions would need another pass over memory."""

from scipy.linalg.blas import dgemm, sgemm

from src.nn.layers import Array


def add_product(alpha: float, x: Array, y: Array, beta: float, out: Array) -> None:
    """Set ``out`` (m, n) to alpha · xᵀ y + beta · out, for ``x (batch, m)`` and ``y (batch, n)``.

    One pass over ``out``; NumPy would need memory for xᵀ y and two more passes. BLAS counts columns
    first, so it gets the transposes of everything. SciPy holds the interpreter's lock meanwhile.
    """
    gemm = sgemm if out.dtype.char == "f" else dgemm
    gemm(alpha, y.T, x.T, beta=beta, c=out.T, trans_b=1, overwrite_c=1)

"""Saves and loads parameters: an ``.npz`` of ``W1, b1, W2, b2, …``, plain arrays without pickle."""

import itertools
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from src.nn.layers import Array
from src.nn.network import Network, Parameters
from src.support.archives import read_arrays
from src.support.errors import DataError
from src.support.files import whole_file


def save_weights(path: Path, network: Network, parameters: Parameters) -> None:
    """Write the parameters under the names that ``load_weights`` reads."""
    flat = itertools.chain(*names(network))
    arrays: dict[str, Any] = dict(zip(flat, itertools.chain(*parameters), strict=True))
    with whole_file(path) as file:
        np.savez(file, **arrays)


def load_weights(path: Path, network: Network, dtype: npt.DTypeLike) -> Parameters:
    """Return the parameters of ``network`` from a file.

    Each W has shape (fan_in, fan_out), each b (fan_out,) or (1, fan_out).

    Raises DataError if the file is unreadable, if an array is missing, has the wrong shape or does
    not fit into ``dtype``, or if the network has no layer for an array.
    """
    arrays = read_arrays(path)
    needed = names(network)
    expected = {name for layer_names in needed for name in layer_names}
    if missing := sorted(expected - set(arrays)):
        held = _listed(arrays) or "no array"
        raise DataError(
            f"{path}: lacks {', '.join(missing)}; the file holds {held}, "
            f"the network needs {', '.join(sorted(expected))}"
        )
    if unused := sorted(set(arrays) - expected):
        raise DataError(
            f"{path}: the network has no layer for {_listed(unused)}; "
            f"it needs {', '.join(sorted(expected))}"
        )
    return tuple(
        tuple(
            _fit(path, name, arrays[name], shape, np.dtype(dtype))
            for name, shape in zip(layer_names, layer.parameter_shapes, strict=True)
        )
        for layer, layer_names in zip(network, needed, strict=True)
    )


def names(network: Network) -> list[tuple[str, ...]]:
    """Return the names of each layer's arrays: ``("W1", "b1")``, or ``()`` for an activation."""
    named: list[tuple[str, ...]] = []
    number = 0
    for layer in network:
        number += bool(layer.parameter_shapes)
        named.append((f"W{number}", f"b{number}") if layer.parameter_shapes else ())
    return named


def _listed(found: Iterable[str]) -> str:
    """Return names of arrays for a message, shortened: a stranger chose them."""
    return textwrap.shorten(", ".join(sorted(found)), 200, placeholder="…")


def _fit(
    path: Path,
    name: str,
    array: npt.NDArray[np.generic],
    shape: tuple[int, int],
    dtype: np.dtype[Any],
) -> Array:
    """Return the array in the shape and the precision that the network needs."""
    if array.shape != shape and (1, *array.shape) != shape:
        raise DataError(f"{path}: {name} has shape {array.shape}, the network needs {shape}")
    if array.dtype.kind not in "fiu":
        raise DataError(f"{path}: {name} has type {array.dtype}, it must be numbers")
    if not np.isfinite(array).all():
        raise DataError(f"{path}: {name} holds NaN or infinity, all its values must be finite")
    with np.errstate(over="ignore"):  # told below
        fitted: Array = array.reshape(shape).astype(dtype)
    if not np.isfinite(fitted).all():
        largest = np.abs(array.astype(np.float64)).max()
        raise DataError(
            f"{path}: {name} holds a value of size {largest:.3g}, too large for {dtype}; "
            f"its values must be at most {np.finfo(dtype).max:.3g}"
        )
    return fitted

"""Saves and loads parameters: an ``.npz`` of ``W1, b1, W2, b2, …``, plain arrays without pickle."""

import itertools
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

    Raises DataError if the file is unreadable, if an array is missing or has the wrong shape, or if
    the network has no layer for an array.
    """
    arrays = read_arrays(path)
    needed = names(network)
    expected = {name for layer_names in needed for name in layer_names}
    if missing := sorted(expected - set(arrays)):
        held = ", ".join(sorted(arrays)) or "no array"
        raise DataError(
            f"{path}: lacks {', '.join(missing)}; the file holds {held}, "
            f"the network needs {', '.join(sorted(expected))}"
        )
    if unused := sorted(set(arrays) - expected):
        raise DataError(
            f"{path}: the network has no layer for {', '.join(unused)}; "
            f"it needs {', '.join(sorted(expected))}"
        )
    return tuple(
        tuple(
            _fit(path, name, arrays[name], shape).astype(dtype)
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


def _fit(path: Path, name: str, array: npt.NDArray[np.generic], shape: tuple[int, int]) -> Array:
    """Return the array in the shape that the network needs, as float64."""
    if array.shape != shape and (1, *array.shape) != shape:
        raise DataError(f"{path}: {name} has shape {array.shape}, the network needs {shape}")
    if array.dtype.kind not in "fiu":
        raise DataError(f"{path}: {name} has type {array.dtype}, it must be numbers")
    if not np.isfinite(array).all():
        raise DataError(f"{path}: {name} holds NaN or infinity, all its values must be finite")
    return array.reshape(shape).astype(np.float64)

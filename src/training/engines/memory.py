"""All parameters of a stack as one flat array, so that an update is a handful of calls."""

from collections.abc import Sequence
from math import prod

import numpy as np
import numpy.typing as npt

from src.nn.layers import Array, Dense
from src.nn.network import Network, Parameters

_BLOCK = 131_072  # numbers: an update goes through them in blocks that fit into the cache


class Weights:
    """Numbers in the form of the parameters of k networks: all weights first, then all biases.

    The first layers of an order group are the columns of one matrix (in, members · units). A later
    layer is (k, in, out), and biases are (k, 1, out). A single network has no leading axis.
    """

    def __init__(self, network: Network, members: Sequence[int], dtype: npt.DTypeLike) -> None:
        dense = [layer for layer in network if isinstance(layer, Dense)]
        self.network, self.members, self.k = network, members, sum(members)
        first, *later = dense
        shapes: list[tuple[int, ...]] = [(first.fan_in, m * first.fan_out) for m in members]
        self.leading = (self.k,) if self.k > 1 else ()
        shapes += [(*self.leading, layer.fan_in, layer.fan_out) for layer in later]
        weights = sum(map(prod, shapes))
        shapes += [(*self.leading, 1, layer.fan_out) for layer in dense]
        self.flat = np.zeros(sum(map(prod, shapes)), dtype)

        ends = np.cumsum([prod(shape) for shape in shapes])
        parts = np.split(self.flat, ends[:-1])
        arrays = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
        groups = len(members)
        self.matrices = [arrays[:groups], *([W] for W in arrays[groups : -len(dense)])]
        self.biases = arrays[-len(dense) :]
        # What an update goes through: of one network blocks, of several each array by itself,
        # since they have numbers of their own.
        self.pieces, self.weight_pieces = arrays, len(arrays) - len(dense)
        if self.k == 1:
            of_weights, of_biases = (_blocks(part) for part in np.split(self.flat, [weights]))
            self.pieces, self.weight_pieces = of_weights + of_biases, len(of_weights)

    def column(self, numbers: Array) -> float | Array:
        """Return a number per network (k,) in the shape (k, 1, 1); a single one as itself."""
        if self.k == 1:
            return float(numbers[0])
        column: Array = numbers.astype(self.flat.dtype)[:, None, None]
        return column

    def per_matrix(self, numbers: Array) -> list[list[float | Array]]:
        """Return a number per network (k,) in the shapes that meet each of the ``matrices``."""
        column = self.column(numbers)
        if isinstance(column, float):
            return [[column]] * len(self.matrices)
        later: list[list[float | Array]] = [[column] for _ in self.matrices[1:]]
        units = self.biases[0].shape[-1]
        of_groups = np.split(column.reshape(-1), np.cumsum(self.members)[:-1])
        return [[np.repeat(own, units) for own in of_groups], *later]

    def per_piece(self, numbers: Array) -> list[float | Array]:
        """Return a number per network (k,) in the shapes that meet each of the ``pieces``."""
        column = self.column(numbers)
        if isinstance(column, float):
            return [column] * len(self.pieces)
        of_matrices = [number for layer in self.per_matrix(numbers) for number in layer]
        return [*of_matrices, *[column] * len(self.biases)]

    def squared_lengths(self) -> Array:
        """Return for each network the sum of the squares of its numbers, (k,)."""
        if self.k == 1:
            return np.array([self.flat.dot(self.flat)])
        columns = np.concatenate([np.einsum("ij,ij->j", W, W) for W in self.matrices[0]])
        total: Array = columns.reshape(self.k, -1).sum(axis=1)
        for array in self.pieces[len(self.members) :]:
            total += np.einsum("kij,kij->k", array, array)
        return total

    def load(self, networks: Sequence[Parameters]) -> None:
        """Take the numbers of each network."""
        for j, parameters in enumerate(networks):
            for view, array in zip(self._views(j), _arrays(parameters), strict=True):
                view[...] = array

    def networks(self) -> list[Parameters]:
        """Return the numbers of each network, in memory of their own."""
        return [self._network(j) for j in range(self.k)]

    def _network(self, j: int) -> Parameters:
        views = iter(self._views(j))
        return tuple(
            tuple(next(views).copy() for _ in layer.parameter_shapes) for layer in self.network
        )

    def _views(self, j: int) -> list[Array]:
        """Return the weights and biases of network j, layer by layer."""
        found: list[Array] = []
        for i, b in enumerate(self.biases):
            found += [self._matrix(i, j), b[j] if self.k > 1 else b]
        return found

    def _matrix(self, i: int, j: int) -> Array:
        if i > 0:
            (W,) = self.matrices[i]
            return W[j] if self.k > 1 else W
        group = int(np.searchsorted(np.cumsum(self.members), j, side="right"))
        wide, m = self.matrices[0][group], self.members[group]
        return wide.reshape(len(wide), m, -1)[:, j - sum(self.members[:group])]


def _blocks(flat: Array) -> list[Array]:
    return [flat[start : start + _BLOCK] for start in range(0, flat.size, _BLOCK)]


def _arrays(parameters: Parameters) -> list[Array]:
    return [array for layer in parameters for array in layer]

"""Matrices in coordinates in which most of what they hold is in few rows."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int8

from laconic.codecs import random
from laconic.codecs._arguments import check_whole, checked_positive
from laconic.codecs._registry import register
from laconic.codecs._specs import TensorSpec
from laconic.codecs._stage import Arrays
from laconic.codecs.random import Key
from laconic.codecs.stages._floats import FloatStage, compute_dtype, largest_float
from laconic.codecs.stages._scaling import magnitude, nonzero, normalised

MAX_RANK = 256

_ITERATIONS = 3
_ROWS_PER_DIRECTION = 4
_LEAST_LEVELS, _MOST_LEVELS = 1.0, 30.0  # in a root mean square of a direction's coordinates
_BITS_OF_ONE_LEVEL = 2.05  # the entropy of a Gaussian variable over its root mean square
_SPANNED = 1e-4  # of its square: what others leave of a direction that is counted among them
_LARGEST_CODE = 127


@register
@dataclasses.dataclass(frozen=True)
class KarhunenLoeve(FloatStage):
    """A matrix in the coordinates of its principal directions, for a quantizer and an entropy coder below.

    What training changes in a large layer lies mostly in few directions. M [m, n] is the array with all dimensions but
    the last joined to one, transposed if it has more rows than columns. Of its left singular vectors, found by subspace
    iteration (Halko, Martinsson and Tropp 2011, "Finding structure with randomness", algorithm 4.4), those travel that
    save more bits than they cost, as small integers. By a Gaussian variable's rate, log2(1 + v / D) / 2 at the variance
    v and the distortion D to come (Zamir and Feder 1992, "On universal quantization by randomized uniform/lattice
    quantizers"), a direction of energy e saves m n / 2 log2(1 + e / (m n (D + w))) in all entries, w being the variance
    that weaker ones leave there, and costs n / 2 log2(1 + e / (n D)) and itself; none is sent if rows and columns alone
    let expect fewer bits. With U [m, r] what both ends make of
    these integers, orthonormal, C = U^T M and R = M - U C travel as the matrix [C; R], whose first rows hold most of
    the energy; it is decoded to R^ + U (C^ - U^T R^), which leaves out the errors of R^ that lie in U.

    Exact up to rounding, so that an unbiased quantizer below stays unbiased. Does not commute with the sum, since each
    matrix has its own U. An array of fewer than two dimensions, or with a side of fewer than four entries, travels as
    it is.

    Args:
      rank: directions at most, 1 to 256; no more than a quarter of the shorter side are used.
      distortion: the mean squared error that the quantizer below makes of an entry: step**2 / 12 for `Dithered`.
    """

    name: ClassVar[str] = "karhunen_loeve"
    outputs: ClassVar[tuple[str, ...]] = ("values", "basis")
    compressible: ClassVar[tuple[str, ...]] = ("values", "basis")
    is_unbiased = True
    is_linear = True

    rank: int
    distortion: float

    def __post_init__(self) -> None:
        check_whole(self.rank, "rank", 1, MAX_RANK)
        object.__setattr__(self, "distortion", checked_positive(self.distortion, "distortion"))

    def rank_of(self, shape: tuple[int, ...]) -> int:
        """How many directions an array of this shape may have; 0 if it travels as it is."""
        return min(self.rank, min(math.prod(shape[:-1]), shape[-1]) // _ROWS_PER_DIRECTION) if len(shape) > 1 else 0

    def expected_nmse(self, size: int) -> float | None:
        del size
        return 0.0

    def is_in_range(self, x: Array, parameters: Arrays) -> Bool[Array, ""] | bool:
        """The norm of a column or row must fit the dtype."""
        del parameters
        if not self.rank_of(x.shape):
            return True
        return magnitude(x.astype(compute_dtype(x.dtype))) <= largest_float(x.dtype) / 4 / math.sqrt(x.size)

    def encode(self, key: Key, x: Array, parameters: Arrays) -> dict[str, Array]:
        del key, parameters
        rank = self.rank_of(x.shape)
        if not rank:
            return {"values": x, "basis": jnp.zeros((0, 0), jnp.int8)}
        matrix, largest = normalised(_wide(x.astype(compute_dtype(x.dtype))))
        distortion = (math.sqrt(self.distortion) / nonzero(largest)) ** 2
        basis, cost = _basis(matrix, rank, distortion)
        directions = _orthonormal(basis, matrix.dtype)
        coordinates = _product(directions.T, matrix)
        values = jnp.concatenate([coordinates, matrix - _product(directions, coordinates)])
        # Rows and columns alone may tell as much, or more, where many are next to zero.
        pays = _bits(values, distortion) + cost < _bits(matrix, distortion)
        basis = jnp.where(pays, basis, 0)
        values = jnp.where(pays, values, jnp.concatenate([jnp.zeros_like(coordinates), matrix]))
        return {"values": (values * largest).astype(x.dtype), "basis": basis}

    def decode(self, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec) -> Array:
        del parameters, num_summands
        rank = self.rank_of(spec.shape)
        if not rank:
            return encoded["values"].reshape(spec.shape).astype(spec.dtype)
        values = encoded["values"].astype(compute_dtype(spec.dtype))
        directions = _orthonormal(encoded["basis"], values.dtype)
        coordinates, rest = values[:rank], values[rank:]
        matrix = rest + _product(directions, coordinates - _product(directions.T, rest))
        columns = spec.shape[-1]
        if math.prod(spec.shape[:-1]) > columns:
            matrix = matrix.T
        limit = largest_float(spec.dtype)  # which an error below may exceed
        return jnp.clip(matrix, -limit, limit).reshape(spec.shape).astype(spec.dtype)


def _basis(matrix: Float[Array, "m n"], rank: int, distortion: Array) -> tuple[Int8[Array, "m r"], Float[Array, ""]]:
    """The directions that pay, as integers, zeros for the others; and how many bits they take."""
    m, n = matrix.shape
    found, energies = _principal(matrix, rank)
    energies = jnp.maximum(energies, 0)
    after = jnp.maximum(jnp.sum(matrix * matrix) - jnp.cumsum(energies), 0)
    rest = nonzero(distortion + after / (m * n))
    # Rounding leaves 1 / (12 levels**2) of a direction's energy to all rows. At this many levels, a bit more for each
    # of its m coordinates would cost as much as it saves there.
    levels = jnp.clip(jnp.sqrt(energies / (12 * m * rest)), _LEAST_LEVELS, _MOST_LEVELS)
    saved = m * n / 2 * jnp.log2(1 + energies / (m * n * rest))
    cost = m * (jnp.log2(levels) + _BITS_OF_ONE_LEVEL)
    pays = saved > n / 2 * jnp.log2(1 + energies / (n * nonzero(distortion))) + cost
    codes = jnp.clip(jnp.round(found * (levels * math.sqrt(m))), -_LARGEST_CODE, _LARGEST_CODE)
    return jnp.where(pays, codes, 0).astype(jnp.int8), jnp.sum(jnp.where(pays, cost, 0))


def _bits(matrix: Float[Array, "m n"], distortion: Array) -> Float[Array, ""]:
    """About what a matrix takes by its rows and columns: of Gaussian entries whose variances are products of theirs."""
    squares = matrix * matrix
    rows, columns = jnp.sum(squares, axis=1), jnp.sum(squares, axis=0)
    variances = rows[:, None] * (columns / nonzero(jnp.sum(rows)))
    return jnp.sum(jnp.log2(1 + variances / nonzero(distortion))) / 2


def _wide(x: Array) -> Float[Array, "m n"]:
    """The array as a matrix with no more rows than columns."""
    matrix = x.reshape(-1, x.shape[-1])
    return matrix.T if matrix.shape[0] > matrix.shape[1] else matrix


def _principal(matrix: Float[Array, "m n"], rank: int) -> tuple[Float[Array, "m r"], Float[Array, " r"]]:
    """About the first left singular vectors, and the squares of their singular values."""
    m = matrix.shape[0]
    # The same for all: a start without a preferred direction, not a secret one.
    start = random.uniform(random.key(0), (m * rank,)).reshape(m, rank).astype(matrix.dtype) - 0.5
    for _ in range(_ITERATIONS):
        start = jnp.linalg.qr(_product(matrix, _product(matrix.T, start)))[0]
    within = _product(start.T, matrix)
    energies, axes = jnp.linalg.eigh(_product(within, within.T))
    return _product(start, axes[:, ::-1]), energies[::-1]


def _orthonormal(basis: Int8[Array, "m r"], dtype: jnp.dtype) -> Float[Array, "m r"]:
    """Gram and Schmidt's method, each column twice; what lies in the columns before, as zeros do, becomes zero.

    Both ends compute it. A difference of rounding between them is one of the decoded matrix, and no more.
    """
    columns = basis.astype(dtype)

    def with_next(i: Array, known: Array) -> Array:
        column = columns[:, i]
        left = column
        for _ in range(2):
            left = left - _product(known, _product(known.T, left))
        square = jnp.sum(left * left)
        is_new = square > _SPANNED * jnp.sum(column * column)
        return known.at[:, i].set(jnp.where(is_new, left / jnp.sqrt(nonzero(square)), 0))

    return jax.lax.fori_loop(0, columns.shape[1], with_next, jnp.zeros_like(columns))


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")

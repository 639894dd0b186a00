"""Randomized Hadamard transforms of any length: in blocks of powers of two, without padding.

A vector is cut at the binary expansion of its length: as many blocks of the largest size as fit, then one block at most
of each smaller power of two, down to a block of one entry. So n entries stay n, where padding to a power of two adds up
to all of them again. Each block is transformed by itself: y = H D x with an orthonormal Hadamard matrix H (Sylvester's)
and random signs D (Ailon and Chazelle 2009, "The fast Johnson-Lindenstrauss transform"; Suresh et al. 2017,
"Distributed mean estimation with limited communication", section 3).

The transform runs over the last five bits of the index as products with a 32 x 32 matrix, and over two bits at a time
of the others as sums and differences of long rows: of the forms that XLA compiles for CPUs, the fastest.
"""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

from laconic.codecs import random
from laconic.codecs._arguments import check_seed
from laconic.codecs._registry import register
from laconic.codecs._specs import TensorSpec
from laconic.codecs._stage import Arrays
from laconic.codecs.random import Key
from laconic.codecs.stages._floats import FloatStage, compute_dtype, largest_float
from laconic.codecs.stages._scaling import magnitude
from laconic.errors import ArgumentError, ArgumentTypeError

MAX_BLOCK = 2**15
"""Entries of the largest blocks: enough to make any of them nearly Gaussian, and few enough to stay in a cache."""

_ROW = 32  # the matrix product's, and the bits of a word of signs
_LIMITS = (_ROW, 2**24)

Words = UInt32[Array, "words"]


def main_size(size: int, max_block: int) -> int:
    """How many of a vector's entries are in blocks of the largest size."""
    return size - size % max_block


def num_sign_words(size: int) -> int:
    """Words of random bits that give each of so many entries a sign."""
    return -(-size // _ROW)


def rotate(x: Array, words: Words, max_block: int) -> Array:
    """H D x: signs, then the transform. Orthonormal.

    The entries in blocks of the largest size take the first words, the others the rest.
    """
    main = main_size(x.size, max_block)
    parts = [(x[:main], words[: main // _ROW]), (x[main:], words[main // _ROW :])]
    return _concatenated([transform(negate(part, own), max_block) for part, own in parts if part.size], x)


def rotate_back(y: Array, words: Words, max_block: int) -> Array:
    """D H y, the inverse of `rotate`."""
    main = main_size(y.size, max_block)
    parts = [(y[:main], words[: main // _ROW]), (y[main:], words[main // _ROW :])]
    return _concatenated([negate(transform(part, max_block), own) for part, own in parts if part.size], y)


def negate(x: Array, words: Words) -> Array:
    """Changes the signs of those entries whose bit is set.

    With w = floor(n / 32), entry i < 32 w has bit floor(i / w) of word i mod w, and entry 32 w + j bit j of word w.
    """
    width = x.size // _ROW
    first = width * _ROW
    # A loop, since XLA would else draw each word anew for each of its bits.
    rows = jax.lax.map(
        lambda row: jnp.where((words[:width] >> row[0]) & 1 == 1, -row[1], row[1]),
        (jnp.arange(_ROW, dtype=jnp.uint32), x[:first].reshape(_ROW, width)),
    ).reshape(-1)
    if first == x.size:
        return rows
    last = x[first:]
    is_negated = (words[width] >> jnp.arange(last.size, dtype=jnp.uint32)) & 1 == 1
    return jnp.concatenate([rows, jnp.where(is_negated, -last, last)])


def transform(x: Array, max_block: int) -> Array:
    """The orthonormal Hadamard transform of each block; its own inverse.

    Args:
      x: a vector of any length, whose blocks descend: as many as fit of `max_block`, then powers of two.
      max_block: a power of two, 32 at least.
    """
    if x.size and x.size % max_block == 0:
        return _equal_blocks(x, max_block)
    first = x.size - x.size % _ROW
    done = [x[first:] @ jnp.asarray(_small_blocks(x.size - first), x.dtype)]
    x = _rows(x[:first])
    block = _ROW
    # Each turn joins blocks to larger ones, and sets those aside that are as large as they get.
    while block < max_block and x.size:
        radix = 4 if 4 * block <= max_block else 2
        kept = x.size - x.size % (radix * block)
        paired = x.size - x.size % (2 * block)
        done += [x[paired:], _joined(x[kept:paired], block, 2)]
        x = _joined(x[:kept], block, radix)
        block *= radix
    return _concatenated([part for part in (x, *reversed(done)) if part.size], x)


def _equal_blocks(x: Array, block: int) -> Array:
    """The transform where all blocks are of one size."""
    while block > _ROW:
        radix = 4 if block >= 4 * _ROW else 2
        block //= radix
        x = _joined(x, block, radix)
    # The product comes last, since XLA would compute sums and differences anew in whatever copies them.
    return _rows(x)


def _rows(x: Array) -> Array:
    """The transform of each 32 entries."""
    return jnp.matmul(x.reshape(-1, _ROW), jnp.asarray(sylvester(_ROW), x.dtype), precision="highest").reshape(-1)


def sylvester(size: int) -> np.ndarray:
    """Sylvester's Hadamard matrix over sqrt(size): orthonormal, symmetric, of size a power of two."""
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return np.asarray(matrix / np.sqrt(size))


def _joined(x: Array, block: int, count: int) -> Array:
    """Transforms along the index of the block, of each `count` neighbouring blocks: makes one of them."""
    parts = x.reshape(-1, count, block) * count**-0.5
    return jnp.stack(_sums([parts[:, i] for i in range(count)]), axis=1).reshape(-1)


def _sums(parts: list[Array]) -> list[Array]:
    """Sylvester's matrix times a list of arrays, by sums and differences."""
    if len(parts) == 1:
        return parts
    half = len(parts) // 2
    pairs = list(zip(parts[:half], parts[half:], strict=True))
    return _sums([a + b for a, b in pairs]) + _sums([a - b for a, b in pairs])


def _concatenated(parts: list[Array], otherwise: Array) -> Array:
    return jnp.concatenate(parts) if parts else otherwise


@functools.cache
def _small_blocks(size: int) -> np.ndarray:
    """The transform of fewer than 32 entries, as one matrix."""
    matrix = np.zeros((size, size))
    start = 0
    while start < size:
        block = 1 << ((size - start).bit_length() - 1)
        matrix[start : start + block, start : start + block] = sylvester(block)
        start += block
    return matrix


class _BlockHadamard(FloatStage):
    """What the transforms with constant and with drawn signs have in common."""

    is_unbiased = True
    is_linear = True

    max_block: int

    def __post_init__(self) -> None:
        low, high = _LIMITS
        if isinstance(self.max_block, bool) or not isinstance(self.max_block, int):
            raise ArgumentTypeError(f"max_block must be an integer, got {self.max_block!r}")
        if not low <= self.max_block <= high or self.max_block & (self.max_block - 1):
            raise ArgumentError(f"max_block must be a power of two in {low}..{high}, got {self.max_block}")

    def expected_nmse(self, size: int) -> float | None:
        del size
        return 0.0

    def is_in_range(self, x: Array, parameters: Arrays) -> Array | bool:
        del parameters
        return fits_rotation(x, self.max_block)

    def _rotated(self, x: Array, words: Words) -> dict[str, Array]:
        x = x.reshape(-1).astype(compute_dtype(x.dtype))
        return {"values": rotate(x, words, self.max_block)}

    def _rotated_back(self, y: Array, words: Words, spec: TensorSpec) -> Array:
        y = y.astype(compute_dtype(spec.dtype))
        return rotate_back(y, words, self.max_block).reshape(spec.shape).astype(spec.dtype)


@register
@dataclasses.dataclass(frozen=True)
class Hadamard(_BlockHadamard):
    """The block Hadamard transform with the same random signs for everyone: y = H D x.

    Orthonormal, so errors of y are as large in x. What is decoded differs from x by rounding, about 1e-7 of its norm
    in float32. Since all have the same signs, it commutes with the sum.

    Args:
      seed: of the signs, 0 to 2**63 - 1. Another one for each round protects against inputs made for the signs.
      max_block: entries of the largest blocks, a power of two in 32..2**24.
    """

    name: ClassVar[str] = "hadamard"
    commutes_with_sum = True

    seed: int = 0
    max_block: int = MAX_BLOCK

    def __post_init__(self) -> None:
        super().__post_init__()
        check_seed(self.seed)

    def encode(self, key: Key, x: Array, parameters: Arrays) -> dict[str, Array]:
        del key, parameters
        return self._rotated(x, constant_sign_words(self.seed, num_sign_words(x.size)))

    def decode(self, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec) -> Array:
        del parameters, num_summands
        return self._rotated_back(encoded["values"], constant_sign_words(self.seed, num_sign_words(spec.size)), spec)


@register
@dataclasses.dataclass(frozen=True)
class RandomHadamard(_BlockHadamard):
    """The block Hadamard transform with signs drawn for each encoding: y = H D x.

    Like `Hadamard`, but no two encodings share their signs, so that errors of a quantizer below are independent even
    if it is biased given the signs; it does not commute with the sum.

    Args:
      max_block: entries of the largest blocks, a power of two in 32..2**24.
    """

    name: ClassVar[str] = "random_hadamard"
    regenerated: ClassVar[tuple[str, ...]] = ("signs",)

    max_block: int = MAX_BLOCK

    def regenerate(self, key: Key, spec: TensorSpec) -> dict[str, Array]:
        return {"signs": random.bits(key, num_sign_words(spec.size))}

    def encode(self, key: Key, x: Array, parameters: Arrays) -> dict[str, Array]:
        del parameters
        return self._rotated(x, random.bits(key, num_sign_words(x.size)))

    def decode(self, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec) -> Array:
        del parameters, num_summands
        return self._rotated_back(encoded["values"], encoded["signs"], spec)


def fits_rotation(x: Array, max_block: int) -> Array:
    """Whether rotating x in such blocks stays within the dtype of computation."""
    dtype = compute_dtype(x.dtype)
    return magnitude(x.astype(dtype)) <= largest_float(dtype) / (2 * max(min(max_block, x.size), 1) ** 0.5)


def constant_sign_words(seed: int, count: int) -> Words:
    """The words of signs that a seed stands for."""
    # Behind the barrier the key is no constant, from which XLA would draw the words itself, slowly, when it compiles.
    return random.bits(jax.lax.optimization_barrier(jnp.asarray(random.key(seed))), count)

"""Random rotations after which entries of any vector look Gaussian, block by block.

Quantizers made for Gaussian entries are unbiased if the rotation is uniform (Vargaftik et al. 2021, "DRIVE: One-bit
distributed mean estimation", theorem 3). One randomized Hadamard transform is not: of (3, 1, 0, 0, ...) its entries
take two magnitudes only, and one-bit decodings have a mean far from the vector. After a second round with signs of its
own what is left of that falls with the square of the block size, after a third with its fourth power. So blocks of the
largest size get two rounds, and smaller ones three. The last entries, too few for that, get a walk of Kac's: rotations
of pairs of coordinates by random angles, which mix any number of them (Oliveira 2009, "On the convergence to
equilibrium of Kac's random walk on matrices").
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped, UInt32

from laconic.codecs.stages._hadamard import negate, num_sign_words, transform
from laconic.codecs.stages._scaling import nonzero

MAX_BLOCK = 2**16
MIN_BLOCK = 2**10
"""Of blocks that a Hadamard transform rotates."""

_ROUNDS, _SMALL_ROUNDS = 2, 3


@dataclasses.dataclass(frozen=True)
class Rotation:
    """Rotates vectors of one size: as many blocks of `MAX_BLOCK` as fit, smaller powers of two, and the rest.

    Attributes:
      size: number of entries.
    """

    size: int

    @property
    def blocks(self) -> tuple[int, ...]:
        """The blocks' sizes, in their order."""
        count, rest = divmod(self.size, MAX_BLOCK)
        powers = [1 << bit for bit in reversed(range(rest.bit_length())) if rest >> bit & 1 and 1 << bit >= MIN_BLOCK]
        return (MAX_BLOCK,) * count + tuple(powers) + ((self._tail,) if self._tail else ())

    @property
    def num_words(self) -> int:
        """Words of random bits that a rotation takes."""
        return sum(self._words)

    def rotate(self, x: Float[Array, " n"], words: UInt32[Array, " words"]) -> Float[Array, " n"]:
        """R x: each block by itself, norms kept."""
        parts = [
            _rounds(part, own.reshape(rounds, -1)) if rounds else _walk(part, own)
            for part, own, rounds in self._parts(x, words)
        ]
        return _joined(parts, x)

    def rotate_back(self, y: Float[Array, " n"], words: UInt32[Array, " words"]) -> Float[Array, " n"]:
        """R^T y, the inverse."""
        parts = [
            _rounds_back(part, own.reshape(rounds, -1)) if rounds else _walk_back(part, own)
            for part, own, rounds in self._parts(y, words)
        ]
        return _joined(parts, y)

    @property
    def groups(self) -> tuple[tuple[int, int], ...]:
        """Blocks of one size that follow one another: how many, and their size."""
        count = self._main // MAX_BLOCK
        return (((count, MAX_BLOCK),) if count else ()) + tuple((1, size) for size in self.blocks[count:])

    def of_blocks(self, x: Float[Array, " n"]) -> list[Float[Array, "blocks size"]]:
        """The groups of blocks, each as the rows of a matrix."""
        ends = np.cumsum([count * size for count, size in self.groups])
        return [
            x[end - count * size : end].reshape(count, size)
            for (count, size), end in zip(self.groups, ends, strict=True)
        ]

    def sums(self, x: Float[Array, " n"]) -> Float[Array, " blocks"]:
        """Each block's sum."""
        return _joined([group.sum(axis=1) for group in self.of_blocks(x)], x)

    def magnitudes(self, x: Float[Array, " n"]) -> Float[Array, " blocks"]:
        """Each block's largest absolute value."""
        return _joined([jnp.abs(group).max(axis=1) for group in self.of_blocks(x)], x)

    def spread(self, per_block: Shaped[Array, " blocks"]) -> Shaped[Array, " n"]:
        """For each entry its block's value."""
        parts, start = [], 0
        for count, size in self.groups:
            parts.append(jnp.broadcast_to(per_block[start : start + count, None], (count, size)).reshape(-1))
            start += count
        return _joined(parts, per_block)

    @property
    def sizes(self) -> np.ndarray:
        """The blocks' sizes, as float64."""
        return np.array(self.blocks, np.float64)

    @property
    def _main(self) -> int:
        return self.size - self.size % MAX_BLOCK

    @property
    def _tail(self) -> int:
        return self.size % MIN_BLOCK

    @property
    def _words(self) -> tuple[int, int, int]:
        middle = self.size - self._main - self._tail
        angles = _num_layers(self._tail) * (self._tail // 2)
        return _ROUNDS * num_sign_words(self._main), _SMALL_ROUNDS * num_sign_words(middle), angles

    def _parts(self, x: Array, words: Array) -> list[tuple[Array, Array, int]]:
        """Parts that are not empty, with their words and rounds; no rounds for the walk."""
        bounds = (0, self._main, self.size - self._tail, self.size)
        starts = np.cumsum((0, *self._words))
        return [
            (x[bounds[i] : bounds[i + 1]], words[starts[i] : starts[i + 1]], rounds)
            for i, rounds in enumerate((_ROUNDS, _SMALL_ROUNDS, 0))
            if bounds[i + 1] > bounds[i]
        ]


def inverse(x: Array) -> Array:
    """1 / x of numbers that are not negative; zero for zero."""
    return jnp.where(x > 0, 1 / nonzero(x), 0)


def _num_layers(size: int) -> int:
    """After which a walk has mixed so many coordinates to all purposes."""
    return 5 * (size - 1).bit_length() + 4 if size > 1 else 0


def _rounds(x: Array, words: Array) -> Array:
    """A Hadamard transform with each row of signs. Loops, here and below, are compiled once for all rounds."""
    return jax.lax.scan(lambda y, signs: (transform(negate(y, signs), MAX_BLOCK), None), x, words)[0]


def _rounds_back(y: Array, words: Array) -> Array:
    return jax.lax.scan(lambda x, signs: (negate(transform(x, MAX_BLOCK), signs), None), y, words, reverse=True)[0]


def _walk(x: Array, words: Array) -> Array:
    """Kac's walk, in layers: coordinate i and i + size // 2 turn together, then they become neighbours."""
    half = x.size // 2
    if not half:
        return x

    def layer(x: Array, turn: tuple[Array, Array]) -> tuple[Array, None]:
        cosine, sine = turn
        first, second = x[:half], x[half : 2 * half]
        pairs = jnp.stack([cosine * first - sine * second, sine * first + cosine * second], axis=1)
        return jnp.concatenate([x[2 * half :], pairs.reshape(-1)]), None

    return jax.lax.scan(layer, x, _turns(words, half, x.dtype))[0]


def _walk_back(y: Array, words: Array) -> Array:
    half = y.size // 2
    if not half:
        return y

    def layer(y: Array, turn: tuple[Array, Array]) -> tuple[Array, None]:
        cosine, sine = turn
        odd = y.size - 2 * half
        first, second = y[odd:].reshape(half, 2).T
        return jnp.concatenate([cosine * first + sine * second, cosine * second - sine * first, y[:odd]]), None

    return jax.lax.scan(layer, y, _turns(words, half, y.dtype), reverse=True)[0]


def _turns(words: Array, half: int, dtype: jnp.dtype) -> tuple[Array, Array]:
    angles = (words >> 8).astype(dtype).reshape(-1, half) * (2 * math.pi / 2**24)
    return jnp.cos(angles), jnp.sin(angles)


def _joined(parts: list[Array], otherwise: Array) -> Array:
    return jnp.concatenate(parts) if parts else otherwise

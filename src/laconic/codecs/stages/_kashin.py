"""Kashin's representation: more coefficients than entries, but no large ones."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from laconic.codecs._arguments import check_flag, check_seed, checked_positive
from laconic.codecs._registry import register
from laconic.codecs._specs import TensorSpec
from laconic.codecs._stage import Arrays
from laconic.codecs.random import Key
from laconic.codecs.stages._floats import FloatStage, compute_dtype
from laconic.codecs.stages._hadamard import (
    Words,
    constant_sign_words,
    fits_rotation,
    num_sign_words,
    rotate,
    rotate_back,
)
from laconic.codecs.stages._scaling import nonzero, normalised
from laconic.errors import ArgumentError, ArgumentTypeError

_MAX_ROUNDS = 8
_MIN_BLOCK = 32


@register
@dataclasses.dataclass(frozen=True)
class Kashin(FloatStage):
    """Kashin's representation of a vector in a tight frame.

    Source: Lyubarskii and Vershynin 2010, "Uncertainty principles and vector quantization", section III.

    The frame takes n entries, padded with zeros to a power of two P, through randomized Hadamard transforms. It has
    many representations of a vector; one without large coefficients is found by adding up clipped ones, of the vector
    and then of what is left of it:

        level = |x| / sqrt(delta n); then `num_iters` times:
            b = clip(frame(rest), level); coefficients += b; rest -= frame^T(b); level *= eta

    The last turn does not clip, so that decoding gives back the vector up to rounding: linear and, with an unbiased
    quantizer below, unbiased. With `last_iter_clip` it does, and the coefficients are scaled to the vector's norm: then
    the rest is lost, a bias. The signs are the same for all, so it commutes with the sum.

    Tensor_encoding's `KashinHadamardEncodingStage()` is `Kashin(3, 0.9, 1.0, rounds=1)`. Its one round of signs makes
    a poor frame: with P = 2 n each coefficient comes twice, and representations have next to no freedom. Two rounds
    and twelve turns get the largest coefficient from 4 to 2 root mean squares.

    Args:
      num_iters: turns, 1 to 1000.
      eta: by what the clipping level shrinks from turn to turn, above 0 and below 1.
      delta: the clipping level's divisor, above 0.
      last_iter_clip: whether to clip in the last turn too.
      pad_extra_level_threshold: P is doubled if n / P would exceed this; above 0, at most 1.
      rounds: of signs and Hadamard transform in the frame, 1 to 8.
      seed: of the signs, 0 to 2**63 - 1.
    """

    name: ClassVar[str] = "kashin"
    commutes_with_sum = True
    is_linear = True

    num_iters: int = 12
    eta: float = 0.75
    delta: float = 6.0
    last_iter_clip: bool = False
    pad_extra_level_threshold: float = 0.85
    rounds: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        for name, highest in (("num_iters", 1000), ("rounds", _MAX_ROUNDS)):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int):
                raise ArgumentTypeError(f"{name} must be an integer, got {number!r}")
            if not 1 <= number <= highest:
                raise ArgumentError(f"{name} must lie in 1..{highest}, got {number}")
        for name in ("eta", "delta", "pad_extra_level_threshold"):
            object.__setattr__(self, name, checked_positive(getattr(self, name), name))
        if not self.eta < 1:
            raise ArgumentError(f"eta must be below 1, got {self.eta}")
        if not self.pad_extra_level_threshold <= 1:
            raise ArgumentError(f"pad_extra_level_threshold must be at most 1, got {self.pad_extra_level_threshold}")
        check_flag(self.last_iter_clip, "last_iter_clip")
        check_seed(self.seed)

    @property
    def is_unbiased(self) -> bool:
        return not self.last_iter_clip

    def is_in_range(self, x: Array, parameters: Arrays) -> Array | bool:
        del parameters
        return fits_rotation(x, x.size)

    def num_coefficients(self, size: int) -> int:
        """P, for so many entries."""
        if size == 0:
            return 0
        padded = 1 << (size - 1).bit_length()
        return 2 * padded if size / padded > self.pad_extra_level_threshold else padded

    def encode(self, key: Key, x: Array, parameters: Arrays) -> dict[str, Array]:
        del key, parameters
        x = x.reshape(-1).astype(compute_dtype(x.dtype))
        if x.size == 0:
            return {"values": x}
        unit, largest = normalised(x)
        words = self._words(x.size)
        norm = jnp.sqrt(jnp.sum(unit * unit))
        level = norm / math.sqrt(self.delta * x.size)

        def turn(carry: tuple[Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array], None]:
            rest, coefficients, level = carry
            clipped = jnp.clip(self._frame(rest, words), -level, level)
            rest = rest - self._frame_back(clipped, words, x.size)
            return (rest, coefficients + clipped, level * self.eta), None

        start = (unit, jnp.zeros(self.num_coefficients(x.size), x.dtype), level)
        (rest, coefficients, level), _ = jax.lax.scan(turn, start, length=self.num_iters - 1)
        last = self._frame(rest, words)
        if self.last_iter_clip:
            coefficients = coefficients + jnp.clip(last, -level, level)
            coefficients *= norm / nonzero(jnp.sqrt(jnp.sum(coefficients * coefficients)))
        else:
            coefficients = coefficients + last
        return {"values": coefficients * largest}

    def decode(self, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec) -> Array:
        del parameters, num_summands
        y = encoded["values"].astype(compute_dtype(spec.dtype))
        if spec.size:
            y = self._frame_back(y, self._words(spec.size), spec.size)
        return y.reshape(spec.shape).astype(spec.dtype)

    def _frame(self, x: Array, words: Words) -> Array:
        y = jnp.pad(x, (0, self.num_coefficients(x.size) - x.size))
        for own in words.reshape(self.rounds, -1):
            y = rotate(y, own, max(y.size, _MIN_BLOCK))
        return y

    def _frame_back(self, y: Array, words: Words, size: int) -> Array:
        for own in words.reshape(self.rounds, -1)[::-1]:
            y = rotate_back(y, own, max(y.size, _MIN_BLOCK))
        return y[:size]

    def _words(self, size: int) -> Words:
        """The words of signs of all rounds, one after another."""
        return constant_sign_words(self.seed, self.rounds * num_sign_words(self.num_coefficients(size)))

"""Dithered quantization to the lattice E8: eight entries at a time, a ninth of a bit better than one at a time.

E8 is D8, the points of eight integers with an even sum, together with D8 + 1/2 (all entries moved by 1/2). A unit of
volume has one point; its cell's second moment per entry is 929/12960, where the integers have 1/12 (Conway and Sloane
1982, "Voronoi regions of lattices, second moments of polytopes, and quantization"). Points are stored doubled, as
integers.
"""

import dataclasses
import functools
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from laconic.codecs import random
from laconic.codecs._registry import register
from laconic.codecs._specs import TensorSpec
from laconic.codecs._stage import Arrays
from laconic.codecs.coders._e8_coder import DIMENSIONS
from laconic.codecs.random import Key
from laconic.codecs.stages._floats import compute_dtype
from laconic.codecs.stages._grid import OwnStep
from laconic.codecs.stages._rounding import LARGEST_CODE, in_steps
from laconic.codecs.stages._scaling import magnitude, root_mean_square

SECOND_MOMENT = 929 / 12960
"""The variance, per entry, of a point that is uniform over the lattice's Voronoi cell."""

_UNIT = 2**23  # dithers are whole numbers of 1 / _UNIT
_LARGEST = 2.0**23  # beyond it float32 has no fractions left; no step that a stage chooses leads there


@register
@dataclasses.dataclass(frozen=True)
class DitheredLattice(OwnStep):
    """Subtractive dithered quantization to E8: q = Q(x / step - u), x^ = (q + u) step, eight entries at a time.

    Q gives the nearest point of the lattice, and u is uniform over the points' Voronoi cell; both ends make it from the
    key. The error is uniform over the cell, with variance 929/12960 step**2 an entry, and independent of x, for every x
    (Zamir and Feder 1996, "On lattice quantization noise"). The n entries are in one dimension; with
    m = ceil(n / 8), entries j, j + m, ..., j + 7 m are a block, and zeros fill the last ones.

    To be coded by `E8Coder`, which alone knows that the entries of a block depend on one another.

    Args: one of
      step: the step itself, the same for all: nothing travels, and encodings commute with the sum.
      step_in_rms: the step over the tensor's root mean square.
      nmse: expected |x^ - x|^2 / |x|^2, exact for any x: step = sqrt(12960/929 nmse |x|^2 / d).
      bits_per_parameter: the rate, all of the tensor's bytes counted; found by encoding a few times.
    """

    name: ClassVar[str] = "dithered_e8"
    outputs: ClassVar[tuple[str, ...]] = ("points", "step")
    compressible: ClassVar[tuple[str, ...]] = ("points",)
    regenerated: ClassVar[tuple[str, ...]] = ("dither",)
    num_contexts: ClassVar[int] = 256

    def is_in_range(self, x: Array, parameters: Arrays) -> Bool[Array, ""] | bool:
        del parameters
        # Half as far as for codes of the integers, since the points are doubled.
        return self.step is None or magnitude(x.astype(compute_dtype(x.dtype))) < self.step * (LARGEST_CODE // 2)

    def regenerate(self, key: Key, spec: TensorSpec) -> dict[str, Array]:
        """The dither: z less its nearest point, for z uniform in [0, 2), of which E8 contains all multiples.

        In whole numbers: the two ends might otherwise disagree about what is nearest where two points nearly are.
        """
        z = (random.bits(key, _padded(spec.size)) >> 8).astype(jnp.int32).reshape(DIMENSIONS, -1)
        doubled = nearest_points(z >> 23, z & (_UNIT - 1), _UNIT)
        dither = (z - doubled * (_UNIT // 2)).reshape(-1)
        return {"dither": dither.astype(jnp.float32) * np.float32(1 / _UNIT)}

    def contexts(self, regenerated: Arrays) -> dict[str, Array]:
        """Which of 256 equal parts of [-1, 1] each entry of the dither is in."""
        part = (regenerated["dither"] + 1) * (self.num_contexts // 2)
        return {"points": jnp.minimum(part, self.num_contexts - 1).astype(jnp.uint8)}

    def encode(self, key: Key, x: Array, parameters: Arrays) -> dict[str, Array]:
        dither = self.regenerate(key, TensorSpec("", x.shape, np.dtype(x.dtype)))["dither"]
        x = x.reshape(-1).astype(compute_dtype(x.dtype))
        step = self.chosen_step(x, parameters)
        y = jnp.pad(in_steps(x, step), (0, dither.size - x.size)) - dither
        # All that follows must see the same y, however it is compiled: a sum's parity hangs on the last place.
        y = jax.lax.optimization_barrier(jnp.clip(y, -_LARGEST, _LARGEST)).reshape(DIMENSIONS, -1)
        whole = jnp.floor(y)
        points = nearest_points(whole.astype(jnp.int32), y - whole, 1).reshape(-1)
        return {"points": jnp.where(step > 0, points, 0), "step": self.sent_step(step)}

    def decode(self, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec) -> Array:
        del num_summands
        dtype = compute_dtype(spec.dtype)
        y = encoded["points"][: spec.size].astype(dtype) / 2 + encoded["dither"][: spec.size].astype(dtype)
        return (y * self.received_step(encoded, parameters, dtype)).reshape(spec.shape).astype(spec.dtype)

    def expected_nmse(self, size: int) -> float | None:
        del size
        return self.nmse if self.step_in_rms is None else SECOND_MOMENT * self.step_in_rms**2

    def expected_error(self, x: Array, step: Array) -> Array:
        return x.size * SECOND_MOMENT * step * step

    def step_of_nmse(self, x: Array, nmse: float) -> Array:
        return math.sqrt(nmse / SECOND_MOMENT) * root_mean_square(x)


def nearest_points(
    whole: Int[Array, "8 blocks"], fraction: Float[Array, "8 blocks"] | Int[Array, "8 blocks"], one: int
) -> Int[Array, "8 blocks"]:
    """Twice the points of E8 that are nearest to whole + fraction / one, one block a column.

    The nearest point of D8 has each entry rounded, and, if the sum is odd, the one that was rounded furthest rounded
    the other way (Conway and Sloane 1982, "Fast quantizing and decoding algorithms for lattice quantizers and codes").
    With errors e_i from rounding y, those from rounding y - 1/2 are 1/2 - |e_i| in magnitude, so that the two squared
    distances differ by a sum of terms that are linear in |e_i|: in integers the choice is exact.

    Args:
      whole: floors of the entries.
      fraction: what is left, in [0, one).
      one: what the fractions are counted in.
    """
    # Row by row, since XLA does not fuse what follows a reduction with what goes before it.
    wholes, fractions = list(whole), list(fraction)
    ups = [each > one - each for each in fractions]
    errors = [jnp.minimum(each, one - each) for each in fractions]
    floors_are_odd = _odd(sum(wholes))
    roundings_are_odd = _odd(sum(wholes) + sum(each.astype(whole.dtype) for each in ups))
    largest, smallest = functools.reduce(jnp.maximum, errors), functools.reduce(jnp.minimum, errors)
    # |y - b|^2 - |y - a|^2 for the nearest a of D8 and b of D8 + 1/2.
    excess = 2 * one - sum(errors)
    excess += jnp.where(floors_are_odd, 2 * smallest, 0) - jnp.where(roundings_are_odd, one - 2 * largest, 0)
    is_half = excess < 0
    furthest = jnp.where(is_half, smallest, largest)
    is_wrong = jnp.where(is_half, floors_are_odd, roundings_are_odd)
    rows = []
    for integer, is_up, error in zip(wholes, ups, errors, strict=True):
        turns = is_wrong & (error == furthest)
        is_wrong &= ~turns  # of several that are furthest, the first alone
        rounded = integer + (is_up & ~is_half) + jnp.where(turns, jnp.where(is_up == is_half, 1, -1), 0)
        rows.append(2 * rounded + is_half)
    return jnp.stack(rows)


def _odd(numbers: Array) -> Array:
    return (numbers & 1) == 1


def _padded(size: int) -> int:
    return -(-size // DIMENSIONS) * DIMENSIONS

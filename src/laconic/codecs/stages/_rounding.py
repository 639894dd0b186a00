"""Rounding to an unbounded grid: with a subtractive dither that both ends know, or at random.

Where the step comes from is another's concern: see `_grid.py` (from the values, or given) and `_adaptive.py` (from the
server). On a common step both commute with the sum: integers are added. Which is better turns on the rate: above about
half a bit a shared dither saves up to half a bit per parameter at the same error; far below, most codes are zero, and
random rounding then leaves the zeros without error.
"""

import abc
import math
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from laconic.codecs import random
from laconic.codecs._specs import TensorSpec
from laconic.codecs._stage import Arrays
from laconic.codecs.random import Key
from laconic.codecs.stages._floats import FloatStage, compute_dtype
from laconic.codecs.stages._scaling import magnitude, nonzero, normalised, root_mean_square

LARGEST_CODE = 2**20
"""Of a common step: the sum of 2,047 codes fits 32 bits, and float32 holds four bits after the point."""

FINEST = 2.0**-22
"""Of a step that follows the values, over their maximum: float32 itself ends soon after."""

_LARGEST = 2**24  # up to which float32 holds all whole numbers


class Rounding(FloatStage):
    """What dithered and random rounding have in common."""

    outputs: ClassVar[tuple[str, ...]] = ("codes", "step")
    compressible: ClassVar[tuple[str, ...]] = ("codes",)
    is_unbiased = True
    is_linear = True
    is_stochastic = True

    @abc.abstractmethod
    def chosen_step(self, x: Array, parameters: Arrays) -> Float[Array, ""]:
        """The step for these values, a vector in the dtype of computation; zero only if all of them are."""

    @abc.abstractmethod
    def sent_step(self, step: Array) -> Array:
        """What the receiver is told of the step: one number, or none."""

    @abc.abstractmethod
    def received_step(self, encoded: Arrays, parameters: Arrays, dtype: jnp.dtype) -> Array:
        """The step as the receiver knows it."""

    def largest_code(self, size: int) -> int:
        """What no code of a vector of this size is above."""
        del size
        return _LARGEST

    @abc.abstractmethod
    def expected_error(self, x: Array, step: Array) -> Array:
        """The expected squared error of rounding a vector with this step, summed."""

    @abc.abstractmethod
    def step_of_nmse(self, x: Array, nmse: float) -> Array:
        """The step at which the expected squared error is this share of |x|^2."""

    def narrowed(self, y: Array, size: int) -> Array:
        """Whole numbers as codes, in the narrowest integers for those of a vector of this size."""
        largest = self.largest_code(size)
        dtype = next(dtype for dtype in (jnp.int8, jnp.int16, jnp.int32) if largest <= np.iinfo(dtype).max)
        limit = min(_LARGEST, np.iinfo(dtype).max)
        return jnp.clip(y, -limit, limit).astype(dtype)


class DitheredRounding(Rounding):
    """q = round(x / step - u), x^ = (q + u) step, with u uniform in [-1/2, 1/2) from the key."""

    regenerated: ClassVar[tuple[str, ...]] = ("dither",)
    num_contexts: ClassVar[int] = 8

    def regenerate(self, key: Key, spec: TensorSpec) -> dict[str, Array]:
        return {"dither": random.uniform(key, (spec.size,)) - 0.5}

    def contexts(self, regenerated: Arrays) -> dict[str, Array]:
        return {"codes": ((regenerated["dither"] + 0.5) * self.num_contexts).astype(jnp.uint8)}

    def encode(self, key: Key, x: Array, parameters: Arrays) -> dict[str, Array]:
        dither = self.regenerate(key, TensorSpec("", x.shape, np.dtype(x.dtype)))["dither"]
        shape, x = x.shape, x.reshape(-1).astype(compute_dtype(x.dtype))
        step = self.chosen_step(x, parameters)
        codes = jnp.where(step > 0, jnp.round(in_steps(x, step) - dither), 0)
        return {"codes": self.narrowed(codes, x.size).reshape(shape), "step": self.sent_step(step)}

    def decode(self, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec) -> Array:
        del num_summands
        dtype = compute_dtype(spec.dtype)
        y = encoded["codes"].reshape(-1).astype(dtype) + encoded["dither"].astype(dtype)
        return (y * self.received_step(encoded, parameters, dtype)).reshape(spec.shape).astype(spec.dtype)

    def expected_error(self, x: Array, step: Array) -> Array:
        return x.size / 12 * step * step

    def step_of_nmse(self, x: Array, nmse: float) -> Array:
        return math.sqrt(12 * nmse) * root_mean_square(x)


class RandomRounding(Rounding):
    """q = floor(x / step + v), x^ = q step, with v uniform in [0, 1), known to the encoding end alone."""

    def encode(self, key: Key, x: Array, parameters: Arrays) -> dict[str, Array]:
        shape, x = x.shape, x.reshape(-1).astype(compute_dtype(x.dtype))
        step = self.chosen_step(x, parameters)
        # Not floor(y + v): rounded, y + v would take a tiny y's chance away.
        y = jnp.where(step > 0, in_steps(x, step), 0)
        codes = rounded_at_random(key, y, lambda part: self.narrowed(part, y.size))
        return {"codes": codes.reshape(shape), "step": self.sent_step(step)}

    def decode(self, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec) -> Array:
        del num_summands
        dtype = compute_dtype(spec.dtype)
        x = encoded["codes"].astype(dtype) * self.received_step(encoded, parameters, dtype)
        return x.reshape(spec.shape).astype(spec.dtype)

    def expected_error(self, x: Array, step: Array) -> Array:
        y = x / step
        fraction = y - jnp.floor(y)
        return jnp.sum(fraction * (1 - fraction)) * step * step

    def step_of_nmse(self, x: Array, nmse: float) -> Array:
        unit, largest = normalised(x)
        energy = jnp.sum(unit * unit)
        # Where no entry exceeds the step, the error is step |x|_1 - |x|^2.
        coarse = (nmse + 1) * energy / nonzero(jnp.sum(jnp.abs(unit)))
        return largest * jax.lax.cond(coarse >= 1, lambda: coarse, lambda: self._refined(unit, coarse, nmse * energy))

    def _refined(self, unit: Array, first: Array, error: Array) -> Array:
        """The step with this expected squared error.

        Errors grow with the step to a power between one and two, so this contracts at least threefold each time.
        """

        def better(_: int, step: Array) -> Array:
            now = nonzero(jnp.maximum(self.expected_error(unit, step), error * 1e-6))
            return jnp.clip(step * (error / now) ** (2 / 3), step / 1000, step * 1000)

        return jax.lax.fori_loop(0, 14, better, nonzero(jnp.minimum(first, 1)))


def rounded_at_random(key: Key, y: Float[Array, " n"], narrowed: Callable[[Array], Array]) -> Num[Array, " n"]:
    """floor(y), or with the chance of what that cuts off the next integer, narrowed to integers."""
    parts, start = [], 0
    for uniform in random.uniform_quarters(key, y.size):
        own = jax.lax.slice(y, (start,), (start + uniform.size,))
        floor = jnp.floor(own)
        parts.append(narrowed(floor + (uniform < own - floor)))
        start += uniform.size
    return jnp.concatenate(parts)


def in_steps(x: Array, step: Array) -> Array:
    """The quotient x / step, or x if the step is zero."""
    # XLA may multiply by a reciprocal, which for a step near the dtype's end would be flushed to zero.
    factor = jnp.where(step > 1, 2.0**-8, 1).astype(x.dtype)
    return (x * factor) / nonzero(step * factor)


def no_finer_than_floats(step: Array, x: Array) -> Array:
    """A step that follows the values, but not below what their dtype can tell apart."""
    return jnp.maximum(step, magnitude(x) * FINEST).astype(x.dtype)


def guessed_step(x: Array, rate: float) -> Array:
    """About the step at which x takes this rate, in bits per parameter."""
    return (3 / rate if rate < 0.7 else math.sqrt(12 / (4 ** (rate - 0.25) - 1))) * root_mean_square(x)

"""Sums of magnitudes and squares that do not leave the dtype on the way, whatever the scale."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

_SMALLEST_SQUARE = 2.0**-100
"""On average: what float32 loses of smaller ones, 2**-126 at most of each, is then below its precision."""


def magnitude(x: Array) -> Array:
    """The largest absolute value; zero if there is none."""
    return jnp.max(jnp.abs(x), initial=0)


def nonzero(x: Array) -> Array:
    """A number to divide by: one in place of zero."""
    return jnp.where(x > 0, x, 1)


def normalised(x: Array, axis: int | None = None) -> tuple[Array, Array]:
    """`x` over its largest magnitude, and that magnitude; zeros stay zeros.

    Args:
      x: float32 or float64, of any scale.
      axis: along which the largest is taken, and kept as an axis of one; None for all of `x`, and a scalar.
    """
    largest = jnp.max(jnp.abs(x), axis=axis, keepdims=axis is not None, initial=0)
    # XLA may multiply by a reciprocal, which for a divisor near the dtype's end is flushed to zero; so the divisor is
    # moved towards one first, by a power of two. It may also square the divisor of a square; the barrier forbids that.
    power = 2.0 ** (jnp.finfo(x.dtype).maxexp // 4)  # type: ignore[no-untyped-call]
    factor = jnp.where(largest > 1, 1 / power, power).astype(x.dtype)
    divisor = jax.lax.optimization_barrier(nonzero(largest * factor))
    return (x * factor) / divisor, largest


def root_mean_square(x: Array) -> Array:
    """Of the entries; zero if there are none."""
    size = max(x.size, 1)
    squares = jnp.sum(jnp.multiply(x, x))

    def careful() -> Array:
        unit, largest = normalised(x)
        return largest * jnp.sqrt(jnp.sum(unit * unit) / size)

    # One pass instead of three, unless squares left the dtype: above it, or so far below that what was lost would tell.
    is_usual = jnp.isfinite(squares) & (squares > size * _SMALLEST_SQUARE)
    return jax.lax.cond(is_usual, lambda: jnp.sqrt(squares / size), careful)


def sum_of_magnitudes(x: Array) -> Array:
    """Of the entries, but at most 1e30 or the largest of them."""
    unit, largest = normalised(x)
    total = jnp.sum(jnp.abs(unit))
    return jnp.maximum(jnp.minimum(total, 1e30 / jnp.maximum(largest, 1)) * largest, largest)

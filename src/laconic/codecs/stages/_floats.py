"""Stages of floating-point arrays: what they refuse, and in which precision they compute."""

import jax.numpy as jnp

from laconic.codecs._specs import TensorSpec
from laconic.codecs._stage import Stage
from laconic.errors import ArgumentTypeError


class FloatStage(Stage):
    """A stage that takes all floating-point arrays, and nothing else."""

    def check(self, spec: TensorSpec) -> None:
        check_float(self.name, spec)


def check_float(what: str, spec: TensorSpec) -> None:
    """Raises ArgumentTypeError, in the name of what takes it, unless the array is of floats."""
    if not spec.is_float:
        raise ArgumentTypeError(
            f"{spec.name or 'value'} is {spec}, but {what} takes floating-point arrays; use codecs.identity() for "
            "integers"
        )


def compute_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """Half precision is computed in float32: 16-bit codes have more levels than it has values."""
    return jnp.promote_types(dtype, jnp.float32)


def largest_float(dtype: jnp.dtype | str) -> float:
    """The dtype's largest finite number."""
    return float(jnp.finfo(dtype).max)  # type: ignore[no-untyped-call]

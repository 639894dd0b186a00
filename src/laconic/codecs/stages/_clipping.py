"""Clipping: what bounds an update before it is weighted, quantized or hidden in noise."""

import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array

from laconic.codecs._arguments import checked_number, checked_positive
from laconic.codecs._registry import register
from laconic.codecs._stage import Arrays
from laconic.codecs.random import Key
from laconic.codecs.stages._floats import compute_dtype
from laconic.codecs.stages._passing import Passing
from laconic.codecs.stages._scaling import normalised
from laconic.errors import ArgumentError


@register
@dataclasses.dataclass(frozen=True)
class ClipByNorm(Passing):
    """Scales a tensor whose L2 norm exceeds `bound` down to it: x min(1, bound / |x|). Biased if it does.

    Args:
      bound: above zero, in the unit of the tensor's entries.
    """

    name: ClassVar[str] = "clip_by_norm"

    bound: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "bound", checked_positive(self.bound, "bound"))

    def encode(self, key: Key, x: Array, parameters: Arrays) -> dict[str, Array]:
        del key, parameters
        unit, largest = normalised(x.astype(compute_dtype(x.dtype)))
        # The norm itself, largest * norm, might leave the dtype.
        norm = jnp.maximum(jnp.sqrt(jnp.sum(unit * unit)), 1)
        clipped = unit * (self.bound / norm)
        return {"values": jnp.where(largest > self.bound / norm, clipped.astype(x.dtype), x)}


@register
@dataclasses.dataclass(frozen=True)
class ClipByValue(Passing):
    """Moves entries outside low..high to the nearer end. Biased if there are any.

    Args:
      low: below high.
      high: above low.
    """

    name: ClassVar[str] = "clip_by_value"

    low: float
    high: float

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            object.__setattr__(self, name, checked_number(getattr(self, name), name))
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ArgumentError(f"low and high must be finite with low < high, got {self.low} and {self.high}")

    def encode(self, key: Key, x: Array, parameters: Arrays) -> dict[str, Array]:
        del key, parameters
        return {"values": jnp.clip(x.astype(compute_dtype(x.dtype)), self.low, self.high).astype(x.dtype)}

"""Difference coding of integers, and quantization by channel."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from laconic.codecs import random
from laconic.codecs._registry import register
from laconic.codecs._specs import TensorSpec
from laconic.codecs._stage import Arrays, Stage
from laconic.codecs.random import Key
from laconic.codecs.stages._basic import check_bits, compute_dtype
from laconic.codecs.stages._rounding import check_float
from laconic.errors import ArgumentTypeError

_WIDER = {"int8": "int16", "uint8": "int16", "int16": "int32", "uint16": "int32"}


@register
@dataclasses.dataclass(frozen=True)
class Difference(Stage):
    """Differences between neighbouring integers, in C order; the first entry is its difference from zero.

    Small where neighbours are alike, as in sorted positions. Lossless, and linear, so it commutes with the sum.
    Integers of 8 and 16 bits come out in twice as many, in which no difference overflows; for wider ones it must not.
    """

    name: ClassVar[str] = "difference"

    @property
    def commutes_with_sum(self) -> bool:
        return True

    @property
    def is_lossless(self) -> bool:
        return True

    @property
    def is_linear(self) -> bool:
        return True

    def check(self, spec: TensorSpec) -> None:
        if spec.dtype.kind not in "iu":
            raise ArgumentTypeError(
                f"{spec.name or 'value'} is {spec}, but {self.name} takes integers; quantize floats first"
            )
        if spec.dtype.name in ("uint32", "uint64"):
            raise ArgumentTypeError(
                f"{spec.name or 'value'} is {spec}, whose differences are signed and do not fit as many bits; use "
                f"int{8 * spec.dtype.itemsize}"
            )

    def is_in_range(self, x: Array, parameters: Arrays) -> Array | bool:
        del parameters
        if x.dtype.name in _WIDER or x.size < 2:
            return True
        flat = x.reshape(-1)
        before, after = flat[:-1], flat[1:]
        difference = after - before
        # Wrapped around, a difference has another sign than its operands' order.
        return jnp.all((difference >= 0) == (after >= before))

    def encode(self, key: Key, x: Array, parameters: Arrays) -> dict[str, Array]:
        del key, parameters
        x = x.reshape(-1).astype(_WIDER.get(x.dtype.name, x.dtype))
        return {"values": jnp.concatenate([x[:1], x[1:] - x[:-1]])}

    def decode(self, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec) -> Array:
        del parameters, num_summands
        return jnp.cumsum(encoded["values"]).reshape(spec.shape).astype(spec.dtype)


@register
@dataclasses.dataclass(frozen=True)
class PerChannelQuantizer(Stage):
    """Uniform quantization with a range for each channel, that is for each index of the last axis.

    As `UniformQuantizer`, with L = 2**bits - 1 and each channel's own minimum and maximum: the code is (x - low) /
    (high - low) * L, rounded at random or half to even, and stands for low + code / L * (high - low). The ranges
    travel: 64 bits for a channel (of float64, 128). An array of fewer than two dimensions is one channel.

    The codes come out in one dimension, in C order.

    Args:
      bits: width of a code, 1 to 16.
      stochastic: whether to round stochastically: unbiased.
    """

    name: ClassVar[str] = "per_channel_quantizer"
    outputs: ClassVar[tuple[str, ...]] = ("quantized", "ranges")
    compressible: ClassVar[tuple[str, ...]] = ("quantized",)

    bits: int = 8
    stochastic: bool = True

    def __post_init__(self) -> None:
        check_bits(self.bits)
        if not isinstance(self.stochastic, bool):
            raise ArgumentTypeError(f"stochastic must be True or False, got {self.stochastic!r}")

    @property
    def is_stochastic(self) -> bool:
        return self.stochastic

    @property
    def is_unbiased(self) -> bool:
        return self.stochastic

    @property
    def is_linear(self) -> bool:
        return True

    def check(self, spec: TensorSpec) -> None:
        check_float(self, spec)

    def encode(self, key: Key, x: Array, parameters: Arrays) -> dict[str, Array]:
        del parameters
        x = x.reshape(_by_channel(x.shape)).astype(compute_dtype(x.dtype))
        ranges = jnp.stack([x.min(axis=0), x.max(axis=0)]) if x.size else jnp.zeros((2, x.shape[1]), x.dtype)
        position = positions(x, ranges[0], ranges[1], 2**self.bits - 1)
        if self.stochastic:
            floor = jnp.floor(position)
            codes = floor + (random.uniform(key, x.shape) < position - floor)
        else:
            codes = jnp.round(position)
        quantized = codes.reshape(-1).astype(jnp.uint8 if self.bits <= 8 else jnp.uint16)
        return {"quantized": quantized, "ranges": ranges}

    def decode(self, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec) -> Array:
        del parameters, num_summands
        low, high = encoded["ranges"].astype(compute_dtype(spec.dtype))
        codes = encoded["quantized"].reshape(_by_channel(spec.shape))
        return values(codes, low, high, 2**self.bits - 1).reshape(spec.shape).astype(spec.dtype)


def positions(x: Array, low: Array, high: Array, levels: int) -> Float[Array, "..."]:
    """Where each entry lies on its range's scale of 0..levels; 0 where the range is a point."""
    # A large width could overflow, and its reciprocal, by which XLA may multiply instead, underflow to zero.
    scale = jnp.where(high / 2 - low / 2 > 1, 2.0**-8, 1.0).astype(x.dtype)
    width = high * scale - low * scale
    position = jnp.clip((x * scale - low * scale) / jnp.where(width > 0, width, 1) * levels, 0, levels)
    # A rounded reciprocal may also miss the upper end by an ulp.
    return jnp.where((x >= high) & (low < high), levels, position)


def values(codes: Num[Array, "..."], low: Array, high: Array, levels: int) -> Float[Array, "..."]:
    """What positions on the scale stand for; 0 and `levels` for exactly the ends."""
    share = codes.astype(low.dtype) / levels
    # This form does not overflow as high - low would.
    x = jnp.clip(low * (1 - share) + high * share, low, high)
    return jnp.where(codes >= levels, high, jnp.where(low == high, low, x))


def _by_channel(shape: tuple[int, ...]) -> tuple[int, int]:
    """As a matrix whose columns are the channels."""
    channels = shape[-1] if len(shape) > 1 else 1
    return int(np.prod(shape, dtype=np.int64)) // max(channels, 1), channels

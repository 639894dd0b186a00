"""Uniform quantization: to equally spaced levels between the ends of a range, of which a tensor has one or many."""

import dataclasses
import math
import numbers
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from laconic.codecs._arguments import check_bits, check_flag
from laconic.codecs._registry import register
from laconic.codecs._specs import TensorSpec
from laconic.codecs._stage import Arrays
from laconic.codecs.random import Key
from laconic.codecs.stages._floats import FloatStage, check_float, compute_dtype
from laconic.codecs.stages._rounding import rounded_at_random
from laconic.errors import ArgumentError, ArgumentTypeError


class _RangeQuantizer(FloatStage):
    """What quantizers with one range and with many have in common."""

    outputs: ClassVar[tuple[str, ...]] = ("quantized", "ranges")
    compressible: ClassVar[tuple[str, ...]] = ("quantized",)
    is_linear = True

    bits: int
    stochastic: bool

    def __post_init__(self) -> None:
        check_bits(self.bits)
        check_flag(self.stochastic, "stochastic")

    @property
    def is_stochastic(self) -> bool:
        return self.stochastic

    @property
    def is_unbiased(self) -> bool:
        return self.stochastic

    def _positions(self, x: Array, low: Array, high: Array) -> Float[Array, "..."]:
        """Where each entry lies on its range's scale of 0..2**bits - 1; 0 where the range is a point."""
        levels = 2**self.bits - 1
        # A large width could overflow, and its reciprocal, by which XLA may multiply instead, underflow to zero.
        scale = jnp.where(high / 2 - low / 2 > 1, 2.0**-8, 1.0).astype(x.dtype)
        width = high * scale - low * scale
        position = jnp.clip((x * scale - low * scale) / jnp.where(width > 0, width, 1) * levels, 0, levels)
        # A rounded reciprocal may also miss the upper end by an ulp.
        return jnp.where((x >= high) & (low < high), levels, position)

    def _rounded(self, key: Key, position: Float[Array, " n"]) -> Num[Array, " n"]:
        """The codes of positions, in one dimension: there XLA vectorises the generator's loop, seven times faster."""
        dtype = jnp.uint8 if self.bits <= 8 else jnp.uint16
        if self.stochastic:
            return rounded_at_random(key, position, lambda codes: codes.astype(dtype))
        return jnp.round(position).astype(dtype)

    def _values(
        self, codes: Num[Array, "..."], low: Array, high: Array, num_summands: int | Array = 1
    ) -> Float[Array, "..."]:
        """What codes, or sums of them, stand for; 0 and the highest for exactly the ends."""
        codes, levels = codes.astype(low.dtype), 2**self.bits - 1
        position = codes / levels
        lowest, highest = low * num_summands, high * num_summands
        # This form does not overflow as high - low would. Rounded, it may miss the ends, which are to come out exactly.
        x = jnp.clip(low * (num_summands - position) + high * position, lowest, highest)
        x = jnp.where(codes >= jnp.asarray(num_summands, low.dtype) * levels, highest, x)
        return jnp.where(low == high, lowest, x)


@register
@dataclasses.dataclass(frozen=True)
class UniformQuantizer(_RangeQuantizer):
    """Rounds to one of `2**bits` equally spaced levels (Konečný et al. 2016, "Federated Learning: Strategies ...", 3).

    With L = 2**bits - 1 steps over a range lo..hi, y = (x - lo) / (hi - lo) * L; the code is floor(y) + [u < f] with
    uniform u and f = y - floor(y) when stochastic, else y rounded half to even; x^ = lo + code / L * (hi - lo). A step
    is (hi - lo) / L; rounding stochastically is unbiased with variance f (1 - f) step**2.

    The codes come out in one dimension.

    Args:
      bits: width of a code, 1 to 16.
      value_range: the range lo < hi. None takes the array's own minimum and maximum, which then travel (2 floats), and
        an array of equal elements decodes exactly. A given range is a constant of the codec: nothing travels, encodings
        commute with the sum, and values outside it are clipped to it (a bias).
      stochastic: whether to round stochastically.
    """

    name: ClassVar[str] = "uniform_quantizer"
    outputs: ClassVar[tuple[str, ...]] = ("quantized", "range")

    bits: int = 8
    value_range: tuple[float, float] | None = None
    stochastic: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.value_range is not None:
            object.__setattr__(self, "value_range", _checked_range(self.value_range))

    @property
    def commutes_with_sum(self) -> bool:
        """Only codes on a common grid may be added."""
        return self.value_range is not None

    @property
    def is_unbiased(self) -> bool:
        """Only without clipping to a given range."""
        return self.stochastic and self.value_range is None

    def check(self, spec: TensorSpec) -> None:
        check_float("uniform quantization", spec)
        if self.value_range is not None:
            with np.errstate(over="ignore"):
                low, high = np.asarray(self.value_range).astype(compute_dtype(spec.dtype))
            if not (np.isfinite(low) and np.isfinite(high) and low < high):
                raise ArgumentError(
                    f"value_range {self.value_range} is ({low}, {high}) in the precision of "
                    f"{spec.name or 'value'}, {spec}; it must be finite with low < high"
                )

    def encode(self, key: Key, x: Array, parameters: Arrays) -> dict[str, Array]:
        del parameters
        x = x.reshape(-1).astype(compute_dtype(x.dtype))
        if self.value_range is not None:
            bounds = jnp.asarray(self.value_range, x.dtype)
        else:
            bounds = jnp.stack([x.min(), x.max()]) if x.size else jnp.zeros(2, x.dtype)
        quantized = self._rounded(key, self._positions(x, bounds[0], bounds[1]))
        return {"quantized": quantized, "range": bounds if self.value_range is None else jnp.zeros(0, x.dtype)}

    def decode(self, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec) -> Array:
        del parameters
        dtype = compute_dtype(spec.dtype)
        bounds = encoded["range"].astype(dtype) if self.value_range is None else jnp.asarray(self.value_range, dtype)
        x = self._values(encoded["quantized"], bounds[0], bounds[1], num_summands)
        return x.reshape(spec.shape).astype(spec.dtype)


@register
@dataclasses.dataclass(frozen=True)
class PerChannelQuantizer(_RangeQuantizer):
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

    bits: int = 8
    stochastic: bool = True

    def encode(self, key: Key, x: Array, parameters: Arrays) -> dict[str, Array]:
        del parameters
        x = x.reshape(_by_channel(x.shape)).astype(compute_dtype(x.dtype))
        ranges = jnp.stack([x.min(axis=0), x.max(axis=0)]) if x.size else jnp.zeros((2, x.shape[1]), x.dtype)
        return {"quantized": self._rounded(key, self._positions(x, *ranges).reshape(-1)), "ranges": ranges}

    def decode(self, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec) -> Array:
        del parameters, num_summands
        low, high = encoded["ranges"].astype(compute_dtype(spec.dtype))
        codes = encoded["quantized"].reshape(_by_channel(spec.shape))
        return self._values(codes, low, high).reshape(spec.shape).astype(spec.dtype)


@register
@dataclasses.dataclass(frozen=True)
class BlockQuantizer(_RangeQuantizer):
    """`UniformQuantizer` with a range for each `block_size` entries, in C order; the last block may be shorter.

    After a block Hadamard transform each block of coefficients is as large as its block of the vector was, which
    differs widely over a model: one range for all would be the largest block's. The ranges travel: 64 bits for a block
    (of float64, 128).

    The codes come out in one dimension, in C order.

    Args:
      bits: width of a code, 1 to 16.
      block_size: entries of a block, 1 or more.
      stochastic: whether to round stochastically: unbiased.
    """

    name: ClassVar[str] = "block_quantizer"

    bits: int = 8
    block_size: int = 2**13
    stochastic: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.block_size, bool) or not isinstance(self.block_size, int):
            raise ArgumentTypeError(f"block_size must be an integer, got {self.block_size!r}")
        if self.block_size < 1:
            raise ArgumentError(f"block_size must be 1 or more, got {self.block_size}")

    def encode(self, key: Key, x: Array, parameters: Arrays) -> dict[str, Array]:
        del parameters
        x = x.reshape(-1).astype(compute_dtype(x.dtype))
        blocks = self._blocks(x)
        ranges = jnp.stack([blocks.min(axis=1), blocks.max(axis=1)]) if x.size else jnp.zeros((2, 0), x.dtype)
        low, high = ranges[:, :, None]
        return {
            "quantized": self._rounded(key, self._positions(blocks, low, high).reshape(-1)[: x.size]),
            "ranges": ranges,
        }

    def decode(self, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec) -> Array:
        del parameters, num_summands
        low, high = encoded["ranges"].astype(compute_dtype(spec.dtype))[:, :, None]
        x = self._values(self._blocks(encoded["quantized"]), low, high)
        return x.reshape(-1)[: spec.size].reshape(spec.shape).astype(spec.dtype)

    def _blocks(self, x: Array) -> Num[Array, "blocks entries"]:
        """The vector's blocks as rows; the last is filled up with its last entry, which changes no range."""
        if not x.size:
            return x.reshape(0, 1)
        width = min(self.block_size, x.size)
        return jnp.pad(x, (0, -x.size % width), mode="edge").reshape(-1, width)


def _checked_range(value_range: tuple[float, float]) -> tuple[float, float]:
    is_pair = isinstance(value_range, tuple | list) and len(value_range) == 2
    if not is_pair or not all(isinstance(bound, numbers.Real) for bound in value_range):
        raise ArgumentTypeError(f"value_range must be a pair of numbers (low, high), got {value_range!r}")
    low, high = map(float, value_range)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ArgumentError(f"value_range must be finite with low < high, got ({low}, {high})")
    return low, high


def _by_channel(shape: tuple[int, ...]) -> tuple[int, int]:
    """As a matrix whose columns are the channels."""
    channels = shape[-1] if len(shape) > 1 else 1
    return int(np.prod(shape, dtype=np.int64)) // max(channels, 1), channels

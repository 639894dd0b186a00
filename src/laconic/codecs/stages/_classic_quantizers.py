"""The quantizers of the federated learning literature: QSGD, TernGrad, scaled signs, natural compression, casts."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from laconic.codecs import random
from laconic.codecs._arguments import check_flag, check_whole, checked_positive
from laconic.codecs._registry import register
from laconic.codecs._specs import TensorSpec
from laconic.codecs._stage import Arrays
from laconic.codecs.random import Key
from laconic.codecs.stages._floats import FloatStage, compute_dtype, largest_float
from laconic.codecs.stages._gaussian import MEAN_MAGNITUDE, clipped_ternary_nmse, stochastic_rounding_nmse, ternary_nmse
from laconic.codecs.stages._scaling import magnitude, nonzero, normalised
from laconic.errors import ArgumentError, ArgumentTypeError

CAST_DTYPES = ("float16", "bfloat16", "float32")
MAX_LEVELS = 2**15 - 1


@register
@dataclasses.dataclass(frozen=True)
class Cast(FloatStage):
    """Floats in a narrower dtype; those that are as narrow already stay as they are.

    Values that the dtype cannot hold are an error, never infinite.

    Args:
      dtype: "float16", "bfloat16" or "float32".
      stochastic: whether to round at random to one of the two neighbours, unbiased, and not to the nearest, half to
        even. For bfloat16, of tensors of up to 32 bits.
    """

    name: ClassVar[str] = "cast"
    commutes_with_sum = True  # since sums are kept in 32 bits or more
    is_linear = True

    dtype: str
    stochastic: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in CAST_DTYPES:
            raise ArgumentError(f"dtype must be one of {', '.join(map(repr, CAST_DTYPES))}, got {self.dtype!r}")
        check_flag(self.stochastic, "stochastic")
        if self.stochastic and self.dtype != "bfloat16":
            raise ArgumentError(f"a stochastic cast is to 'bfloat16', got {self.dtype!r}; leave out stochastic")

    @property
    def is_unbiased(self) -> bool:
        return self.stochastic

    @property
    def is_stochastic(self) -> bool:
        return self.stochastic

    def expected_nmse(self, size: int) -> float:
        """For a wider dtype; its logarithm to base two taken as uniform, on average over scales."""
        del size
        # A place 2^(e - m) at 2^e s: the mean of s^-2 over uniform log2(s) in [0, 1) is 3 / (8 ln 2).
        place = 4.0 ** -jnp.finfo(self.dtype).nmant * 3 / (8 * math.log(2))  # type: ignore[no-untyped-call]
        return float(place / (6 if self.stochastic else 12))

    def check(self, spec: TensorSpec) -> None:
        super().check(spec)
        if self.stochastic and spec.dtype == np.float64:
            raise ArgumentTypeError(
                f"{spec.name or 'value'} is {spec}, but a stochastic cast takes up to 32 bits; use float32 arrays, or "
                "round to the nearest"
            )

    def is_in_range(self, x: Array, parameters: Arrays) -> Bool[Array, ""] | bool:
        del parameters
        if self._keeps(x.dtype):
            return True
        if self.stochastic:
            return magnitude(x) <= largest_float(self.dtype)
        return jnp.isfinite(x.astype(self.dtype)).all()

    def encode(self, key: Key, x: Array, parameters: Arrays) -> dict[str, Array]:
        del parameters
        if self._keeps(x.dtype):
            return {"values": x}
        values = _stochastic_bfloat16(key, x) if self.stochastic else x.astype(self.dtype)
        # Or XLA may take a cast there and back, as of an encoder that looks at its own error, for nothing.
        return {"values": jax.lax.optimization_barrier(values)}

    def decode(self, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec) -> Array:
        del parameters, num_summands
        return encoded["values"].astype(spec.dtype)

    def _keeps(self, dtype: np.dtype) -> bool:
        return dtype.itemsize <= jnp.dtype(self.dtype).itemsize


def _stochastic_bfloat16(key: Key, x: Array) -> Array:
    """Float32 in the upper half of its bits, after uniform random bits were added in the lower half."""
    bits = jax.lax.bitcast_convert_type(x.reshape(-1), jnp.uint32) + (random.bits(key, x.size) >> 16)
    return jax.lax.bitcast_convert_type((bits >> 16).astype(jnp.uint16), jnp.bfloat16).reshape(x.shape)


@register
@dataclasses.dataclass(frozen=True)
class Qsgd(FloatStage):
    """Stochastic rounding of |x_i| over the norm of its bucket to multiples of 1 / levels (Alistarh et al. 2017, 3.1).

    x^_i = norm sign(x_i) q_i / levels, where q_i is levels |x_i| / norm rounded up or down at random, unbiased. A
    norm beyond the dtype's largest number is replaced by that, which is still no less than any entry.

    Args:
      levels: number of steps from 0 to the norm, 1 to 32767.
      bucket_size: consecutive entries that share an L2 norm, which travels; None for all of the tensor.
    """

    name: ClassVar[str] = "qsgd"
    outputs: ClassVar[tuple[str, ...]] = ("codes", "norms")
    compressible: ClassVar[tuple[str, ...]] = ("codes",)
    is_unbiased = True
    is_linear = True
    is_stochastic = True

    levels: int = 15
    bucket_size: int | None = 128

    def __post_init__(self) -> None:
        check_whole(self.levels, "levels", 1, MAX_LEVELS)
        if self.bucket_size is not None:
            check_whole(self.bucket_size, "bucket_size", 1, 2**31 - 1)

    def expected_nmse(self, size: int) -> float:
        bucket = self._bucket(size)
        rest = size % bucket
        whole = stochastic_rounding_nmse(bucket, self.levels)
        return (whole * (size - rest) + stochastic_rounding_nmse(rest, self.levels) * rest) / max(size, 1)

    def encode(self, key: Key, x: Array, parameters: Arrays) -> dict[str, Array]:
        del parameters
        flat = x.reshape(-1).astype(compute_dtype(x.dtype))
        buckets = jnp.pad(flat, (0, -flat.size % self._bucket(flat.size))).reshape(-1, self._bucket(flat.size))
        unit, largest = normalised(buckets, axis=1)
        # The norm over the largest entry, both scaled down so that no divisor's reciprocal is flushed to zero.
        limit = largest_float(x.dtype)
        ratio = jnp.sqrt(jnp.sum(unit * unit, axis=1, keepdims=True))
        ratio = jnp.clip(ratio, 1, (limit * 2.0**-32) / (jnp.maximum(largest, 1) * 2.0**-32))
        norms = jnp.minimum(largest * ratio, limit)
        y = (jnp.abs(unit) / ratio * self.levels).reshape(-1)[: flat.size]
        floor = jnp.floor(y)
        # A branch of its own, since XLA is slow where the generator's loop is fused with one over two dimensions.
        drawn = jax.lax.cond(
            jnp.max(largest, initial=0) > 0,
            lambda: random.uniform(key, y.shape),
            lambda: jnp.zeros(y.shape, jnp.float32),
        )
        steps = jnp.minimum(floor + (drawn < y - floor), self.levels)
        codes = (jnp.sign(flat) * steps).astype(jnp.int8 if self.levels < 128 else jnp.int16)
        return {"codes": codes, "norms": norms.reshape(-1)}

    def decode(self, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec) -> Array:
        del parameters, num_summands
        dtype, bucket = compute_dtype(spec.dtype), self._bucket(spec.size)
        norms = encoded["norms"].astype(dtype)
        norms = jnp.broadcast_to(norms[:, None], (norms.size, bucket)).reshape(-1)[: spec.size]
        x = encoded["codes"].astype(dtype) / self.levels * norms
        return x.reshape(spec.shape).astype(spec.dtype)

    def _bucket(self, size: int) -> int:
        return max(1, size if self.bucket_size is None else min(size, self.bucket_size))


@register
@dataclasses.dataclass(frozen=True)
class Ternary(FloatStage):
    """TernGrad: x^_i is sign(x_i) s with probability |x_i| / s, else zero; s = max|x| (Wen et al. 2017, equation 3).

    Args:
      clip: entries are first clipped to this many root mean squares, a bias that lowers the variance; the paper takes
        2.5 standard deviations. None does not clip.
    """

    name: ClassVar[str] = "ternary"
    outputs: ClassVar[tuple[str, ...]] = ("codes", "scale")
    compressible: ClassVar[tuple[str, ...]] = ("codes",)
    is_linear = True
    is_stochastic = True

    clip: float | None = None

    def __post_init__(self) -> None:
        if self.clip is not None:
            object.__setattr__(self, "clip", checked_positive(self.clip, "clip"))

    @property
    def is_unbiased(self) -> bool:
        return self.clip is None

    def expected_nmse(self, size: int) -> float | None:
        return ternary_nmse(size) if self.clip is None else clipped_ternary_nmse(size, self.clip)

    def encode(self, key: Key, x: Array, parameters: Arrays) -> dict[str, Array]:
        del parameters
        unit, scale = normalised(x.reshape(-1).astype(compute_dtype(x.dtype)))
        if self.clip is not None:
            # About zero and not about the mean: a constant tensor is not clipped to nothing.
            bound = jnp.minimum(self.clip * jnp.sqrt(jnp.sum(unit * unit) / max(x.size, 1)), 1)
            unit, scale = jnp.clip(unit / nonzero(bound), -1, 1), scale * bound
        drawn = random.uniform(key, unit.shape) < jnp.abs(unit)
        return {"codes": (jnp.sign(unit) * drawn).astype(jnp.int8), "scale": scale.reshape(1)}

    def decode(self, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec) -> Array:
        del parameters, num_summands
        x = encoded["codes"].astype(compute_dtype(spec.dtype)) * encoded["scale"]
        return x.reshape(spec.shape).astype(spec.dtype)


@register
@dataclasses.dataclass(frozen=True)
class Sign(FloatStage):
    """Signs times the mean magnitude |x|_1 / d (Karimireddy et al. 2019, "Error feedback fixes SignSGD", section 4).

    Codes are 1 for x >= 0, else 0. The error is |x|^2 - |x|_1^2 / d, the least that any scale reaches.
    """

    name: ClassVar[str] = "sign"
    outputs: ClassVar[tuple[str, ...]] = ("codes", "scale")
    compressible: ClassVar[tuple[str, ...]] = ("codes",)

    def expected_nmse(self, size: int) -> float:
        return (1 - MEAN_MAGNITUDE**2) * (size - 1) / size if size else 0.0

    def encode(self, key: Key, x: Array, parameters: Arrays) -> dict[str, Array]:
        del key, parameters
        flat = x.reshape(-1).astype(compute_dtype(x.dtype))
        unit, largest = normalised(flat)
        scale = largest * (jnp.sum(jnp.abs(unit)) / max(x.size, 1))
        return {"codes": (flat >= 0).astype(jnp.uint8), "scale": scale.reshape(1)}

    def decode(self, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec) -> Array:
        del parameters, num_summands
        scale = encoded["scale"][0].astype(compute_dtype(spec.dtype))
        return jnp.where(encoded["codes"] > 0, scale, -scale).reshape(spec.shape).astype(spec.dtype)


@register
@dataclasses.dataclass(frozen=True)
class Natural(FloatStage):
    """Stochastic rounding to powers of two: the mantissa is dropped (Horváth et al. 2019, definition 1).

    |x| in [2^e, 2^(e + 1)) becomes 2^(e + 1) with probability |x| / 2^e - 1, else 2^e. The code is the sign times how
    far the exponent lies below the tensor's largest, plus one; zero for zero. That exponent travels.
    """

    name: ClassVar[str] = "natural"
    outputs: ClassVar[tuple[str, ...]] = ("codes", "exponent")
    compressible: ClassVar[tuple[str, ...]] = ("codes",)
    is_unbiased = True
    is_stochastic = True

    def expected_nmse(self, size: int) -> float:
        """The mean of (s - 1) (2 - s) / s^2 over uniform log2(s) in [0, 1), on average over scales; at most 1/8."""
        del size
        return 0.75 / math.log(2) - 1

    def is_in_range(self, x: Array, parameters: Arrays) -> Bool[Array, ""] | bool:
        """Up to the dtype's largest power of two: what lies above could be rounded up to infinity."""
        del parameters
        return magnitude(x) <= 2.0 ** (jnp.finfo(x.dtype).maxexp - 1)  # type: ignore[no-untyped-call]

    def encode(self, key: Key, x: Array, parameters: Arrays) -> dict[str, Array]:
        del parameters
        x = x.reshape(-1).astype(compute_dtype(x.dtype))
        mantissa_bits, integer = _float_layout(x.dtype)
        bits = jax.lax.bitcast_convert_type(jnp.abs(x), integer)
        # The mantissa is the chance, in units of its last place: a random mantissa carries into the exponent.
        exponents = ((bits + _random_bits(key, x.size, mantissa_bits)) >> mantissa_bits).astype(jnp.int16)
        largest = jnp.max(exponents, initial=0)
        codes = jnp.where(exponents > 0, largest - exponents + 1, 0).astype(jnp.int16)
        return {"codes": jnp.where(x < 0, -codes, codes), "exponent": largest.reshape(1)}

    def decode(self, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec) -> Array:
        del parameters, num_summands
        dtype = compute_dtype(spec.dtype)
        mantissa_bits, integer = _float_layout(dtype)
        codes = encoded["codes"].astype(jnp.int32)
        exponents = encoded["exponent"][0].astype(jnp.int32) + 1 - jnp.abs(codes)
        # No encoder sends exponents that are not those of finite numbers.
        exponents = jnp.where(codes == 0, 0, jnp.clip(exponents, 0, 2 * jnp.finfo(dtype).maxexp - 2))  # type: ignore[no-untyped-call]
        values = jax.lax.bitcast_convert_type(exponents.astype(integer) << mantissa_bits, dtype)
        return jnp.where(codes < 0, -values, values).reshape(spec.shape).astype(spec.dtype)


def _float_layout(dtype: jnp.dtype) -> tuple[int, jnp.dtype]:
    """Bits of a float's mantissa, and the integers of its width."""
    return (52, jnp.dtype(jnp.uint64)) if dtype == jnp.float64 else (23, jnp.dtype(jnp.uint32))


def _random_bits(key: Key, size: int, width: int) -> Array:
    """Uniform integers of 23 bits, as uint32, or of 52, as uint64."""
    if width == 23:
        return random.bits(key, size) >> 9
    words = random.bits(key, 2 * size).astype(jnp.uint64)
    return (words[:size] << 20) | (words[size:] >> 12)

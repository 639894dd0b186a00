"""The stages that need nothing but arithmetic: identity, flatten, uniform quantization."""

import dataclasses
import math
import numbers
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from laconic.codecs import random
from laconic.codecs._registry import register
from laconic.codecs._specs import TensorSpec
from laconic.codecs._stage import Arrays, Stage
from laconic.codecs.random import Key
from laconic.errors import ArgumentError, ArgumentTypeError


class _Lossless(Stage):
    """What identity and flatten have in common: values move, nothing is computed."""

    @property
    def commutes_with_sum(self) -> bool:
        return True

    @property
    def is_lossless(self) -> bool:
        return True

    @property
    def is_linear(self) -> bool:
        return True


@register
@dataclasses.dataclass(frozen=True)
class Identity(_Lossless):
    """Passes the array through."""

    name: ClassVar[str] = "identity"

    def encode(self, key: Key, x: Array, parameters: Arrays) -> dict[str, Array]:
        del key, parameters
        return {"values": x}

    def decode(self, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec) -> Array:
        del parameters, num_summands
        return encoded["values"].astype(spec.dtype)


@register
@dataclasses.dataclass(frozen=True)
class Flatten(_Lossless):
    """Reshapes the array, a scalar too, to one dimension."""

    name: ClassVar[str] = "flatten"

    def encode(self, key: Key, x: Array, parameters: Arrays) -> dict[str, Array]:
        del key, parameters
        return {"values": x.reshape(-1)}

    def decode(self, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec) -> Array:
        del parameters, num_summands
        return encoded["values"].reshape(spec.shape).astype(spec.dtype)


@register
@dataclasses.dataclass(frozen=True)
class UniformQuantizer(Stage):
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
    compressible: ClassVar[tuple[str, ...]] = ("quantized",)

    bits: int = 8
    value_range: tuple[float, float] | None = None
    stochastic: bool = True

    def __post_init__(self) -> None:
        check_bits(self.bits)
        if not isinstance(self.stochastic, bool):
            raise ArgumentTypeError(f"stochastic must be True or False, got {self.stochastic!r}")
        if self.value_range is not None:
            object.__setattr__(self, "value_range", _checked_range(self.value_range))

    @property
    def commutes_with_sum(self) -> bool:
        """Only codes on a common grid may be added."""
        return self.value_range is not None

    @property
    def is_linear(self) -> bool:
        return True

    @property
    def is_stochastic(self) -> bool:
        return self.stochastic

    @property
    def is_unbiased(self) -> bool:
        """Only without clipping to a given range."""
        return self.stochastic and self.value_range is None

    def check(self, spec: TensorSpec) -> None:
        if not spec.is_float:
            raise ArgumentTypeError(
                f"{spec.name or 'value'} is {spec}, but uniform quantization takes floating-point arrays; use "
                "codecs.identity() for integers"
            )
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
        # Codes in one dimension, where XLA vectorises the generator's loop; in two it takes seven times longer.
        x = x.reshape(-1).astype(compute_dtype(x.dtype))
        bounds = self._bounds(x)
        low, high = bounds[0], bounds[1]
        # A large width could overflow, and its reciprocal, by which XLA may multiply instead, underflow to zero.
        scale = jnp.where(high / 2 - low / 2 > 1, 2.0**-8, 1.0).astype(x.dtype)
        width = high * scale - low * scale
        levels = 2**self.bits - 1
        # Where low == high, the quotient is 0 / 1.
        y = jnp.clip((x * scale - low * scale) / jnp.where(width > 0, width, 1) * levels, 0, levels)
        # A rounded reciprocal may also miss the upper end by an ulp.
        y = jnp.where((x >= high) & (low < high), levels, y)
        if self.stochastic:
            floor = jnp.floor(y)
            code = floor + (random.uniform(key, x.shape) < y - floor)
        else:
            code = jnp.round(y)
        quantized = code.astype(jnp.uint8 if self.bits <= 8 else jnp.uint16)
        return {"quantized": quantized, "range": bounds if self.value_range is None else jnp.zeros(0, x.dtype)}

    def decode(self, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec) -> Array:
        del parameters
        dtype = compute_dtype(spec.dtype)
        bounds = encoded["range"] if self.value_range is None else jnp.asarray(self.value_range, dtype)
        low, high = bounds[0], bounds[1]
        codes, levels = encoded["quantized"].astype(dtype), 2**self.bits - 1
        lowest, highest = low * num_summands, high * num_summands
        position = codes / levels
        # This form does not overflow as high - low would. Rounded, it may miss the ends, which are to come out exactly.
        x = jnp.clip(low * (num_summands - position) + high * position, lowest, highest)
        x = jnp.where(codes == jnp.asarray(num_summands, dtype) * levels, highest, x)
        x = jnp.where(low == high, lowest, x)
        return x.reshape(spec.shape).astype(spec.dtype)

    def _bounds(self, x: Array) -> Array:
        if self.value_range is not None:
            return jnp.asarray(self.value_range, x.dtype)
        if x.size == 0:
            return jnp.zeros(2, x.dtype)
        return jnp.stack([x.min(), x.max()])


def check_bits(bits: int) -> None:
    """Raises unless `bits` is a whole number from 1 to 16."""
    if isinstance(bits, bool) or not isinstance(bits, int):
        raise ArgumentTypeError(f"bits must be a whole number from 1 to 16, got {bits!r} of type {type(bits).__name__}")
    if not 1 <= bits <= 16:
        raise ArgumentError(f"bits must lie in 1..16, got {bits}")


def _checked_range(value_range: tuple[float, float]) -> tuple[float, float]:
    is_pair = isinstance(value_range, tuple | list) and len(value_range) == 2
    if not is_pair or not all(isinstance(bound, numbers.Real) for bound in value_range):
        raise ArgumentTypeError(f"value_range must be a pair of numbers (low, high), got {value_range!r}")
    low, high = map(float, value_range)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ArgumentError(f"value_range must be finite with low < high, got ({low}, {high})")
    return low, high


def compute_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """Half precision is computed in float32: 16-bit codes have more levels than it has values."""
    return jnp.promote_types(dtype, jnp.float32)


_compute_dtype = compute_dtype

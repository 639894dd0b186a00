"""Quantizers for Gaussian entries, and those that rotate any vector to such entries first: EDEN and, at one bit, DRIVE.

Vargaftik et al. 2021, "DRIVE: One-bit distributed mean estimation"; 2022, "EDEN: Communication-efficient and robust
distributed mean estimation for federated learning".
"""

import abc
import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from laconic.codecs import random
from laconic.codecs._arguments import check_bits, check_flag, checked_number
from laconic.codecs._registry import register
from laconic.codecs._specs import TensorSpec
from laconic.codecs._stage import Arrays
from laconic.codecs.random import Key
from laconic.codecs.stages import _codebooks
from laconic.codecs.stages._codebooks import MAX_BITS
from laconic.codecs.stages._floats import FloatStage, compute_dtype, largest_float
from laconic.codecs.stages._rotation import Rotation, inverse
from laconic.codecs.stages._scaling import magnitude, normalised
from laconic.errors import ArgumentError

MIN_BITS = 0.01
STEPS = (2.0**-7, 8.0)
"""The least and the largest step of `EdenUniform`, in root mean squares."""

_LEAST_CODES = 16  # of a block: of fewer, the estimate of its size would vary without bound
_LEAST_SIZE = 1024  # entries, below which theory, made for many, promises too much


@register
@dataclasses.dataclass(frozen=True)
class LloydMax(FloatStage):
    """The 2**bits levels with the least mean squared error for Gaussian entries, scaled to the tensor.

    The code is the index of the centroid next to x_i sqrt(d) / |x|, and stands for that centroid times <x, c> / |c|^2,
    by which the centroids c are closest to x. Biased, towards zero: <x, x^> = |x^|^2.

    The codes come out in one dimension.

    Args:
      bits: width of a code, 1 to 8.
    """

    name: ClassVar[str] = "lloyd_max"
    outputs: ClassVar[tuple[str, ...]] = ("codes", "scale")
    compressible: ClassVar[tuple[str, ...]] = ("codes",)

    bits: int = 4

    def __post_init__(self) -> None:
        check_bits(self.bits, MAX_BITS)

    def expected_nmse(self, size: int) -> float | None:
        return _codebooks.distortion(self.bits) if size >= _LEAST_SIZE else None

    def is_in_range(self, x: Array, parameters: Arrays) -> Array | bool:
        del parameters
        return _leaves_room(x, 8)

    def encode(self, key: Key, x: Array, parameters: Arrays) -> dict[str, Array]:
        del key, parameters
        unit, largest = normalised(x.reshape(-1).astype(compute_dtype(x.dtype)))
        gain = jnp.sqrt(x.size * inverse(jnp.sum(unit * unit)))
        codes = _codebooks.quantize(unit * gain, self.bits)
        levels = _codebooks.values(codes, self.bits, unit.dtype)
        scale = largest * jnp.sum(unit * levels) * inverse(jnp.sum(levels * levels))
        return {"codes": codes, "scale": scale.reshape(1)}

    def decode(self, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec) -> Array:
        del parameters, num_summands
        levels = _codebooks.values(encoded["codes"], self.bits, compute_dtype(spec.dtype))
        return (levels * encoded["scale"]).reshape(spec.shape).astype(spec.dtype)


class RotatedQuantizer(FloatStage):
    """What EDEN's variants have in common: x^ = scale R^T q, with q the quantized entries of y = R x.

    R rotates blocks of the vector at random, see `_rotation.py`, and is drawn for each encoding: with one for all
    clients their errors would be alike and not average out. Each block has a scale of its own, which travels. With
    |y|^2 / <y, q> the estimate is unbiased, whatever function of y is q, since it is the same for all vectors that
    rotating about x makes of y; with <y, q> / |q|^2 it is the closest.
    """

    regenerated: ClassVar[tuple[str, ...]] = ("words",)

    unbiased: bool

    def __post_init__(self) -> None:
        check_flag(self.unbiased, "unbiased")

    @property
    def is_unbiased(self) -> bool:
        """To all that can be measured: `_rotation.py` says how near its rotations come to uniform ones."""
        return self.unbiased

    @property
    @abc.abstractmethod
    def distortion(self) -> float:
        """The mean squared error of the levels for a standard normal variable."""

    @abc.abstractmethod
    def quantized(self, rotation: Rotation, z: Array) -> dict[str, Array]:
        """Codes, by output, of entries whose mean square is one in each block."""

    @abc.abstractmethod
    def levels(self, rotation: Rotation, encoded: Arrays, dtype: jnp.dtype) -> Array:
        """What the codes stand for, up to the blocks' scales."""

    def expected_nmse(self, size: int) -> float | None:
        if size < _LEAST_SIZE:
            return None
        return self.distortion / (1 - self.distortion) if self.unbiased else self.distortion

    def is_in_range(self, x: Array, parameters: Arrays) -> Array | bool:
        del parameters
        return _leaves_room(x, 128 if x.dtype == jnp.float16 else 1024)

    def regenerate(self, key: Key, spec: TensorSpec) -> dict[str, Array]:
        return {"words": random.bits(key, Rotation(spec.size).num_words)}

    def encode(self, key: Key, x: Array, parameters: Arrays) -> dict[str, Array]:
        del parameters
        rotation = Rotation(x.size)
        words = self.regenerate(key, TensorSpec("", x.shape, np.dtype(x.dtype)))["words"]
        x = jnp.asarray(x.reshape(-1), compute_dtype(x.dtype))
        if x.size == 0:
            return self.quantized(rotation, x) | {"scales": x}
        groups = [normalised(group, axis=1) for group in rotation.of_blocks(x)]
        unit, largest = (jnp.concatenate([group[i].reshape(-1) for group in groups]) for i in range(2))
        y = rotation.rotate(unit, words)
        energy, sizes = rotation.sums(y * y), jnp.asarray(rotation.sizes, x.dtype)
        gain = jnp.sqrt(sizes * inverse(energy))
        z = y * rotation.spread(gain)
        encoded = self.quantized(rotation, z)
        q = self.levels(rotation, encoded, x.dtype)
        product = rotation.sums(z * q)
        if self.unbiased:
            scales = jnp.sqrt(energy * sizes) * inverse(product)
        else:
            scales = inverse(gain) * product * inverse(rotation.sums(q * q))
        return encoded | {"scales": scales * largest}

    def decode(self, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec) -> Array:
        del parameters, num_summands
        dtype = compute_dtype(spec.dtype)
        if spec.size == 0:
            return jnp.zeros(spec.shape, spec.dtype)
        rotation = Rotation(spec.size)
        y = self.levels(rotation, encoded, dtype) * rotation.spread(encoded["scales"].astype(dtype))
        return rotation.rotate_back(y, encoded["words"]).reshape(spec.shape).astype(spec.dtype)


@register
@dataclasses.dataclass(frozen=True)
class Eden(RotatedQuantizer):
    """EDEN: rotated entries quantized to Lloyd-Max levels, at any rate.

    At a rate between two whole numbers of bits a share of each block's entries, the first, has one bit more than the
    rest; which ones does not matter after a random rotation. Below one bit the rest has none, and counts as zero; a
    block has at least 16 codes, or as many as entries.

    `codes` holds the entries with the greater number of bits, `rest` the others, each in one dimension.

    Args:
      bits: bits per entry, 0.01 to 8, not counting 32 (64 for float64) for the scale of each block.
      unbiased: whether the scale makes the estimate unbiased; if not, closest.
    """

    name: ClassVar[str] = "eden"
    outputs: ClassVar[tuple[str, ...]] = ("codes", "rest", "scales")
    compressible: ClassVar[tuple[str, ...]] = ("codes", "rest")

    bits: float = 1.0
    unbiased: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "bits", checked_rate(self.bits, MIN_BITS, MAX_BITS, "bits"))

    @property
    def code_bits(self) -> int:
        """Bits of a code."""
        return math.ceil(self.bits)

    @property
    def rest_bits(self) -> int:
        """Bits of an entry of the rest, which is empty if it has as many as a code."""
        return math.floor(self.bits)

    @property
    def distortion(self) -> float:
        share = self.bits - self.rest_bits
        fine, coarse = _codebooks.distortion(self.code_bits), _codebooks.distortion(self.rest_bits)
        return share * fine + (1 - share) * coarse if share else fine

    def quantized(self, rotation: Rotation, z: Array) -> dict[str, Array]:
        groups = rotation.of_blocks(z)
        codes = [group[:, : self._count(group.shape[1])].reshape(-1) for group in groups]
        rest = [group[:, self._count(group.shape[1]) :].reshape(-1) for group in groups]
        return {
            "codes": _codebooks.quantize(_joined(codes, z), self.code_bits),
            "rest": _codebooks.quantize(_joined(rest, z) if self.rest_bits else z[:0], self.rest_bits),
        }

    def levels(self, rotation: Rotation, encoded: Arrays, dtype: jnp.dtype) -> Array:
        fine = _codebooks.values(encoded["codes"], self.code_bits, dtype)
        if self.rest_bits == self.code_bits:
            return fine
        coarse = encoded["rest"]
        # Of no bits nothing is sent, and all stand for zero.
        if not self.rest_bits:
            coarse = jnp.zeros(rotation.size - fine.size, jnp.uint8)
        coarse = _codebooks.values(coarse, self.rest_bits, dtype)
        parts, fine_end, coarse_end = [], 0, 0
        for rows, size in rotation.groups:
            count = self._count(size)
            fine_start, fine_end = fine_end, fine_end + rows * count
            coarse_start, coarse_end = coarse_end, coarse_end + rows * (size - count)
            first = fine[fine_start:fine_end].reshape(rows, count)
            last = coarse[coarse_start:coarse_end].reshape(rows, size - count)
            parts.append(jnp.concatenate([first, last], axis=1).reshape(-1))
        return _joined(parts, fine)

    def _count(self, size: int) -> int:
        """How many of a block's entries have the greater number of bits."""
        if self.rest_bits == self.code_bits:
            return size
        count = round((self.bits - self.rest_bits) * size)
        return count if self.rest_bits else min(size, max(count, _LEAST_CODES))


@register
@dataclasses.dataclass(frozen=True)
class EdenUniform(RotatedQuantizer):
    """EDEN for an entropy coder: rotated entries in cells of one width, decoded to the cells' Gaussian centroids.

    The code is z_i / step rounded to even, z being the rotated entries over their block's root mean square; the largest
    entry of a block, if all of its codes were zero, has +-1. Of unbiased quantizers of single Gaussian entries it takes
    the least, above all below one bit.

    The codes come out in one dimension, int16.

    Args:
      step: the cells' width in root mean squares, 2**-7 to 8; `eden` finds it for a rate.
      unbiased: whether the scale makes the estimate unbiased; if not, closest.
    """

    name: ClassVar[str] = "eden_uniform"
    outputs: ClassVar[tuple[str, ...]] = ("codes", "scales")
    compressible: ClassVar[tuple[str, ...]] = ("codes",)

    step: float
    unbiased: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "step", checked_rate(self.step, *STEPS, "step"))

    @property
    def distortion(self) -> float:
        return _codebooks.uniform_distortion(self.step)

    def quantized(self, rotation: Rotation, z: Array) -> dict[str, Array]:
        codes = jnp.round(z / self.step)
        if z.size:
            largest = rotation.magnitudes(z)
            # Else such a block would decode to zero, and not on average to itself.
            is_zero = rotation.spread(jnp.round(largest / self.step) == 0)
            codes = jnp.where(is_zero & (jnp.abs(z) >= rotation.spread(largest)), jnp.sign(z), codes)
        limit = np.iinfo(np.int16).max
        return {"codes": jnp.clip(codes, -limit, limit).astype(jnp.int16)}

    def levels(self, rotation: Rotation, encoded: Arrays, dtype: jnp.dtype) -> Array:
        del rotation
        return _codebooks.uniform_values(encoded["codes"], self.step, dtype)


def checked_rate(value: object, low: float, high: float, name: str) -> float:
    """The value as a float in low..high.

    Raises:
      ArgumentError: if it is outside.
      ArgumentTypeError: if it is not a number.
    """
    number = checked_number(value, name)
    if not low <= number <= high:
        raise ArgumentError(f"{name} must lie in {low}..{high}, got {value}")
    return number


def _leaves_room(x: Array, factor: int) -> Array:
    """Whether values so many times larger than any of these fit the dtype."""
    return magnitude(x) <= largest_float(x.dtype) / factor


def _joined(parts: list[Array], otherwise: Array) -> Array:
    return jnp.concatenate(parts) if parts else otherwise

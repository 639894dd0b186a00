"""Uniform quantization with a range for each block of neighbouring entries."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Num

from laconic.codecs import random
from laconic.codecs._registry import register
from laconic.codecs._specs import TensorSpec
from laconic.codecs._stage import Arrays, Stage
from laconic.codecs.random import Key
from laconic.codecs.stages._basic import check_bits, compute_dtype
from laconic.codecs.stages._rounding import check_float
from laconic.codecs.stages._transforms import positions, values
from laconic.errors import ArgumentError, ArgumentTypeError


@register
@dataclasses.dataclass(frozen=True)
class BlockQuantizer(Stage):
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
    outputs: ClassVar[tuple[str, ...]] = ("quantized", "ranges")
    compressible: ClassVar[tuple[str, ...]] = ("quantized",)

    bits: int = 8
    block_size: int = 2**13
    stochastic: bool = True

    def __post_init__(self) -> None:
        check_bits(self.bits)
        if isinstance(self.block_size, bool) or not isinstance(self.block_size, int):
            raise ArgumentTypeError(f"block_size must be an integer, got {self.block_size!r}")
        if self.block_size < 1:
            raise ArgumentError(f"block_size must be 1 or more, got {self.block_size}")
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
        x = x.reshape(-1).astype(compute_dtype(x.dtype))
        blocks = self._blocks(x)
        ranges = jnp.stack([blocks.min(axis=1), blocks.max(axis=1)]) if x.size else jnp.zeros((2, 0), x.dtype)
        low, high = (bound[:, None] for bound in ranges)
        position = positions(blocks, low, high, 2**self.bits - 1).reshape(-1)[: x.size]
        if self.stochastic:
            floor = jnp.floor(position)
            codes = floor + (random.uniform(key, x.shape) < position - floor)
        else:
            codes = jnp.round(position)
        return {"quantized": codes.astype(jnp.uint8 if self.bits <= 8 else jnp.uint16), "ranges": ranges}

    def decode(self, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec) -> Array:
        del parameters, num_summands
        low, high = (bound[:, None] for bound in encoded["ranges"].astype(compute_dtype(spec.dtype)))
        x = values(self._blocks(encoded["quantized"]), low, high, 2**self.bits - 1)
        return x.reshape(-1)[: spec.size].reshape(spec.shape).astype(spec.dtype)

    def _blocks(self, x: Array) -> Num[Array, "blocks entries"]:
        """The vector's blocks as rows; the last is filled up with its last entry, which changes no range."""
        if not x.size:
            return x.reshape(0, 1)
        width = min(self.block_size, x.size)
        return jnp.pad(x, (0, -x.size % width), mode="edge").reshape(-1, width)

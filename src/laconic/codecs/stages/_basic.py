"""The stages that lose nothing: identity, flatten, and differences of integers."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array

from laconic.codecs._registry import register
from laconic.codecs._specs import TensorSpec
from laconic.codecs._stage import Arrays, Stage
from laconic.codecs.random import Key
from laconic.errors import ArgumentTypeError

_WIDER = {"int8": "int16", "uint8": "int16", "int16": "int32", "uint16": "int32"}


class _Lossless(Stage):
    """What all of them have in common."""

    commutes_with_sum = True
    is_lossless = True
    is_linear = True


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
class Difference(_Lossless):
    """Differences between neighbouring integers, in C order; the first entry is its difference from zero.

    Small where neighbours are alike, as in sorted positions. Lossless, and linear, so it commutes with the sum.
    Integers of 8 and 16 bits come out in twice as many, in which no difference overflows; for wider ones it must not.
    """

    name: ClassVar[str] = "difference"

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

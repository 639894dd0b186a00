"""What is coded as one: a tensor by itself, or several joined to one vector."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from laconic.codecs._codec import Codec
from laconic.codecs._registry import register
from laconic.codecs._specs import TensorSpec
from laconic.codecs.stages._basic import Flatten
from laconic.errors import ArgumentError, ArgumentTypeError


@register
@dataclasses.dataclass(frozen=True)
class Concatenate(Flatten):
    """Joins all tensors that have the same codec, if it begins with this stage, to one vector; below others, flattens.

    Floats of several dtypes are joined in the one that holds them all.

    Args:
      group: tells apart codecs that are otherwise the same, so that their tensors make several vectors.
    """

    name: ClassVar[str] = "concatenate"

    group: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.group, bool) or not isinstance(self.group, int):
            raise ArgumentTypeError(f"group must be an integer, got {self.group!r} of type {type(self.group).__name__}")
        if self.group < 0:
            raise ArgumentError(f"group must be 0 or more, got {self.group}")


@dataclasses.dataclass(frozen=True)
class Unit:
    """What one codec encodes as one array.

    Attributes:
      codec: the codec.
      spec: of the array; one-dimensional if it joins several tensors.
      members: positions of the tensors that it joins.
    """

    codec: Codec
    spec: TensorSpec
    members: tuple[int, ...]


def units_of(codecs: Sequence[Codec], specs: Sequence[TensorSpec]) -> tuple[Unit, ...]:
    """The units of a tree, in the order of their first tensors.

    Raises:
      ArgumentTypeError: if tensors that are to be joined have no common dtype that holds each.
    """
    groups: dict[Any, list[int]] = {}
    for position, codec in enumerate(codecs):
        groups.setdefault(codec if isinstance(codec.stage, Concatenate) else position, []).append(position)
    return tuple(
        Unit(codecs[members[0]], _joined_spec([specs[i] for i in members]), tuple(members))
        for members in groups.values()
    )


def join(units: Sequence[Unit], leaves: Sequence[Array]) -> list[Array]:
    """Each unit's array."""
    return [
        _joined([leaves[i] for i in unit.members], unit.spec) if len(unit.members) > 1 else leaves[unit.members[0]]
        for unit in units
    ]


def split(units: Sequence[Unit], arrays: Sequence[Array], specs: Sequence[TensorSpec]) -> list[Array]:
    """The tensors, each in its unit's dtype."""
    leaves: dict[int, Array] = {}
    for unit, array in zip(units, arrays, strict=True):
        if len(unit.members) == 1:
            leaves[unit.members[0]] = array
            continue
        start = 0
        for i in unit.members:
            leaves[i] = jax.lax.slice(array, (start,), (start + specs[i].size,)).reshape(specs[i].shape)
            start += specs[i].size
    return [leaves[i] for i in range(len(specs))]


def _joined(arrays: Sequence[Array], spec: TensorSpec) -> Array:
    # XLA's CPU compiler makes of a concatenation a loop that asks for each entry which array it is from: 5 to 20 ms for
    # the tutorial's model, and less than one by writing them side by side, as long as none is computed within that.
    joined, start = jnp.zeros(spec.size, spec.dtype), 0
    for array in jax.lax.optimization_barrier(list(arrays)):
        joined = jax.lax.dynamic_update_slice(joined, array.reshape(-1).astype(spec.dtype), (start,))
        start += array.size
    return joined


def _joined_spec(specs: Sequence[TensorSpec]) -> TensorSpec:
    first = specs[0]
    if len(specs) == 1:
        return first
    dtype = first.dtype
    for spec in specs:
        if spec.dtype != dtype and not (spec.is_float and jnp.issubdtype(dtype, jnp.floating)):
            raise ArgumentTypeError(
                f"tensors can be concatenated if they are of one dtype or all floats, got {first.name} ({first}) and "
                f"{spec.name} ({spec}); give one of them another codec"
            )
        dtype = np.dtype(jnp.promote_types(dtype, spec.dtype))
    return TensorSpec(f"{first.name} and {len(specs) - 1} more", (sum(spec.size for spec in specs),), dtype)

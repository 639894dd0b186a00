"""What goes into a bound codec and what comes out of it: refused where it does not fit, or is not finite."""

from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.tree_util import PyTreeDef
from jaxtyping import Array

from laconic.codecs._compiled import Encoded
from laconic.codecs._specs import TensorSpec, spec_of
from laconic.codecs._units import Unit
from laconic.errors import ArgumentError, DecodeError, NonFiniteError

T = TypeVar("T")


def checked_leaves(structure: PyTreeDef, specs: Sequence[TensorSpec], tree: Any) -> list[Any]:
    """The tree's arrays.

    Raises:
      ArgumentError: if the tree, or one of its arrays, is another than the codec is bound to.
    """
    leaves, found = jax.tree.flatten(tree)
    if found != structure:
        raise ArgumentError(f"the tree must have the structure {structure}, got {found}")
    return [_checked_leaf(leaf, spec) for leaf, spec in zip(leaves, specs, strict=True)]


def check_encoded(specs: Sequence[TensorSpec], units: Sequence[Unit], encoded: Encoded) -> None:
    """Raises unless what was encoded is finite, and within the range of its codec."""
    for spec in _failing(specs, encoded.finite):
        raise NonFiniteError(
            f"{spec.name or 'the array'} ({spec}) holds NaN or infinity, which is not sent; "
            "find where it comes from, or leave this sender out"
        )
    for unit in _failing(units, encoded.in_range):
        raise ArgumentError(
            f"{unit.spec.name or 'the array'} ({unit.spec}) holds values beyond the range of its codec "
            f"{unit.codec}; take a larger step, or one that follows the values"
        )


def check_received(specs: Sequence[TensorSpec], finite: Array) -> None:
    """Raises if a tensor holds NaN or infinity."""
    for spec in _failing(specs, finite):
        raise DecodeError(f"{spec.name or 'the array'} ({spec}) decodes to NaN or infinity, which no encoder sends")


def _checked_leaf(leaf: Any, spec: TensorSpec) -> Any:
    if not spec.is_of(leaf) and (found := spec_of(leaf, spec.name)) != spec:
        raise ArgumentError(f"{spec.name or 'the array'} must be {spec}, got {found}")
    if isinstance(leaf, jax.Array):
        return leaf
    try:
        with np.errstate(over="ignore"):  # a number beyond float32 becomes infinite, which is found later
            return np.asarray(leaf, spec.dtype)
    except OverflowError as error:
        raise ArgumentError(
            f"{spec.name or 'the number'} is read as {spec}, which {leaf} does not fit; use np.int64({leaf})"
        ) from error


def _failing(items: Sequence[T], passed: Any) -> list[T]:
    return [item for item, is_passed in zip(items, np.asarray(passed), strict=True) if not is_passed]

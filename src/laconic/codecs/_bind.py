"""Which codec is for which tensor."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.tree_util import PyTreeDef

from laconic.codecs._bound import BoundCodec
from laconic.codecs._codec import Codec, chain
from laconic.codecs._specs import TensorSpec, tree_specs
from laconic.codecs._stage import Stage
from laconic.errors import ArgumentError, ArgumentTypeError

CodecFor = Codec | Callable[[TensorSpec], Codec] | Any
"""A codec for all tensors, a function that gives each tensor its own, or a tree (prefix) of these."""


def bind(codec: CodecFor, tree: Any) -> BoundCodec:
    """Binds a codec to the tensors of a tree.

    Args:
      codec: a `Codec` for all tensors; a function that is called once for each tensor's `TensorSpec` and gives its
        codec; or a tree of these, of which `tree` may go deeper.
      tree: arrays, or anything with shapes and dtypes, such as `jax.ShapeDtypeStruct`s.

    Raises:
      ArgumentError: if the tree of codecs does not fit the tree, or a stage declares other outputs than it gives.
      ArgumentTypeError: if there is no codec for a tensor, or its codec cannot take it.
    """
    specs, structure = tree_specs(tree)
    return bound(_resolve(codec, specs, structure), specs, structure)


@functools.lru_cache(maxsize=256)
def bound(codecs: tuple[Codec, ...], specs: tuple[TensorSpec, ...], structure: PyTreeDef) -> BoundCodec:
    """The one `BoundCodec` of these arguments, so that nothing is compiled twice."""
    return BoundCodec(codecs, specs, structure)


def _resolve(codec: CodecFor, specs: Sequence[TensorSpec], structure: PyTreeDef) -> tuple[Codec, ...]:
    """Each tensor's codec."""
    choices, choice_structure = jax.tree.flatten(codec, is_leaf=lambda node: isinstance(node, Codec) or callable(node))
    prefix: PyTreeDef = choice_structure
    try:
        groups = prefix.flatten_up_to(jax.tree.unflatten(structure, list(specs)))
    except ValueError as error:
        raise ArgumentError(f"the tree of codecs does not fit the tree of tensors: {error}") from error
    return tuple(
        _chosen(choice, spec) for choice, group in zip(choices, groups, strict=True) for spec in jax.tree.leaves(group)
    )


def _chosen(choice: Any, spec: TensorSpec) -> Codec:
    codec = choice(spec) if callable(choice) else choice
    if isinstance(codec, Stage):
        codec = chain(codec)
    if not isinstance(codec, Codec):
        raise ArgumentTypeError(
            f"the codec of {spec.name or 'the array'} must be a Codec, such as codecs.identity(), got {codec!r:.60} of "
            f"type {type(codec).__name__}"
        )
    return codec

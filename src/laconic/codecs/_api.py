"""`encode` and `decode`: trees to self-describing bytes and back."""

from typing import Any

import jax
import numpy as np

from laconic.codecs import _description, _wire, random
from laconic.codecs._bind import CodecFor, bind, bound
from laconic.errors import DecodeError


def encode(tree: Any, codec: CodecFor, *, seed: int | None = None) -> bytes:
    """Encodes a tree of arrays to bytes that say how to decode them.

    Args:
      tree: any pytree of bool, integer, float16, bfloat16, float32 or float64 arrays, of any shape. Python numbers
        count as what JAX makes of them: bool, int32 or float32.
      codec: for all tensors, or a function or tree that gives each its own; see `bind`.
      seed: of the stages that draw, an integer of 64 bits; the same seed gives the same bytes.

    Returns:
      A payload of wire format 1 (docs/wire-format.md). An adaptive codec is used in its initial state; `bind` gives the
      form that keeps state.

    Raises:
      ArgumentError: if the codec draws and there is no seed, or a value is outside its coder's alphabet.
      ArgumentTypeError: if a leaf is not an array of a supported dtype, or its codec cannot take it.
      NonFiniteError: if a tensor holds NaN or infinity.
    """
    key = None if seed is None else random.key(seed)
    payload, _ = bind(codec, tree).encode(tree, key=key, described=True)
    return payload.blob


def decode(blob: bytes, *, like: Any = None) -> Any:
    """Decodes what `encode` gave, anywhere.

    Args:
      blob: a self-describing payload.
      like: a tree of the same structure. Needed only where the tree has nodes that bytes cannot name (named tuples,
        registered classes); dicts, lists and tuples come back by themselves.

    Returns:
      The tree, of read-only NumPy arrays.

    Raises:
      ArgumentTypeError: if `blob` is not bytes.
      DecodeError: if the bytes are anything but an undamaged payload whose stages are known here, or `like` has another
        structure.
    """
    described, sections = _wire.unframe(blob, None)
    description = _description.read(described)
    if description.is_contribution:
        raise DecodeError(
            "the payload is one of many to a receiver that holds its codec's state; decode it with that "
            "receiver's BoundCodec.gather"
        )
    if like is not None and _description.write_tree(jax.tree.structure(like)) != description.tree_bytes:
        raise DecodeError("the payload holds a tree of another structure than `like`")
    if like is None and description.opaque is not None:
        raise DecodeError(f"the tree has a node of class {description.opaque!r}, which bytes cannot make; pass like=")
    flat = jax.tree.structure(list(range(len(description.specs))))
    try:
        decoder = bound(description.codecs, description.specs, flat)
        leaves = [np.asarray(leaf) for leaf in decoder.decode_sections(sections)]
    except DecodeError:
        raise
    except _description.MISUSE as error:
        raise DecodeError(f"the payload cannot be decoded: {error}") from error
    if like is not None:
        return jax.tree.unflatten(jax.tree.structure(like), leaves)
    return jax.tree.map(leaves.__getitem__, description.tree)


def payload_size(tree: Any, codec: CodecFor) -> int | None:
    """Length in bytes of `encode(tree, codec)`, from shapes and dtypes alone; None if it depends on the values."""
    return bind(codec, tree).static_size(described=True)

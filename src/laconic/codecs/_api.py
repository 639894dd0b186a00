"""`encode`, `decode` and `describe`: trees to self-describing bytes and back."""

from typing import Any, overload

import jax
import numpy as np

from laconic.codecs import _description, _wire, random
from laconic.codecs._bind import CodecFor, bind, bound
from laconic.codecs._bound import BoundCodec
from laconic.codecs._contents import Contents, TensorContents
from laconic.errors import DecodeError

MAX_NBYTES = 2**32
"""Bytes of memory that `decode` makes at most, unless told otherwise."""


@overload
def encode(tree: Any, codec: CodecFor, *, seed: int | None = None, state: None = None) -> bytes: ...


@overload
def encode(tree: Any, codec: CodecFor, *, seed: int | None = None, state: Any) -> tuple[bytes, Any]: ...


def encode(tree: Any, codec: CodecFor, *, seed: int | None = None, state: Any = None) -> bytes | tuple[bytes, Any]:
    """Encodes a tree of arrays to bytes that say how to decode them.

    Args:
      tree: any pytree of bool, integer, float16, bfloat16, float32 or float64 arrays, of any shape. Python numbers
        count as what JAX makes of them: bool, int32 or float32.
      codec: for all tensors, or a function or tree that gives each its own; see `bind`.
      seed: of the stages that draw, an integer of 64 bits; the same seed gives the same bytes. Another one for each
        sender and round, or their errors correlate.
      state: for a codec that adapts or remembers, from `initial_state` or from the encoding before. None begins anew.

    Returns:
      A payload of wire format 1 (docs/wire-format.md); with a state, the payload and the next state.

    Raises:
      ArgumentError: if the codec draws and there is no seed, a value is outside its coder's alphabet or its stage's
        range, or decoding would depend on what only one receiver remembers (use `bind`).
      ArgumentTypeError: if a leaf is not an array of a supported dtype, or its codec cannot take it.
      NonFiniteError: if a tensor holds NaN or infinity.
    """
    key = None if seed is None else random.key(seed)
    payload, next_state = bind(codec, tree).encode(tree, key=key, state=state, described=True)
    return payload.blob if state is None else (payload.blob, next_state)


def initial_state(tree: Any, codec: CodecFor) -> Any:
    """The state to give to the first `encode` of trees like this one: a tree of arrays."""
    return bind(codec, tree).initial_sender_state()


def decode(blob: bytes, *, like: Any = None, max_nbytes: int = MAX_NBYTES) -> Any:
    """Decodes what `encode` gave, anywhere.

    Args:
      blob: a self-describing payload.
      like: a tree of the same structure. Needed only where the tree has nodes that bytes cannot name (named tuples,
        registered classes); dicts, lists and tuples come back by themselves.
      max_nbytes: of all tensors together. A few bytes can rightly stand for a large tensor of zeros, so that only a
        limit keeps hostile ones from filling the memory.

    Returns:
      The tree, of read-only NumPy arrays.

    Raises:
      ArgumentTypeError: if `blob` is not bytes.
      DecodeError: if the bytes are anything but an undamaged payload whose stages are known here, they stand for more
        than `max_nbytes`, or `like` has another structure.
    """
    description, sections = _opened(blob, max_nbytes)
    if description.is_contribution:
        raise DecodeError(
            "the payload is one of many to a receiver that holds its codec's state; decode it with that "
            "receiver's BoundCodec.gather"
        )
    if like is not None and _description.write_tree(jax.tree.structure(like)) != description.tree_bytes:
        raise DecodeError("the payload holds a tree of another structure than `like`")
    if like is None and description.opaque is not None:
        raise DecodeError(f"the tree has a node of class {description.opaque!r}, which bytes cannot make; pass like=")
    try:
        leaves = [np.asarray(leaf) for leaf in _decoder(description).decode_sections(sections)]
    except DecodeError:
        raise
    except _description.MISUSE as error:
        raise DecodeError(f"the payload cannot be decoded: {error}") from error
    if like is not None:
        return jax.tree.unflatten(jax.tree.structure(like), leaves)
    return jax.tree.map(leaves.__getitem__, description.tree)


def describe(blob: bytes, *, max_nbytes: int = MAX_NBYTES) -> Contents:
    """What a self-describing payload holds, and what each section costs; nothing is decoded. Print it for a table.

    Raises:
      ArgumentTypeError: if `blob` is not bytes.
      DecodeError: as for `decode`.
    """
    description, sections = _opened(blob, max_nbytes)
    num_bytes = sections.remaining
    try:
        decoder = _decoder(description)
        sizes = decoder.section_sizes(sections, is_contribution=description.is_contribution)
    except DecodeError:
        raise
    except _description.MISUSE as error:
        raise DecodeError(f"the payload cannot be decoded: {error}") from error
    tensors = tuple(
        TensorContents(spec.name, spec.shape, spec.dtype, str(codec))
        for spec, codec in zip(description.specs, description.codecs, strict=True)
    )
    coded = sum(size.nbytes for size in sizes)
    framing = _wire.FRAMING_BYTES
    return Contents(
        nbytes=len(blob),
        framing=framing,
        description=len(blob) - framing - num_bytes,
        key=num_bytes - coded,
        tensors=tensors,
        sections=tuple(sizes),
    )


def payload_size(tree: Any, codec: CodecFor) -> int | None:
    """Length in bytes of `encode(tree, codec)`, from shapes and dtypes alone; None if it depends on the values."""
    return bind(codec, tree).static_size(described=True)


def _opened(blob: Any, max_nbytes: int) -> tuple[_description.Description, _wire.Reader]:
    described, sections = _wire.unframe(blob, None)
    description = _description.read(described)
    nbytes = sum(spec.nbytes for spec in description.specs)
    if nbytes > max_nbytes:
        raise DecodeError(
            f"the payload stands for {nbytes} bytes, more than max_nbytes={max_nbytes}; raise the limit if you trust it"
        )
    return description, sections


def _decoder(description: _description.Description) -> BoundCodec:
    flat = jax.tree.structure(list(range(len(description.specs))))
    return bound(description.codecs, description.specs, flat)

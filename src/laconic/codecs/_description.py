"""A payload's description: its codecs, its tree and its tensors, as bytes. Grammar in `docs/wire-format.md`."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jax.tree_util import PyTreeDef

from laconic.codecs import _wire
from laconic.codecs._codec import MAX_DEPTH, Codec, field_names
from laconic.codecs._registry import lookup
from laconic.codecs._specs import DTYPES, TensorSpec
from laconic.codecs._stage import Stage
from laconic.codecs.coders._coder import Coder, Raw
from laconic.errors import ArgumentError, ArgumentTypeError, DecodeError

MISUSE = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)
"""What a stage or coder may raise when a damaged description asks it for what it cannot do."""

_MAX_DIMENSIONS = 64
_MAX_ELEMENTS = 2**48
_MAX_NAME = 120

# Node kinds of the tree's structure.
_LEAF, _NONE, _LIST, _TUPLE, _DICT, _OTHER = range(6)


@dataclasses.dataclass(frozen=True)
class Description:
    """What a payload holds.

    Attributes:
      codecs: one for each tensor.
      specs: each tensor's.
      tree: the structure, with the tensors' positions as leaves, and lists for nodes of other classes.
      tree_bytes: the same, as it travelled.
      opaque: the class of a node that only a like tree can rebuild, or None.
      is_contribution: whether the payload is one of many to one receiver that holds the state: reports travel in it,
        parameters do not.
    """

    codecs: tuple[Codec, ...]
    specs: tuple[TensorSpec, ...]
    tree: Any
    tree_bytes: bytes
    opaque: str | None
    is_contribution: bool


def write(
    codecs: Sequence[Codec],
    specs: Sequence[TensorSpec],
    structure: PyTreeDef,
    *,
    is_contribution: bool,
) -> bytes:
    """The canonical bytes of a description: equal payload layouts have equal bytes.

    Raises:
      ArgumentError: if the tree is nested too deep, or a tensor is too large.
      ArgumentTypeError: if the tree has dict keys that are neither str nor int.
    """
    table = {description: i for i, description in enumerate(dict.fromkeys(codec.description for codec in codecs))}
    parts = [bytes([is_contribution]), _wire.varint(len(table)), *table, write_tree(structure)]
    for codec, spec in zip(codecs, specs, strict=True):
        if len(spec.shape) > _MAX_DIMENSIONS or max((*spec.shape, spec.size)) > _MAX_ELEMENTS:
            raise ArgumentError(
                f"{spec.name or 'the array'} must have at most {_MAX_DIMENSIONS} dimensions and {_MAX_ELEMENTS} "
                f"elements, got {spec}"
            )
        parts += [_wire.varint(table[codec.description]), bytes([DTYPES.index(spec.dtype)])]
        parts += [_wire.varint(len(spec.shape)), *map(_wire.varint, spec.shape)]
    return b"".join(parts)


def write_tree(structure: PyTreeDef, depth: int = 0) -> bytes:
    """The bytes of a tree's structure."""
    if structure.node_data() is None:
        return bytes([_LEAF])
    if depth == MAX_DEPTH:
        raise ArgumentError(f"a tree may be nested at most {MAX_DEPTH} deep; flatten it")
    kind, data = structure.node_data()
    children = [write_tree(child, depth + 1) for child in structure.children()]
    if kind is type(None):
        return bytes([_NONE])
    if kind in (list, tuple):
        return bytes([_LIST if kind is list else _TUPLE]) + _wire.varint(len(children)) + b"".join(children)
    if kind is dict:
        for key in data:
            if type(key) not in (str, int):
                raise ArgumentTypeError(
                    f"a dict key in the tree must be str or int, got {key!r} of type {type(key).__name__}"
                )
        items = [_wire.write_constant(key) + child for key, child in zip(data, children, strict=True)]
        return bytes([_DICT]) + _wire.varint(len(items)) + b"".join(items)
    return bytes([_OTHER]) + _wire.text(kind.__name__) + _wire.varint(len(children)) + b"".join(children)


def read(data: bytes) -> Description:
    """The inverse of `write`, for any bytes.

    Raises:
      DecodeError: if they are not a description, or name a stage or coder that is not registered.
    """
    reader = _wire.Reader(memoryview(data))
    use = reader.take(1, "the payload's use")[0]
    if use > 1:
        raise DecodeError(f"the payload's use must be 0 or 1, got {use}")
    table = [_read_codec(reader) for _ in range(reader.count("the table of codecs"))]
    start = reader.position
    tree_reader = _TreeReader(reader)
    tree = tree_reader.read()
    tree_bytes = data[start : reader.position]
    codecs, specs = [], []
    used = 0
    for name in tree_reader.names:
        index = reader.varint("a codec's index")
        if index >= min(len(table), used + 1):
            raise DecodeError(
                f"a tensor names codec {index} of {len(table)}, the first {used} of which were used before"
            )
        used = max(used, index + 1)
        codecs.append(table[index])
        specs.append(_read_spec(reader, name))
    if used < len(table) or len(set(table)) < len(table):
        raise DecodeError("the payload lists a codec twice, or one that no tensor has")
    if reader.remaining:
        raise DecodeError(f"{reader.remaining} bytes follow the description's end")
    return Description(tuple(codecs), tuple(specs), tree, tree_bytes, tree_reader.opaque, bool(use))


def _read_codec(reader: _wire.Reader) -> Codec:
    node = _read_node(reader, 0)
    if isinstance(node, Coder):
        raise DecodeError(f"a tensor's codec must begin with a stage, got {node.name!r}")
    return node


def _read_node(reader: _wire.Reader, depth: int) -> Codec | Coder:
    component = _read_component(reader)
    if isinstance(component, Coder):
        return component
    if depth == MAX_DEPTH:
        raise DecodeError(f"a codec has more than {MAX_DEPTH} stages one after another")
    children = []
    for _ in range(reader.count("a codec's outputs")):
        name = reader.text("an output's name")
        child = _read_node(reader, depth + 1)
        if name not in component.compressible and not isinstance(child, Raw):
            raise DecodeError(f"stage {component.name!r} cannot have its output {name[:60]!r} encoded further")
        children.append((name, child))
    if tuple(name for name, _ in children) != component.outputs:
        raise DecodeError(f"stage {component.name!r} has the outputs {component.outputs}, but the payload names others")
    return Codec(component, tuple(children))


def _read_component(reader: _wire.Reader) -> Stage | Coder:
    kind = lookup(reader.text("a codec's name"))
    fields = [(reader.text("a field's name"), reader.constant()) for _ in range(reader.count("the fields of a codec"))]
    # All of them, in order: a default that a later release changes must not change what a payload means.
    if tuple(name for name, _ in fields) != field_names(kind):
        raise DecodeError(f"{kind.name!r} has the fields {field_names(kind)}, but the payload names others")
    try:
        return kind(**dict(fields))
    except MISUSE as error:
        raise DecodeError(f"{kind.name!r} cannot be made from the fields {fields!r:.200}: {error}") from error


def _read_spec(reader: _wire.Reader, name: str) -> TensorSpec:
    code = reader.take(1, "a dtype")[0]
    if code >= len(DTYPES):
        raise DecodeError(f"dtype code {code} is unknown")
    dimensions = reader.count("a shape")
    if dimensions > _MAX_DIMENSIONS:
        raise DecodeError(f"a tensor has {dimensions} dimensions, more than {_MAX_DIMENSIONS}")
    spec = TensorSpec(name, tuple(reader.varint("a dimension") for _ in range(dimensions)), DTYPES[code])
    if max((*spec.shape, spec.size)) > _MAX_ELEMENTS:
        raise DecodeError(f"a tensor of shape {spec.shape} has more than {_MAX_ELEMENTS} elements")
    return spec


class _TreeReader:
    """Reads a tree's structure and names its leaves."""

    def __init__(self, reader: _wire.Reader):
        self._reader = reader
        self.names: list[str] = []
        self.opaque: str | None = None

    def read(self, name: str = "", depth: int = 0) -> Any:
        kind = self._reader.take(1, "a node's kind")[0]
        if kind == _LEAF:
            self.names.append(name)
            return len(self.names) - 1
        if depth == MAX_DEPTH:
            raise DecodeError(f"the tree is nested more than {MAX_DEPTH} deep")
        if kind == _NONE:
            return None
        if kind in (_LIST, _TUPLE):
            children = self._sequence(name, depth)
            return children if kind == _LIST else tuple(children)
        if kind == _DICT:
            return self._dict(name, depth)
        if kind == _OTHER:
            self.opaque = self._reader.text("a node's class")
            return self._sequence(name, depth)
        raise DecodeError(f"a node has the unknown kind {kind}")

    def _sequence(self, name: str, depth: int) -> list[Any]:
        return [self.read(_below(name, i), depth + 1) for i in range(self._reader.count("a sequence"))]

    def _dict(self, name: str, depth: int) -> dict[Any, Any]:
        items: dict[Any, Any] = {}
        last: Any = None
        for _ in range(self._reader.count("a dict")):
            key = self._reader.constant()
            if type(key) not in (str, int) or (items and (type(key) is not type(last) or key <= last)):
                raise DecodeError(
                    f"a dict's keys must be all str or all int and ascend, got {key!r:.60} after {last!r:.60}"
                )
            items[key] = self.read(_below(name, key), depth + 1)
            last = key
        return items


def _below(name: str, key: str | int) -> str:
    # Names only make messages readable; long ones, repeated for each leaf, would outgrow the payload.
    return f"{name}/{key}"[-_MAX_NAME:] if name else str(key)[-_MAX_NAME:]

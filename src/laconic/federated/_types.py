"""Types of federated values, in TFF's compact notation: `{float32[3]}@CLIENTS`."""

import dataclasses
import enum
from typing import Any

import jax

from laconic.codecs import TensorSpec
from laconic.codecs._specs import spec_of
from laconic.errors import ArgumentTypeError


class Placement(enum.Enum):
    """Where a value is: one at the server, or one at each client."""

    SERVER = "SERVER"
    CLIENTS = "CLIENTS"


SERVER = Placement.SERVER
CLIENTS = Placement.CLIENTS


@dataclasses.dataclass(frozen=True)
class SequenceType:
    """A client's stream of elements of one type, such as batches: `float32[20,3]*`."""

    element: "MemberType"

    def __str__(self) -> str:
        return f"{self.element}*"


@dataclasses.dataclass(frozen=True)
class MemberType:
    """What is placed: a tree of tensors, or a sequence of such trees.

    Attributes:
      leaves: tensor specs, without names; or one `SequenceType`.
      structure: how they make a tree.
    """

    leaves: tuple[TensorSpec | SequenceType, ...]
    structure: jax.tree_util.PyTreeDef

    @property
    def is_sequence(self) -> bool:
        """Whether this is a stream of elements and not a tree of tensors."""
        return any(isinstance(leaf, SequenceType) for leaf in self.leaves)

    @property
    def element(self) -> "MemberType":
        """The type of a sequence's elements."""
        (sequence,) = self.leaves
        assert isinstance(sequence, SequenceType)
        return sequence.element

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """The specs of a tree of tensors; none for a sequence."""
        return tuple(leaf for leaf in self.leaves if isinstance(leaf, TensorSpec))

    @property
    def structs(self) -> Any:
        """The tree with a `jax.ShapeDtypeStruct` for each tensor."""
        return jax.tree.unflatten(self.structure, [tensor.struct for tensor in self.tensors])

    def __str__(self) -> str:
        return _notation(jax.tree.unflatten(self.structure, list(self.leaves)))


@dataclasses.dataclass(frozen=True)
class FederatedType:
    """A member type at a placement."""

    member: MemberType
    placement: Placement

    def __str__(self) -> str:
        return f"{{{self.member}}}@CLIENTS" if self.placement is CLIENTS else f"{self.member}@SERVER"


def member_type(tree: Any) -> MemberType:
    """The type of a tree of arrays, numbers, specs or types.

    Args:
      tree: leaves may be arrays, Python numbers, dtypes (a scalar of that dtype), anything with shape and dtype, or a
        `SequenceOf(...)` by itself.
    """
    if isinstance(tree, MemberType):
        return tree
    if isinstance(tree, SequenceType):
        return MemberType((tree,), jax.tree.structure(0))
    leaves, structure = jax.tree.flatten(tree)
    return MemberType(tuple(_leaf_type(leaf) for leaf in leaves), structure)


def SequenceOf(element: Any) -> SequenceType:  # noqa: N802 - reads as a type
    """The type of a stream of elements, such as a client's batches."""
    return SequenceType(member_type(element))


def at_server(tree: Any) -> FederatedType:
    """The type of one value at the server; see `member_type` for what a tree may hold."""
    return FederatedType(_tensors_only(member_type(tree), "SERVER"), SERVER)


def at_clients(tree: Any) -> FederatedType:
    """The type of one value at each client."""
    return FederatedType(member_type(tree), CLIENTS)


def _tensors_only(member: MemberType, where: str) -> MemberType:
    if member.is_sequence:
        raise ArgumentTypeError(f"a value at {where} must be a tree of tensors, got the sequence {member}")
    return member


def _leaf_type(leaf: Any) -> TensorSpec:
    if isinstance(leaf, SequenceType):
        raise ArgumentTypeError(f"a sequence must be a member by itself, got {leaf} within a tree")
    if isinstance(leaf, TensorSpec):
        return dataclasses.replace(leaf, name="")
    if isinstance(leaf, type) or not hasattr(leaf, "shape"):
        try:
            dtype = jax.dtypes.canonicalize_dtype(leaf) if not isinstance(leaf, (bool, int, float)) else None
        except TypeError:
            dtype = None
        if dtype is not None:
            return spec_of(jax.ShapeDtypeStruct((), dtype))
    return spec_of(leaf)


def _notation(node: Any) -> str:
    if isinstance(node, (TensorSpec, SequenceType)):
        return str(node)
    children, _ = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda below: below is not node)
    named = [
        _notation(child)
        if isinstance(entry, jax.tree_util.SequenceKey)
        else f"{jax.tree_util.keystr((entry,), simple=True)}={_notation(child)}"
        for (entry,), child in children
    ]
    return f"<{','.join(named)}>"

"""The traced form of a federated computation: a graph of placed values."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from laconic.codecs import BoundCodec
from laconic.errors import PlacementError
from laconic.federated._traffic import Kind
from laconic.federated._types import FederatedType, Placement, member_type


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """A value in the graph. Nodes are compared by identity.

    Attributes:
      type: what it is and where.
      inputs: the nodes that it is computed from.
    """

    type: FederatedType
    inputs: tuple["Node", ...] = ()


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Parameter(Node):
    """An argument of the computation."""

    index: int


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Constant(Node):
    """A value that is known when the computation is built."""

    value: Any


@dataclasses.dataclass(frozen=True, eq=False)
class ClientKey(Node):
    """Each client's random key, derived from the call's key and the client's id on both sides: nothing travels."""


@dataclasses.dataclass(frozen=True, eq=False)
class Map(Node):
    """A function of values at one placement.

    Attributes:
      run: a pure JAX function, or client work over a sequence.
      is_fold: whether it is client work, which loops by itself and cannot be compiled with its neighbours.
    """

    run: Callable[..., Any] = lambda *_: None
    is_fold: bool = False


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Broadcast(Node):
    """From SERVER to CLIENTS. The first input is the value.

    Attributes:
      state: the codec's, at SERVER, if it has one; an input too.
      codec: how it travels.
      label: what it is called in the traffic.
      kind: what it counts as in the traffic.
      since: value, earlier value -> what to send, of the value's type, to a client that holds the earlier one.
    """

    state: Node | None = None
    codec: BoundCodec
    label: str
    kind: Kind
    since: Callable[[Any, Any], Any] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Held(Node):
    """The one input, at SERVER, which all clients hold already: nothing travels."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Aggregate(Node):
    """From CLIENTS to SERVER, one value each to one value. The first input is the value.

    Attributes:
      state: the codec's, at SERVER, if it has one; an input too.
      memory: what each client's codec remembers, at CLIENTS, if it does; an input too.
      codec: how it travels.
      reduction: None sums in the codec's encoded domain; else how the decoded values are reduced.
      label: what it is called in the traffic.
      kind: what it counts as in the traffic.
    """

    state: Node | None = None
    memory: Node | None = None
    codec: BoundCodec
    reduction: "Reduction | None"
    label: str
    kind: Kind


@dataclasses.dataclass(frozen=True)
class Reduction:
    """A streaming reduction at the server: `report(accumulate(... accumulate(zero, value_1) ..., value_n))`.

    `start(value)` makes the first accumulator, and `merge` one of those of neighbouring parts of the cohort.
    """

    start: Callable[[Any], Any]
    accumulate: Callable[[Any, Any], Any]
    merge: Callable[[Any, Any], Any]
    report: Callable[[Any], Any]


@dataclasses.dataclass(frozen=True, eq=False)
class NextState(Node):
    """The state of a codec after its crossing, which is the one input."""


@dataclasses.dataclass(frozen=True, eq=False)
class NextMemory(Node):
    """What each client's codec remembers after the aggregate that is the one input; it stays at the client."""


@dataclasses.dataclass(frozen=True, eq=False)
class Count(Node):
    """How many clients took part in the aggregate that is the one input: the server knows, so nothing travels."""


class Value:
    """A placed value while a computation is built; `value.name` and `value[key]` are its elements."""

    def __init__(self, node: Node):
        self._node = node

    @property
    def type(self) -> FederatedType:
        """What the value is, and where."""
        return self._node.type

    def __repr__(self) -> str:
        return f"Value({self.type})"

    def __getitem__(self, key: Any) -> "Value":
        return self._select(lambda tree: tree[key], f"[{key!r}]")

    def __getattr__(self, name: str) -> "Value":
        if name.startswith("_"):
            raise AttributeError(name)
        return self._select(lambda tree: getattr(tree, name), f".{name}")

    def __iter__(self) -> Iterator["Value"]:
        tree = self._tree()
        if not isinstance(tree, (tuple, list)):
            raise PlacementError(f"only tuples and lists can be unpacked, got {self.type}")
        return iter([self[i] for i in range(len(tree))])

    def __bool__(self) -> bool:
        raise PlacementError(
            f"{self.type} has no truth value while the computation is built; decide inside federated_map"
        )

    def _tree(self) -> Any:
        return jax.tree.unflatten(self.type.member.structure, list(self.type.member.leaves))

    def _select(self, select: Callable[[Any], Any], what: str) -> "Value":
        try:
            member = member_type(select(self._tree()))
        except (KeyError, IndexError, AttributeError, TypeError) as error:
            raise PlacementError(f"{self.type} has no element {what}") from error
        return Value(Map(FederatedType(member, self.type.placement), (self._node,), select))


def node_of(value: Any, intrinsic: str, placement: Placement | None = None) -> Node:
    """The node of an intrinsic's argument; tuples, lists and dicts of values are zipped.

    Raises:
      PlacementError: if it is no federated value, or not at `placement`.
    """
    if isinstance(value, Value):
        node = value._node
    else:
        leaves, structure = jax.tree.flatten(value, is_leaf=lambda leaf: isinstance(leaf, Value))
        if not leaves or not all(isinstance(leaf, Value) for leaf in leaves):
            raise PlacementError(
                f"{intrinsic} takes federated values, got {value!r:.60} of type {type(value).__name__}; "
                "place constants with federated_value"
            )
        node = zipped(structure, [leaf._node for leaf in leaves], intrinsic)
    if placement is not None and node.type.placement is not placement:
        raise PlacementError(f"{intrinsic} takes a value at {placement.value}, got {node.type}")
    return node


def zipped(structure: jax.tree_util.PyTreeDef, nodes: list[Node], intrinsic: str) -> Node:
    """One node for a structure of nodes at one placement."""
    placements = {node.type.placement for node in nodes}
    if len(placements) != 1:
        raise PlacementError(
            f"{intrinsic} takes values at one placement, got {' and '.join(str(node.type) for node in nodes)}"
        )
    if any(node.type.member.is_sequence for node in nodes):
        raise PlacementError(f"{intrinsic} cannot put a sequence into a structure, got {nodes[0].type}")
    tree = jax.tree.unflatten(structure, [node.type.member.structs for node in nodes])
    type_ = FederatedType(member_type(tree), placements.pop())
    return Map(type_, tuple(nodes), lambda *values: jax.tree.unflatten(structure, values))


def topological(results: Sequence[Node], at: Placement | None = None) -> list[Node]:
    """All nodes that the results depend on, each after its inputs.

    Args:
      results: where to begin.
      at: follow only inputs at this placement: so at CLIENTS, what is computed without another crossing.
    """
    ordered: dict[Node, None] = {}
    # Not recursive: a loop over rounds inside one computation makes long chains.
    stack = [(node, False) for node in reversed(results)]
    while stack:
        node, inputs_done = stack.pop()
        if inputs_done:
            ordered[node] = None
        elif node not in ordered:
            stack.append((node, True))
            stack += [
                (below, False)
                for below in node.inputs
                if below not in ordered and (at is None or below.type.placement is at)
            ]
    return list(ordered)

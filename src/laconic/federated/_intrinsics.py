"""The operations of the language: what may be done with placed values."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from laconic.codecs import BoundCodec, CodecFor, bind, identity
from laconic.errors import ArgumentError, LaconicError, PlacementError
from laconic.federated._client_work import ClientWork
from laconic.federated._graph import (
    Aggregate,
    Broadcast,
    ClientKey,
    Constant,
    Count,
    Held,
    Map,
    NextMemory,
    NextState,
    Node,
    Reduction,
    Value,
    node_of,
)
from laconic.federated._traffic import Kind
from laconic.federated._types import CLIENTS, SERVER, FederatedType, MemberType, Placement, member_type


def federated_value(value: Any, placement: Placement) -> Value:
    """A constant at a placement: part of the program, so that nothing travels.

    Raises:
      PlacementError: if the placement is neither SERVER nor CLIENTS.
    """
    if not isinstance(placement, Placement):
        raise PlacementError(f"placement must be SERVER or CLIENTS, got {placement!r}")
    value = jax.tree.map(jnp.asarray, value)
    return Value(Constant(FederatedType(member_type(value), placement), value=value))


def federated_client_key() -> Value:
    """A random key for each client, `{uint32[2]}@CLIENTS`.

    It is derived from the key given to the call and the client's id, which both sides know; so nothing travels.
    """
    return Value(ClientKey(FederatedType(member_type(jax.ShapeDtypeStruct((2,), jnp.uint32)), CLIENTS)))


def federated_zip(value: Any) -> Value:
    """One value from a tuple, list or dict of values: `<{A}@CLIENTS,{B}@CLIENTS>` to `{<A,B>}@CLIENTS`."""
    return Value(node_of(value, "federated_zip"))


def federated_map(function: Callable[..., Any] | ClientWork, value: Any) -> Value:
    """Applies a pure JAX function, or client work, at the value's placement.

    Args:
      function: a function of as many arguments as there are values; it is compiled, together with its neighbours. To
        use a client's sequence it must be `ClientWork`.
      value: one value, or a tuple of values at one placement.

    Raises:
      PlacementError: if the values are at different placements, or the function does not take their types.
    """
    values = value if isinstance(value, tuple) else (value,)
    nodes = [node_of(each, "federated_map") for each in values]
    if len({node.type.placement for node in nodes}) > 1:
        raise PlacementError(
            f"federated_map takes values at one placement, got {' and '.join(str(node.type) for node in nodes)}; "
            "broadcast what is at SERVER, or aggregate what is at CLIENTS"
        )
    sequences = [i for i, node in enumerate(nodes) if node.type.member.is_sequence]
    if isinstance(function, ClientWork):
        return Value(_map_work(function, nodes, sequences))
    return Value(_map_function(function, nodes, sequences))


def federated_broadcast(
    value: Any,
    *,
    codec: CodecFor | None = None,
    state: Any = None,
    label: str = "model",
    kind: Kind = "payload",
    since: Callable[[Any, Any], Any] | None = None,
) -> Any:
    """Sends a value at SERVER to all clients.

    Args:
      value: `A@SERVER`.
      codec: how it travels: a codec, or a function or tree that gives each tensor its own; None as it is.
      state: at SERVER, the codec's state, starting as `codecs.bind(codec, value).initial_sender_state()`. A codec that
        adapts or remembers needs it.
      label: what the traffic calls the value.
      kind: what the traffic counts it as.
      since: for clients that still hold what an earlier call broadcast, see `Computation.run`: a pure function of the
        value and the earlier one, both as clients receive them, to what such a client is sent instead if that takes
        fewer bytes. It is of the value's type, and with the earlier value must say the value exactly.

    Returns:
      `{A}@CLIENTS`; with `state`, that and the next state at SERVER.

    Raises:
      PlacementError: if the value is not at SERVER.
    """
    node = node_of(value, "federated_broadcast", SERVER)
    bound = _bound(codec, node, label)
    held = _state_node(state, bound.initial_sender_state(), "federated_broadcast", "initial_sender_state")
    type_ = FederatedType(node.type.member, CLIENTS)
    sent = Broadcast(type_, _given(node, held), state=held, codec=bound, label=label, kind=kind, since=since)
    return Value(sent) if state is None else (Value(sent), _next_state(sent, held, state))


def federated_held(value: Any) -> Value:
    """What all clients hold already of a value at SERVER: nothing travels, and nothing is counted.

    For what a client can make by itself, such as the model before the first round from the run's seed, or was installed
    with. Send a fingerprint beside it, so that a client that holds something else can tell.

    Raises:
      PlacementError: if the value is not at SERVER.
    """
    node = node_of(value, "federated_held", SERVER)
    return Value(Held(FederatedType(node.type.member, CLIENTS), (node,)))


def federated_sum(
    value: Any,
    *,
    codec: CodecFor | None = None,
    state: Any = None,
    memory: Any = None,
    label: str = "sum",
    kind: Kind = "payload",
) -> Any:
    """Sums a value over clients, in the codec's encoded domain as far as its stages commute with the sum.

    Sums run in cohort order.

    Args:
      value: `{A}@CLIENTS`.
      codec: how it travels: a codec, or a function or tree that gives each tensor its own; None as it is.
      state: at SERVER, the codec's state, starting as `codecs.bind(codec, value).initial_state()`. An adaptive codec
        needs it.
      memory: at CLIENTS, what each client remembers of its earlier encodings, starting as
        `codecs.bind(codec, value).initial_memory()`. A codec with error feedback needs it. It does not travel.
      label: what the traffic calls the value.
      kind: what the traffic counts it as.

    Returns:
      `A@SERVER`; with `state` or `memory` a tuple of that, the next state at SERVER if a state was given, and the next
      memory at CLIENTS if a memory was. The next memory can be mapped and returned, and not be sent.

    Raises:
      ArgumentError: if the codec needs a state or memory that is not given.
      PlacementError: if the value is not at CLIENTS, holds truth values, or state or memory are of another type.
    """
    node = _summable(value, "federated_sum")
    bound = _bound(codec, node, label)
    held = _state_node(state, bound.initial_state(), "federated_sum", "initial_state")
    remembered = _memory_node(memory, bound, label)
    total = Aggregate(
        FederatedType(node.type.member, SERVER),
        _given(node, held, remembered),
        state=held,
        memory=remembered,
        codec=bound,
        reduction=None,
        label=label,
        kind=kind,
    )
    results = [Value(total)]
    if state is not None:
        results.append(_next_state(total, held, state))
    if memory is not None:
        results.append(memory if remembered is None else Value(NextMemory(remembered.type, (total,))))
    return results[0] if len(results) == 1 else tuple(results)


def federated_mean(
    value: Any,
    weight: Any = None,
    *,
    codec: CodecFor | None = None,
    state: Any = None,
    memory: Any = None,
    label: str = "mean",
) -> Any:
    """The mean over clients, weighted if a weight is given: each client multiplies by its weight, then encodes.

    Where the weights add up to zero the mean is zero, so that no NaN arises from an idle cohort.

    Args:
      value: `{A}@CLIENTS`, floating-point tensors.
      weight: `{float32}@CLIENTS` or an integer scalar, not negative; it travels raw, as kind "weights". None weighs all
        alike, and nothing more travels, since the server counts.
      codec: see `federated_sum`.
      state: see `federated_sum`.
      memory: see `federated_sum`; of what is encoded, that is, after the weight.
      label: see `federated_sum`.

    Returns:
      As `federated_sum`.

    Raises:
      ArgumentError: see `federated_sum`.
      PlacementError: if value or weight is not at CLIENTS, the value is not floating-point, or the weight is not a
        scalar.
    """
    node = _summable(value, "federated_mean")
    for tensor in node.type.member.tensors:
        if not tensor.is_float:
            raise PlacementError(f"federated_mean takes floating-point tensors, got {node.type}")
    weighted = Value(node)
    if weight is not None:
        weight_node = node_of(weight, "federated_mean", CLIENTS)
        tensors = weight_node.type.member.tensors
        if len(tensors) != 1 or tensors[0].shape or tensors[0].dtype.kind not in "uif":
            raise PlacementError(f"federated_mean takes a weight of one number, got {weight_node.type}")
        weighted = federated_map(_scale, (weighted, Value(weight_node)))
    summed = federated_sum(weighted, codec=codec, state=state, memory=memory, label=label)
    total, *rest = summed if isinstance(summed, tuple) else (summed,)
    if weight is None:
        count = Value(Count(FederatedType(member_type(jnp.float32), SERVER), (total._node,)))
    else:
        count = federated_sum(Value(weight_node), label=f"{label} weight", kind="weights")
    mean = federated_map(divide_or_zero, (total, count))
    return (mean, *rest) if rest else mean


def federated_min(value: Any, *, label: str = "minimum", kind: Kind = "payload") -> Value:
    """The element-wise minimum over clients, `{A}@CLIENTS` to `A@SERVER`."""
    return _reduced(value, "federated_min", _first_then(jnp.minimum), label, kind)


def federated_max(value: Any, *, label: str = "maximum", kind: Kind = "payload") -> Value:
    """The element-wise maximum over clients, `{A}@CLIENTS` to `A@SERVER`."""
    return _reduced(value, "federated_max", _first_then(jnp.maximum), label, kind)


def federated_aggregate(
    value: Any,
    zero: Any,
    accumulate: Callable[[Any, Any], Any],
    merge: Callable[[Any, Any], Any],
    report: Callable[[Any], Any],
    *,
    label: str = "aggregate",
    kind: Kind = "payload",
) -> Value:
    """Reduces a value over clients with functions of your own.

    Args:
      value: `{A}@CLIENTS`.
      zero: the first accumulator, a tree of arrays of type U.
      accumulate: U, A -> U, in the order of the cohort, over some clients that follow each other.
      merge: U, U -> U, of neighbouring parts of the cohort, in order.
      report: U -> R.
      label: what the traffic calls the value.
      kind: what the traffic counts it as.

    Returns:
      `R@SERVER`.

    Raises:
      PlacementError: if the value is not at CLIENTS, or a function's types do not fit.
    """
    node = node_of(value, "federated_aggregate", CLIENTS)
    zero = jax.tree.map(jnp.asarray, zero)
    accumulator = member_type(zero)
    for name, function, arguments in (
        ("accumulate", accumulate, (accumulator, node.type.member)),
        ("merge", merge, (accumulator, accumulator)),
    ):
        got = _result_type(function, arguments, f"federated_aggregate's {name}")
        if got != accumulator:
            raise PlacementError(f"federated_aggregate's {name} must return zero's type, {accumulator}, got {got}")
    result = _result_type(report, (accumulator,), "federated_aggregate's report")
    compiled = jax.jit(accumulate)
    reduction = Reduction(lambda first: compiled(zero, first), compiled, jax.jit(merge), jax.jit(report))
    return _reduced(Value(node), "federated_aggregate", reduction, label, kind, result)


def divide_or_zero(total: Any, count: Any) -> Any:
    """`total / count` for a tree, zero where the count is zero."""
    scale = jnp.where(count > 0, 1 / jnp.where(count > 0, count, 1), 0)
    return jax.tree.map(lambda x: (x * scale).astype(x.dtype), total)


def _scale(value: Any, weight: Any) -> Any:
    return jax.tree.map(lambda x: (x * weight).astype(x.dtype), value)


def _first_then(combine: Callable[[Any, Any], Any]) -> Reduction:
    # The first client's value starts the accumulator: zero would be wrong for values of one sign.
    def accumulate(total: Any, value: Any) -> Any:
        return jax.tree.map(combine, total, value)

    compiled = jax.jit(accumulate)
    return Reduction(lambda first: first, compiled, compiled, lambda total: total)


def _reduced(
    value: Any, intrinsic: str, reduction: Reduction, label: str, kind: Kind, result: MemberType | None = None
) -> Value:
    node = node_of(value, intrinsic, CLIENTS)
    bound = _bound(None, node, label)
    type_ = FederatedType(result or node.type.member, SERVER)
    return Value(Aggregate(type_, (node,), codec=bound, reduction=reduction, label=label, kind=kind))


def _summable(value: Any, intrinsic: str) -> Node:
    node = node_of(value, intrinsic, CLIENTS)
    if node.type.member.is_sequence:
        raise PlacementError(f"{intrinsic} takes tensors, got the sequence {node.type}")
    if any(tensor.dtype == np.bool_ for tensor in node.type.member.tensors):
        raise PlacementError(f"{intrinsic} takes numbers, got {node.type}; convert truth values to int32 first")
    return node


def _bound(codec: CodecFor | None, node: Node, label: str) -> BoundCodec:
    if node.type.member.is_sequence:
        raise PlacementError(f"only tensors travel between SERVER and CLIENTS, got the sequence {node.type}")
    try:
        return bind(identity() if codec is None else codec, node.type.member.structs)
    except LaconicError as error:
        error.add_note(f"while binding the codec of {label!r}, {node.type}")
        raise


def _state_node(state: Any, initial: Any, intrinsic: str, start: str) -> Node | None:
    """The node of a codec's state; None for a codec without one."""
    if state is None:
        if jax.tree.leaves(initial):
            raise ArgumentError(
                f"{intrinsic} got an adaptive codec, which needs state=, a value at SERVER that starts as "
                f"codecs.bind(codec, value).{start}()"
            )
        return None
    node = node_of(state, intrinsic, SERVER)
    return _checked(node, "state", initial, intrinsic) if jax.tree.leaves(initial) else None


def _memory_node(memory: Any, bound: BoundCodec, label: str) -> Node | None:
    """The node of what clients remember; None for a codec that remembers nothing."""
    if memory is not None:
        node = node_of(memory, "federated_sum", CLIENTS)
        return _checked(node, "memory", bound.initial_memory(), "federated_sum") if bound.needs_client_state else None
    if bound.needs_client_state:
        raise ArgumentError(
            f"the codec of {label!r} needs each client to keep a memory, as error feedback does; pass memory=, a value "
            "at CLIENTS that starts as codecs.bind(codec, value).initial_memory(), and give each client's next memory, "
            "which the call then returns too, to its next round (learning.encoded_mean does so by itself)"
        )
    return None


def _checked(node: Node, what: str, initial: Any, intrinsic: str) -> Node:
    if node.type.member != member_type(initial):
        expected = FederatedType(member_type(initial), node.type.placement)
        raise PlacementError(f"{intrinsic} needs a codec {what} of type {expected}, got {node.type}")
    return node


def _given(*nodes: Node | None) -> tuple[Node, ...]:
    return tuple(node for node in nodes if node is not None)


def _next_state(crossing: Node, held: Node | None, state: Any) -> Any:
    return state if held is None else Value(NextState(held.type, (crossing,)))


def _map_work(work: ClientWork, nodes: list[Node], sequences: list[int]) -> Node:
    if len(sequences) != 1:
        raise PlacementError(
            f"client work takes one sequence among its values, got {len(sequences)} in "
            f"{', '.join(str(node.type) for node in nodes)}"
        )
    (at,) = sequences
    element = nodes[at].type.member.element
    others = [node for i, node in enumerate(nodes) if i != at]
    with _explained("client work", [node.type.member for node in nodes]):
        carry, result = work.types(element, [node.type.member.structs for node in others])
    placement = nodes[at].type.placement
    fold = Map(FederatedType(carry, placement), (nodes[at], *others), work.fold, is_fold=True)
    # A node of its own, so that it is compiled together with what is done to the result.
    return Map(FederatedType(result, placement), (fold, *others), work.final)


def _map_function(function: Callable[..., Any], nodes: list[Node], sequences: list[int]) -> Node:
    if sequences:
        raise PlacementError(
            f"a function cannot be mapped over the sequence {nodes[sequences[0]].type}; "
            "use ClientWork(init, step, final)"
        )
    result = _result_type(function, tuple(node.type.member for node in nodes), "federated_map's function")
    return Map(FederatedType(result, nodes[0].type.placement), tuple(nodes), function)


def _result_type(function: Callable[..., Any], arguments: Sequence[MemberType], what: str) -> MemberType:
    with _explained(what, arguments):
        return member_type(jax.eval_shape(function, *(argument.structs for argument in arguments)))


@contextlib.contextmanager
def _explained(what: str, arguments: Sequence[MemberType]) -> Iterator[None]:
    """Makes what a user's function raises on types that it does not take an error that names them."""
    try:
        yield
    except (TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
        if isinstance(error, PlacementError):
            raise
        raise PlacementError(f"{what} does not take ({', '.join(map(str, arguments))}): {error}") from error

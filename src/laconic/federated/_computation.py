"""Tracing a Python function into a federated computation, and running it."""

import collections
import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np

from laconic.codecs import random
from laconic.codecs.random import Key
from laconic.errors import ArgumentError, ArgumentTypeError, PlacementError
from laconic.federated._crossing import Sent, times
from laconic.federated._graph import (
    Aggregate,
    Broadcast,
    ClientKey,
    Count,
    Held,
    NextState,
    Node,
    Parameter,
    Value,
    topological,
)
from laconic.federated._pass import Client, ClientPass, Engine, PassInputs, PassResult, ReferenceEngine
from laconic.federated._plan import Phase, phases
from laconic.federated._traffic import Traffic, TrafficEntry, merged
from laconic.federated._types import CLIENTS, FederatedType, member_type


@dataclasses.dataclass(frozen=True)
class Run:
    """What one run of a computation gave.

    Attributes:
      result: of the function's structure; a value at CLIENTS is a list with one item for each client.
      traffic: what travelled.
      broadcast: what clients received of the broadcast with a `since`, for `earlier` in a later run; else None.
    """

    result: Any
    traffic: Traffic
    broadcast: Any = None


class Computation:
    """A federated computation: built and type-checked once, run on any engine. Made by `federated_computation`."""

    def __init__(self, function: Callable[..., Any], types: Sequence[FederatedType]):
        self.name = function.__name__
        self.__doc__ = function.__doc__
        self._function = function
        self._types = tuple(types)
        self._parameters = [Parameter(type_, index=i) for i, type_ in enumerate(types)]
        returned = function(*map(Value, self._parameters))
        self._leaves, self._structure = jax.tree.flatten(returned, is_leaf=lambda leaf: isinstance(leaf, Value))
        self._results = [leaf._node for leaf in self._leaves if isinstance(leaf, Value)]
        self.nodes = tuple(topological(self._results))
        self._check_parameters()
        self.phases = tuple(phases(self._results))
        cached = [node for node in self.nodes if isinstance(node, Broadcast) and node.since is not None]
        if len(cached) > 1:
            raise PlacementError(f"{self.name} has {len(cached)} broadcasts with a since; one value may have it")
        self._cached = cached[0] if cached else None
        self._needs_key = any(
            isinstance(node, ClientKey) or (isinstance(node, (Broadcast, Aggregate)) and node.codec.is_stochastic)
            for node in self.nodes
        )

    @property
    def type_signature(self) -> str:
        """The type in TFF's compact notation: `(<float32@SERVER,{float32}@CLIENTS> -> float32@SERVER)`."""
        arguments = ",".join(map(str, self._types))
        if len(self._types) > 1:
            arguments = f"<{arguments}>"
        results = [str(leaf.type) if isinstance(leaf, Value) else _constant_notation(leaf) for leaf in self._leaves]
        result = results[0] if len(results) == 1 else f"<{','.join(results)}>"
        return f"({arguments} -> {result})"

    def __reduce__(self) -> Any:
        """Built again from the function wherever it arrives, so that nothing compiled has to be sent."""
        return Computation, (self._function, self._types)

    def __repr__(self) -> str:
        return f"<federated computation {self.name} {self.type_signature}>"

    def __call__(self, *arguments: Any, key: Key | int | None = None, engine: Engine | None = None) -> Any:
        """Runs the computation and gives its result, see `run`; within another computation it becomes part of that."""
        if any(isinstance(argument, Value) for argument in arguments):
            return self._inline(arguments)
        return self.run(*arguments, key=key, engine=engine).result

    def run(
        self,
        *arguments: Any,
        key: Key | int | None = None,
        engine: Engine | None = None,
        per_client_traffic: bool = False,
        held: Mapping[str, int] | None = None,
        earlier: Mapping[int, Any] | None = None,
    ) -> Run:
        """Runs the computation.

        Args:
          *arguments: for a parameter at SERVER one value; for one at CLIENTS a list, one item for each client of the
            cohort. An item's `client_id`, where it has one, names the client.
          key: a seed or `uint32[2]`; needed where codecs draw or clients use a key. Another one for each round.
          engine: where client work runs; None runs one client after another.
          per_client_traffic: whether `traffic.clients` tells each client's bytes.
          held: by client id, which earlier call's broadcast a client still holds, where one has a `since`.
          earlier: by call, that broadcast, as `Run.broadcast` gave it.

        Raises:
          ArgumentError: if an argument is missing or of another type, the cohort is empty or holds a client twice, a
            key is needed, or a client holds something and there is no broadcast with a `since`.
        """
        env, clients = self._bind_arguments(arguments)
        key = self._checked_key(key)
        engine = ReferenceEngine() if engine is None else engine
        held, wanted = self._checked_held(held or {}, earlier or {}, clients)
        entries: list[TrafficEntry] = []
        per_client = {client.id: (0, 0) for client in clients} if per_client_traffic else {}
        for index, phase in enumerate(self.phases):
            env.update((node, node.value) for node in phase.constants)
            for step in phase.server:
                step(env)
            if phase.has_pass:
                sent, result = self._run_pass(phase, index, env, clients, key, engine, wanted)
                sizes = sent.sizes()
                messages = {client.id: sizes.shorter.get(held.get(client.id, -1), sizes.message) for client in clients}
                entries += [*_added(messages.values()), *result.traffic]
                per_client = {
                    name: (d + sum(entry.bytes for entry in messages[name]), u + result.sent[name])
                    for name, (d, u) in per_client.items()
                }
        values = iter([env[node] for node in self._results])
        leaves = [next(values) if isinstance(leaf, Value) else leaf for leaf in self._leaves]
        traffic = Traffic(merged(entries), per_client)
        broadcast = None if self._cached is None else env[self._cached]
        return Run(jax.tree.unflatten(self._structure, leaves), traffic, broadcast)

    def _run_pass(
        self,
        phase: Phase,
        index: int,
        env: dict[Node, Any],
        clients: Sequence[Client],
        key: Key,
        engine: Engine,
        earlier: Mapping[int, Any],
    ) -> tuple[Sent, PassResult]:
        if not clients:
            raise ArgumentError(f"{self.name} has work for clients, but no argument at CLIENTS says who they are")
        aggregate_states = [_codec_state(node, env) for node in phase.aggregates]
        sent = phase.downlink.send(
            [env[node.inputs[0]] for node in phase.broadcasts],
            [_codec_state(node, env) for node in phase.broadcasts],
            aggregate_states,
            random.derive(key, "broadcast", index),
            earlier if self._cached in phase.broadcasts else {},
        )
        env.update(zip(phase.broadcasts, sent.received, strict=True))
        env.update((node, env[node.inputs[0]]) for node in phase.held)
        for step in phase.shared:
            step(env)
        alike = {node for step in phase.shared for node in step.outputs}
        received = {node: value for node, value in env.items() if isinstance(node, (Broadcast, Held)) or node in alike}
        inputs = PassInputs(received, sent.parameters, aggregate_states, key, len(clients))
        result = engine.run(ClientPass(self, index, inputs), clients)
        env.update(result.values)
        crossings = dict(zip(phase.broadcasts, sent.states, strict=True)) | result.next_states
        for node in self.nodes:
            if isinstance(node, NextState) and node.inputs[0] in crossings:
                env[node] = crossings[node.inputs[0]]
            elif isinstance(node, Count) and node.inputs[0] in result.next_states:
                env[node] = jnp.float32(result.count)
        return sent, result

    def _checked_held(
        self, held: Mapping[str, int], earlier: Mapping[int, Any], clients: Sequence[Client]
    ) -> tuple[Mapping[str, int], dict[int, Any]]:
        """What clients of the cohort hold, and the broadcasts that these are."""
        if held and self._cached is None:
            raise ArgumentError(f"{self.name} has no broadcast with a since, so that held must be left out")
        own = {client.id: held[client.id] for client in clients if client.id in held}
        if unknown := sorted(set(own.values()) - set(earlier)):
            raise ArgumentError(f"earlier must have all broadcasts that clients hold, but lacks those of {unknown}")
        return own, {call: earlier[call] for call in dict.fromkeys(own.values())}

    def _check_parameters(self) -> None:
        for node in self.nodes:
            if isinstance(node, Parameter) and node not in self._parameters:
                raise PlacementError(
                    f"a value of another computation, {node.type}, is used here; pass it as an argument"
                )

    def _inline(self, arguments: Sequence[Any]) -> Any:
        self._check_count(arguments)
        for argument, type_ in zip(arguments, self._types, strict=True):
            if not isinstance(argument, Value) or argument.type != type_:
                got = argument.type if isinstance(argument, Value) else type(argument).__name__
                raise PlacementError(f"{self.name} takes {type_}, got {got}")
        return self._function(*arguments)

    def _check_count(self, arguments: Sequence[Any]) -> None:
        if len(arguments) != len(self._types):
            raise ArgumentError(
                f"{self.name} takes {len(self._types)} arguments, {self.type_signature}, got {len(arguments)}"
            )

    def _bind_arguments(self, arguments: Sequence[Any]) -> tuple[dict[Node, Any], list[Client]]:
        self._check_count(arguments)
        env: dict[Node, Any] = {}
        at_clients: dict[Node, Sequence[Any]] = {}
        names: list[str] = []
        for parameter, argument in zip(self._parameters, arguments, strict=True):
            if parameter.type.placement is CLIENTS:
                at_clients[parameter] = self._checked_cohort(parameter, argument)
                names = names or [str(item.client_id) for item in argument if hasattr(item, "client_id")]
            else:
                env[parameter] = _checked(parameter, argument, "")
        sizes = {len(values) for values in at_clients.values()}
        if len(sizes) > 1:
            raise ArgumentError(
                f"all arguments at CLIENTS must have one item for each client, got {sorted(sizes)} items"
            )
        return env, _clients(at_clients, names)

    def _checked_cohort(self, parameter: Parameter, argument: Any) -> Sequence[Any]:
        where = f"argument {parameter.index} of {self.name}, {parameter.type},"
        if not isinstance(argument, (list, tuple)):
            raise ArgumentTypeError(
                f"{where} must be a list with an item for each client, got {type(argument).__name__}"
            )
        if not argument:
            raise ArgumentError(f"{where} must have at least one client, got an empty cohort")
        if parameter.type.member.is_sequence:
            for item in argument:
                if not hasattr(item, "__iter__"):
                    raise ArgumentTypeError(f"{where} must hold sequences of batches, got {type(item).__name__}")
            return argument
        return [_checked(parameter, item, f" of client {i}") for i, item in enumerate(argument)]

    def _checked_key(self, key: Key | int | None) -> Key:
        if key is None:
            if self._needs_key:
                raise ArgumentError(
                    f"{self.name} draws at random, so it needs key=, a seed that differs in each round, got None"
                )
            return random.key(0)
        return random.key(key) if isinstance(key, (int, np.integer)) else np.asarray(key, np.uint32)


@overload
def federated_computation(function: Callable[[], Any], /) -> Computation: ...


@overload
def federated_computation(*types: FederatedType) -> Callable[[Callable[..., Any]], Computation]: ...


def federated_computation(*types: Any) -> Any:
    """Decorator: builds a federated computation from a Python function of placed values.

    Used bare for a function without parameters, else with a type for each:

        @federated_computation(at_server(jnp.float32), at_clients(jnp.float32))
        def shifted_mean(offset, values): ...

    Raises:
      PlacementError: if the function puts values together that do not fit; the types are named.
      ArgumentTypeError: if a type is missing or no `at_server(...)` or `at_clients(...)`.
    """
    if len(types) == 1 and inspect.isfunction(types[0]):
        return _build(types[0], ())
    for type_ in types:
        if not isinstance(type_, FederatedType):
            raise ArgumentTypeError(f"a parameter's type must be at_server(...) or at_clients(...), got {type_!r}")
    return lambda function: _build(function, types)


def _build(function: Callable[..., Any], types: Sequence[FederatedType]) -> Computation:
    try:
        inspect.signature(function).bind(*types)
    except TypeError as error:
        raise ArgumentTypeError(
            f"{function.__name__} must take a parameter for each of the {len(types)} types that federated_computation "
            f"was given: {error}"
        ) from None
    return Computation(function, types)


def _added(messages: Iterable[list[TrafficEntry]]) -> list[TrafficEntry]:
    """The traffic of some messages, of which most are the same object."""
    counts = collections.Counter(map(id, messages := list(messages)))
    different = {id(message): message for message in messages}
    return [entry for name, message in different.items() for entry in times(message, counts[name])]


def _codec_state(node: Broadcast | Aggregate, env: dict[Node, Any]) -> Any:
    return node.codec.initial_state() if node.state is None else env[node.state]


def _checked(parameter: Parameter, argument: Any, whose: str) -> Any:
    expected = parameter.type.member.tensors
    if len(expected) == 1 and isinstance(argument, (int, float)) and not isinstance(argument, bool):
        argument = np.asarray(argument, expected[0].dtype)  # as JAX reads a Python number
    found = member_type(argument)
    if found != parameter.type.member:
        raise ArgumentError(f"argument {parameter.index}{whose} must be {parameter.type.member}, got {found}")
    return jax.tree.map(jnp.asarray, argument)


def _clients(at_clients: dict[Node, Sequence[Any]], names: Sequence[str]) -> list[Client]:
    """The cohort; a client without a name goes by its position."""
    count = len(next(iter(at_clients.values()), ()))
    if len(names) not in (0, count):
        raise ArgumentError(f"either all of a cohort's items have a client_id or none, got {len(names)} of {count}")
    names = names or [str(i) for i in range(count)]
    repeated = sorted(name for name, times_seen in collections.Counter(names).items() if times_seen > 1)
    if repeated:
        raise ArgumentError(f"each client may be in a cohort once, got {repeated} more than once")
    return [
        Client(name, {parameter: values[i] for parameter, values in at_clients.items()}) for i, name in enumerate(names)
    ]


def _constant_notation(value: Any) -> str:
    return "string" if isinstance(value, (str, bytes)) else str(member_type(value))

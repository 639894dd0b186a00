"""One pass over the clients: what an engine runs."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from laconic.codecs import Contribution, Devices, Payload, random
from laconic.codecs._stack import Fetched
from laconic.codecs.random import Key
from laconic.errors import PlacementError
from laconic.federated._crossing import Uplink, times
from laconic.federated._fusion import Step
from laconic.federated._graph import Aggregate, ClientKey, Constant, NextMemory, Node, Parameter
from laconic.federated._stack import SequenceRows, StackedWork, StackInputs, sized, stacked_rows
from laconic.federated._traffic import TrafficEntry
from laconic.federated._types import MemberType, member_type


@dataclasses.dataclass(frozen=True)
class Client:
    """One client of a cohort.

    Attributes:
      id: known to both sides; random keys derive from it.
      arguments: its own value of each parameter at CLIENTS.
    """

    id: str
    arguments: Mapping[Node, Any]


@dataclasses.dataclass(frozen=True)
class ClientOutput:
    """What one client's pass gave: what it sent, and the values that stay with it but are results."""

    client_id: str
    contributions: list[Contribution]
    payload: Payload | None
    kept: list[Any]


@dataclasses.dataclass(frozen=True)
class PassResult:
    """What one pass over all clients gave.

    Attributes:
      values: the reduced value of each aggregate, and the list over clients of each result that stays at CLIENTS.
      next_states: the next codec state of each aggregate.
      count: clients that took part.
      traffic: of what clients sent.
      sent: bytes sent by each client.
    """

    values: dict[Node, Any]
    next_states: dict[Node, Any]
    count: int
    traffic: tuple[TrafficEntry, ...]
    sent: dict[str, int]


class ClientPass:
    """The clients' part of a computation between two crossings.

    An engine maps `run_client`, or begins stacks of clients with `run_stack`, and streams into `reduce`.

    Args:
      given: parameters, constants and keys, with which the clients begin.
      steps: what each client then computes, in order.
      remembered: what clients remember after their aggregates.
      after: what each client computes from that, in order, once it has sent.
      aggregates: what is sent to the server.
      kept: results that stay at the clients.
      stacked: `steps`, for many clients at once.
      uplink: how the aggregates travel.
      received: what is the same at all clients: values of broadcasts, and what follows from these.
      parameters: each aggregate's encode parameters, as received.
      states: each aggregate's codec state, at the server.
      key: of this call.
      index: of this pass in the computation.
    """

    def __init__(
        self,
        *,
        given: Sequence[Node],
        steps: Sequence[Step],
        remembered: Sequence[NextMemory],
        after: Sequence[Step],
        aggregates: Sequence[Aggregate],
        kept: Sequence[Node],
        stacked: StackedWork,
        uplink: Uplink,
        received: Mapping[Node, Any],
        parameters: Sequence[Any],
        states: Sequence[Any],
        key: Key,
        index: int,
    ):
        self._given = given
        self._steps = steps
        self._remembered = remembered
        self._after = after
        self._aggregates = aggregates
        self._kept = kept
        self._stacked = stacked
        self._uplink = uplink
        self._received = received
        self._parameters = parameters
        self._states = states
        self._key = key
        self._index = index
        self._shared: dict[Devices, Any] = {}

    def run_client(self, client: Client) -> ClientOutput:
        """Runs one client: computes, encodes its message, and decodes that as far as it must be before the sum.

        Pure, and safe to call from several threads; an error carries a note that names the client.
        """
        with _named(client):
            values = self._given_values(client)
            for step in self._steps:
                step(values)
            return self._output(client, values, self._send(client, values))

    def sized(self, client: Client) -> tuple[Client, int]:
        """The client, and the elements of its longest sequence, at least 1: by these a stack's padding is counted.

        A sequence tells them by `num_batches` or `len`; one that tells neither becomes a list in the client's
        arguments.
        """
        arguments, size = dict(client.arguments), 1
        with _named(client):
            for node in self._stacked.sequences:
                arguments[node], own = sized(arguments[node])
                size = max(size, own)
        return Client(client.id, arguments), size

    def run_stack(
        self, clients: Sequence[Client], *, rows: int, steps: int, devices: Devices
    ) -> list[Callable[[], ClientOutput]]:
        """Begins to run several clients as one compiled program, and does not wait for it.

        Encoding is part of it, unless a codec remembers, or looks for its rate by the bytes that it gets: then each
        client encodes by itself. Results are those of `run_client` within rounding.

        Args:
          clients: at most `rows`; dummies, whose results are dropped, fill the stack.
          rows: of the stack; the devices must be able to share them evenly.
          steps: to which sequences are padded; as many as the longest one has elements.
          devices: where to compute.

        Returns:
          For each client a function that waits for it, packs its message and gives its output: to be called once, on
          any thread. An error carries a note that names the client.

        Raises:
          ArgumentError: if a sequence has more elements than there are steps.
        """
        values = self._stacked.run(devices, self._shared_on(devices), self._inputs(clients, rows, steps))
        contribution = None
        outgoing = [node.inputs[0] for node in self._aggregates]
        if self._aggregates and self._uplink.can_stack:
            contribution = self._uplink.send_stack(
                [values[node] for node in outgoing],
                self._parameters,
                self._states,
                self._stacked_keys(clients, rows),
                devices,
            )
            values = {node: value for node, value in values.items() if node in self._kept}
        fetched = Fetched(list(values.values()))

        def finish(position: int) -> ClientOutput:
            client = clients[position]
            with _named(client):
                own = self._given_values(client)
                own.update(zip(values, jax.tree.map(jnp.asarray, fetched.row(position)), strict=True))
                if contribution is None:
                    return self._output(client, own, self._send(client, own))
                # Without memories nothing is computed after sending.
                return self._output(client, own, contribution(position))

        return [functools.partial(finish, position) for position in range(len(clients))]

    def reduce(self, outputs: Iterable[ClientOutput]) -> PassResult:
        """Reduces clients' outputs as they arrive; they must come in cohort order, so that the same bits come out."""
        reducers = [_Reducer(node, state) for node, state in zip(self._aggregates, self._states, strict=True)]
        kept: list[list[Any]] = [[] for _ in self._kept]
        entries: list[TrafficEntry] = []
        sent = {}
        for output in outputs:
            for reducer, contribution in zip(reducers, output.contributions, strict=True):
                reducer.add(contribution)
            for collected, value in zip(kept, output.kept, strict=True):
                collected.append(value)
            if output.payload is not None:
                entries = list(times([*entries, *self._uplink.entries(output.payload)], 1))
            sent[output.client_id] = 0 if output.payload is None else len(output.payload)
        results = {reducer.node: reducer.result() for reducer in reducers}
        values: dict[Node, Any] = {node: value for node, (value, _) in results.items()} | dict(
            zip(self._kept, kept, strict=True)
        )
        return PassResult(
            values, {node: state for node, (_, state) in results.items()}, len(sent), tuple(entries), sent
        )

    def _given_values(self, client: Client) -> dict[Node, Any]:
        """What a client begins with."""
        values: dict[Node, Any] = dict(self._received)
        for node in self._given:
            match node:
                case Parameter():
                    values[node] = _argument(node, client.arguments[node])
                case Constant():
                    values[node] = node.value
                case ClientKey():
                    values[node] = random.derive(self._key, "client", client.id)
        return values

    def _send(self, client: Client, values: dict[Node, Any]) -> tuple[list[Contribution], Payload | None]:
        """A client's message; adds to its values what it computes after having sent."""
        if not self._aggregates:
            return [], None
        outgoing = [values[node.inputs[0]] for node in self._aggregates]
        memories = [
            node.codec.initial_memory() if node.memory is None else values[node.memory] for node in self._aggregates
        ]
        key = self._message_key(client)
        sent, payload, memories = self._uplink.send(outgoing, self._parameters, self._states, memories, key)
        remembered: dict[Node, Any] = dict(zip(self._aggregates, memories, strict=True))
        values.update((node, remembered[node.inputs[0]]) for node in self._remembered)
        for step in self._after:
            step(values)
        return sent, payload

    def _output(
        self, client: Client, values: Mapping[Node, Any], sent: tuple[list[Contribution], Payload | None]
    ) -> ClientOutput:
        return ClientOutput(client.id, *sent, [values[node] for node in self._kept])

    def _message_key(self, client: Client) -> Key | None:
        """Of one client's message; None where no stage draws."""
        return random.derive(self._key, "aggregate", self._index, client.id) if self._uplink.is_stochastic else None

    def _stacked_keys(self, clients: Sequence[Client], rows: int) -> Any:
        if not self._uplink.is_stochastic:
            return None
        return stacked_rows([self._message_key(client) for client in clients], rows)

    def _shared_on(self, devices: Devices) -> Any:
        """What is the same for all clients, brought to the devices once in a pass."""
        if devices not in self._shared:
            values = [
                node.value if isinstance(node, Constant) else self._received[node] for node in self._stacked.shared
            ]
            self._shared[devices] = devices.share(values)
        return self._shared[devices]

    def _inputs(self, clients: Sequence[Client], rows: int, steps: int) -> StackInputs:
        work = self._stacked
        sequences = [SequenceRows(node.type.member.element, rows, steps) for node in work.sequences]
        arguments: list[list[Any]] = [[] for _ in work.arguments]
        for row, client in enumerate(clients):
            with _named(client):
                values = self._given_values(client)
                for collected, node in zip(arguments, work.arguments, strict=True):
                    collected.append(values[node])
                for room, node in zip(sequences, work.sequences, strict=True):
                    room.fill(row, values[node])
        counts = np.stack([room.counts for room in sequences], axis=1) if sequences else np.zeros((rows, 1), np.int32)
        return StackInputs(
            [stacked_rows(trees, rows) for trees in arguments], [room.tree for room in sequences], counts
        )


@contextlib.contextmanager
def _named(client: Client) -> Iterator[None]:
    """Adds to an error whose it is."""
    try:
        yield
    except Exception as error:
        error.add_note(f"at client {client.id!r}")
        raise


def _argument(node: Parameter, value: Any) -> Any:
    """A client's argument; a sequence's elements are checked as they come, or a wrong shape would compile anew."""
    member = node.type.member
    return _checked_elements(value, member.element) if member.is_sequence else value


def _checked_elements(elements: Iterable[Any], expected: MemberType) -> Iterator[Any]:
    for element in elements:
        found = member_type(element)
        if found != expected:
            raise PlacementError(f"each element of the client's sequence must be {expected}, got {found}")
        yield element


@runtime_checkable
class Engine(Protocol):
    """Where passes over clients run."""

    def run(self, client_pass: ClientPass, clients: Sequence[Client]) -> PassResult:
        """Runs the pass for all clients, in any order, and reduces their outputs in cohort order."""
        ...


class ReferenceEngine:
    """One client after another: what every other engine must agree with, bit for bit."""

    def run(self, client_pass: ClientPass, clients: Sequence[Client]) -> PassResult:
        """Runs the clients in turn."""
        return client_pass.reduce(map(client_pass.run_client, clients))


class _Reducer:
    """The server's end of one aggregate."""

    def __init__(self, node: Aggregate, state: Any):
        self.node = node
        self._gather = node.codec.gather(state)
        self._accumulator: Any = None
        self._started = False

    def add(self, contribution: Contribution) -> None:
        reduction = self.node.reduction
        if reduction is None:
            self._gather.add(contribution)
            return
        # Only sums have a codec; any other value travels as it is, so that its summands are the value itself.
        codec = self.node.codec
        arrays = [np.asarray(array, spec.dtype) for array, spec in zip(contribution.summands, codec.specs, strict=True)]
        value = jax.tree.unflatten(codec.structure, arrays)
        self._accumulator = reduction.accumulate(self._accumulator, value) if self._started else reduction.start(value)
        self._started = True

    def result(self) -> tuple[Any, Any]:
        if self.node.reduction is None:
            return self._gather.result()
        return self.node.reduction.report(self._accumulator), ()

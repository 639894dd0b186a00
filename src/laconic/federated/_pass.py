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
from laconic.errors import ArgumentError, PlacementError
from laconic.federated._graph import ClientKey, Constant, Node, Parameter
from laconic.federated._plan import Phase
from laconic.federated._reduction import ClientOutput, Parts, Reducer, leaves
from laconic.federated._stack import SequenceRows, StackInputs, sized, stacked_rows
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


@dataclasses.dataclass(frozen=True)
class PassInputs:
    """What a pass begins with, besides the program.

    Attributes:
      received: what is the same at all clients: values of broadcasts, and what follows from these.
      parameters: each aggregate's encode parameters, as received.
      states: each aggregate's codec state, at the server.
      key: of this call.
      count: clients of the cohort.
    """

    received: Mapping[Node, Any]
    parameters: Sequence[Any]
    states: Sequence[Any]
    key: Key
    count: int


class Program(Protocol):
    """What a pass is part of: a computation, as far as a pass must know it."""

    @property
    def nodes(self) -> Sequence[Node]:
        """All nodes; the same ones in the same order wherever the program is built."""

    @property
    def phases(self) -> Sequence[Phase]:
        """Whose clients' parts are passes."""


class ClientPass:
    """The clients' part of a computation between two crossings.

    An engine maps `run_client`, or begins stacks of clients with `run_stack`, and streams the outputs into `reduce`. To
    run clients elsewhere, it sends the `program` once and a `PortablePass` for each pass, and has the same pass there.
    There it reduces outputs of `extents` of the cohort to `parts`, and what those become, in few of them, it brings
    back, adds up in `parts` here, and gives these to `total`.

    Args:
      program: the computation.
      index: of this pass in it.
      inputs: what it begins with.
    """

    def __init__(self, program: Program, index: int, inputs: PassInputs):
        self.program = program
        self.index = index
        self.inputs = inputs
        self._phase = program.phases[index]
        self._reducer = Reducer(self._phase.aggregates, inputs.states, len(self._phase.kept), self._phase.uplink)
        self._shared: dict[Devices, Any] = {}

    def extents(self, at_most: int) -> list[range]:
        """The cohort as positions in it, cut as it is reduced, into extents of at most so many clients.

        They are larger where a 64th of the cohort is more. An extent's outputs become one part.
        """
        return leaves(self.inputs.count, at_most=at_most)

    def parts(self) -> Parts:
        """Where outputs, and parts of other ones of this pass, are reduced."""
        return Parts(self.inputs.count, self._reducer.part, self._reducer.merged)

    def run_client(self, client: Client) -> ClientOutput:
        """Runs one client: computes, encodes its message, and decodes that as far as it must be before the sum.

        Pure, and safe to call from several threads; an error carries a note that names the client.
        """
        with _named(client):
            values = self._given_values(client)
            for step in self._phase.clients:
                step(values)
            return self._output(client, values, self._send(client, values))

    def sized(self, client: Client) -> tuple[Client, int]:
        """The client, and the elements of its longest sequence, at least 1: by these a stack's padding is counted.

        A sequence tells them by `num_batches` or `len`; one that tells neither becomes a list in the client's
        arguments.
        """
        arguments, size = dict(client.arguments), 1
        with _named(client):
            for node in self._phase.stacked.sequences:
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
        values = self._phase.stacked.run(devices, self._shared_on(devices), self._stack_inputs(clients, rows, steps))
        contribution = None
        outgoing = [node.inputs[0] for node in self._phase.aggregates]
        if self._phase.aggregates and self._phase.uplink.can_stack:
            contribution = self._phase.uplink.send_stack(
                [values[node] for node in outgoing],
                self.inputs.parameters,
                self.inputs.states,
                self._stacked_keys(clients, rows),
                devices,
            )
            values = {node: value for node, value in values.items() if node in self._phase.kept}
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
        parts = self.parts()
        parts.reduce(range(self.inputs.count), outputs)
        return self.total(parts)

    def total(self, parts: Parts) -> PassResult:
        """The pass's result from the parts of all clients.

        Raises:
          ArgumentError: if some clients' are missing.
        """
        taken = parts.taken()
        whole = taken.get(range(self.inputs.count))
        if whole is None or len(taken) > 1:
            raise ArgumentError(
                f"parts must be of all {self.inputs.count} clients, each once, got those of positions "
                f"{sorted((extent.start, extent.stop) for extent in taken)}"
            )
        aggregates = self._phase.aggregates
        results = self._reducer.results(whole)
        values: dict[Node, Any] = {node: value for node, (value, _) in zip(aggregates, results, strict=True)}
        values.update(zip(self._phase.kept, whole.kept, strict=True))
        states: dict[Node, Any] = {node: state for node, (_, state) in zip(aggregates, results, strict=True)}
        return PassResult(values, states, len(whole.sent), whole.entries, whole.sent)

    def _given_values(self, client: Client) -> dict[Node, Any]:
        """What a client begins with."""
        values: dict[Node, Any] = dict(self.inputs.received)
        for node in self._phase.given:
            match node:
                case Parameter():
                    values[node] = _argument(node, client.arguments[node])
                case Constant():
                    values[node] = node.value
                case ClientKey():
                    values[node] = random.derive(self.inputs.key, "client", client.id)
        return values

    def _send(self, client: Client, values: dict[Node, Any]) -> tuple[list[Contribution], Payload | None]:
        """A client's message; adds to its values what it computes after having sent."""
        if not self._phase.aggregates:
            return [], None
        outgoing = [values[node.inputs[0]] for node in self._phase.aggregates]
        memories = [
            node.codec.initial_memory() if node.memory is None else values[node.memory]
            for node in self._phase.aggregates
        ]
        key = self._message_key(client)
        sent, payload, memories = self._phase.uplink.send(
            outgoing, self.inputs.parameters, self.inputs.states, memories, key
        )
        remembered: dict[Node, Any] = dict(zip(self._phase.aggregates, memories, strict=True))
        values.update((node, remembered[node.inputs[0]]) for node in self._phase.remembered)
        for step in self._phase.after:
            step(values)
        return sent, payload

    def _output(
        self, client: Client, values: Mapping[Node, Any], sent: tuple[list[Contribution], Payload | None]
    ) -> ClientOutput:
        return ClientOutput(client.id, *sent, [values[node] for node in self._phase.kept])

    def _message_key(self, client: Client) -> Key | None:
        """Of one client's message; None where no stage draws."""
        if not self._phase.uplink.is_stochastic:
            return None
        return random.derive(self.inputs.key, "aggregate", self.index, client.id)

    def _stacked_keys(self, clients: Sequence[Client], rows: int) -> Any:
        if not self._phase.uplink.is_stochastic:
            return None
        return stacked_rows([self._message_key(client) for client in clients], rows)

    def _shared_on(self, devices: Devices) -> Any:
        """What is the same for all clients, brought to the devices once in a pass."""
        if devices not in self._shared:
            values = [
                node.value if isinstance(node, Constant) else self.inputs.received[node]
                for node in self._phase.stacked.shared
            ]
            self._shared[devices] = devices.share(values)
        return self._shared[devices]

    def _stack_inputs(self, clients: Sequence[Client], rows: int, steps: int) -> StackInputs:
        work = self._phase.stacked
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
    specs = expected.tensors
    for element in elements:
        leaves, structure = jax.tree.flatten(element)
        fits = structure == expected.structure and all(spec.is_of(x) for spec, x in zip(specs, leaves, strict=True))
        if not fits and (found := member_type(element)) != expected:
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

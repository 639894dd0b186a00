"""The one place where values cross between SERVER and CLIENTS, and so the one where traffic is measured.

All values that cross together, in one direction and one pass, make one message: their sections share one frame.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax

from laconic.codecs import (
    BoundCodec,
    Codec,
    Concatenate,
    Contribution,
    Devices,
    Payload,
    TensorSpec,
    bind,
    identity,
)
from laconic.codecs.random import Key
from laconic.federated._graph import Aggregate, Broadcast
from laconic.federated._traffic import Direction, Kind, TrafficEntry, merged

_CODING = ThreadPoolExecutor(1, "laconic-coding")


@dataclasses.dataclass(frozen=True)
class _Item:
    label: str
    kind: Kind
    codec: BoundCodec


class Message:
    """The codec of all that crosses together, and the names under which its bytes are counted."""

    def __init__(self, direction: Direction, items: Sequence[_Item]):
        self._direction = direction
        trees = tuple(_tree(item.codec, [_labelled(spec, item.label) for spec in item.codec.specs]) for item in items)
        choice = tuple(
            _tree(item.codec, [_in_group_of(position, codec) for codec in item.codec.codecs])
            for position, item in enumerate(items)
        )
        self.codec = bind(choice, trees)
        self._names = [(item.label, item.kind, unit.spec.name) for item in items for unit in item.codec.units]

    def entries(self, payload: Payload) -> list[TrafficEntry]:
        """One message's traffic."""
        entries = []
        for (label, kind, tensor), size in zip(self._names, payload.tensors, strict=True):
            shares: dict[Kind, int] = {kind: size.payload}
            shares["side_information"] = shares.get("side_information", 0) + size.side_information
            # TFF counts tensors, not kinds: its bits go with the tensor's own kind.
            entries += [
                TrafficEntry(self._direction, label, tensor, each, count, size.tensor_bits if each == kind else 0)
                for each, count in shares.items()
                if count or each == kind
            ]
        return [*entries, TrafficEntry(self._direction, "message", "", "framing", payload.framing, 0)]


class Sizes(NamedTuple):
    """The traffic of a downlink.

    Attributes:
      message: of the message that serves every client.
      shorter: by earlier call, of a shorter message for clients that hold what that call broadcast.
    """

    message: list[TrafficEntry]
    shorter: dict[int, list[TrafficEntry]]


class Sent(NamedTuple):
    """What a downlink gave.

    Attributes:
      received: what clients receive for each broadcast.
      states: each broadcast's next codec state.
      parameters: each aggregate's encode parameters, as received.
      sizes: gives the traffic; it may have to wait for the coder.
    """

    received: list[Any]
    states: list[Any]
    parameters: list[Any]
    sizes: Callable[[], Sizes]


class Downlink:
    """The broadcasts of one pass, and the parameters that its aggregates' codecs are told."""

    def __init__(self, broadcasts: Sequence[Broadcast], aggregates: Sequence[Aggregate]):
        self._broadcasts = tuple(broadcasts)
        self._since = [node.since and jax.jit(node.since) for node in broadcasts]
        self._aggregates = tuple(aggregates)
        parameters = [
            _Item(f"{node.label} parameters", "side_information", bind(identity(), tree))
            for node in aggregates
            for tree in [node.codec.encode_parameters(node.codec.initial_state())]
        ]
        self._message = message = Message(
            "broadcast", [*(_Item(node.label, node.kind, node.codec) for node in broadcasts), *parameters]
        )
        stages = [stage for unit in message.codec.units for stage in unit.codec.stages]
        self._is_exact = all(stage.is_lossless and not stage.is_adaptive for stage in stages)

    def send(
        self,
        values: Sequence[Any],
        states: Sequence[Any],
        aggregate_states: Sequence[Any],
        key: Key,
        earlier: Mapping[int, Any],
    ) -> "Sent":
        """Encodes a message and decodes it, as every client does.

        Args:
          values: one for each broadcast.
          states: each broadcast's codec state.
          aggregate_states: each aggregate's codec state.
          key: for stages that draw.
          earlier: by call, what the broadcast with a `since` gave clients of this cohort that still hold it.
        """
        parameters = [
            node.codec.encode_parameters(state) for node, state in zip(self._aggregates, aggregate_states, strict=True)
        ]
        codec = self._message.codec
        if not codec.specs:
            return Sent(list(values), list(states), parameters, lambda: Sizes([], {}))
        flat_states = [each for own in states for each in own]
        flat_states += codec.initial_sender_state()[len(flat_states) :]

        def coded(tree: Any) -> tuple[Payload, Any]:
            return codec.encode(tree, key=key, state=flat_states)

        if self._is_exact:
            # What is coded without loss decodes to itself, as codecs' tests show, so clients need not wait for the
            # coder, which takes as long as a client's training step or more.
            received = (*values, *parameters)
            sizes = _CODING.submit(lambda: self._sizes(coded, coded(received)[0], received, earlier))
            return self._sent(received, states, sizes.result)
        payload, next_states = coded((*values, *parameters))
        received = codec.decode(payload)
        split = iter(next_states)
        new_states = [[_as_before(own, next(split)) for own in state] for state in states]
        return self._sent(received, new_states, lambda: self._sizes(coded, payload, received, earlier))

    def _sent(self, received: Sequence[Any], states: Sequence[Any], sizes: Callable[[], "Sizes"]) -> "Sent":
        count = len(self._broadcasts)
        return Sent(list(received[:count]), list(states), list(received[count:]), sizes)

    def _sizes(
        self,
        coded: Callable[[Any], tuple[Payload, Any]],
        payload: Payload,
        received: Sequence[Any],
        earlier: Mapping[int, Any],
    ) -> "Sizes":
        """The traffic of the message, and of those for clients that hold something earlier."""
        shorter = {}
        for call, value in earlier.items():
            given = [
                own if since is None else since(own, value) for own, since in zip(received, self._since, strict=False)
            ]
            other, _ = coded((*given, *received[len(given) :]))
            if len(other) < len(payload):
                shorter[call] = self._message.entries(other)
        return Sizes(self._message.entries(payload), shorter)


class Uplink:
    """The aggregates of one pass."""

    def __init__(self, aggregates: Sequence[Aggregate]):
        self._aggregates = tuple(aggregates)
        self._message = Message("aggregate", [_Item(node.label, node.kind, node.codec) for node in aggregates])

    @property
    def is_stochastic(self) -> bool:
        """Whether clients need a key to encode."""
        return self._message.codec.is_stochastic

    def send(
        self,
        values: Sequence[Any],
        parameters: Sequence[Any],
        states: Sequence[Any],
        memories: Sequence[Any],
        key: Key | None,
    ) -> tuple[list[Contribution], Payload, list[Any]]:
        """One client's message: encoded as the client does, then decoded as the server does, as far as before the sum.

        Args:
          values: one for each aggregate.
          parameters: each aggregate's encode parameters.
          states: each aggregate's codec state, at the server.
          memories: for each aggregate, what this client remembers of its earlier encodings.
          key: of this client and round alone; None where no stage draws.

        Returns:
          A contribution for each aggregate; the payload; for each aggregate, what the client remembers now.
        """
        codec = self._message.codec
        flat_parameters = [each for own in parameters for each in own]
        flat_memory = [each for own in memories for each in own]
        payload, contribution, flat_memory = codec.contribute_here(
            tuple(values),
            flat_memory,
            key=key,
            parameters=flat_parameters,
            state=[each for own in states for each in own],
        )
        remembered = iter(flat_memory)
        return self._split(contribution), payload, [[next(remembered) for _ in own] for own in memories]

    @property
    def can_stack(self) -> bool:
        """Whether `send_stack` works: not if a codec remembers, or looks for its rate."""
        return self._message.codec.can_stack

    def send_stack(
        self, values: Sequence[Any], parameters: Sequence[Any], states: Sequence[Any], keys: Any, devices: Devices
    ) -> Callable[[int], tuple[list[Contribution], Payload]]:
        """Many clients' messages, encoded together on devices.

        Args:
          values: one for each aggregate; its arrays have an axis of clients before their own.
          parameters: each aggregate's encode parameters.
          states: each aggregate's codec state, at the server.
          keys: uint32[clients, 2]; None where no stage draws.
          devices: where to encode.

        Returns:
          A function from a client's position to its contribution to each aggregate, and its payload.
        """
        contribution_of = self._message.codec.contribute_stack(
            tuple(values),
            keys=keys,
            parameters=[each for own in parameters for each in own],
            state=[each for own in states for each in own],
            devices=devices,
        )

        def sent(position: int) -> tuple[list[Contribution], Payload]:
            payload, contribution = contribution_of(position)
            return self._split(contribution), payload

        return sent

    def _split(self, contribution: Contribution) -> list[Contribution]:
        """The contribution to each aggregate."""
        summands, reports = iter(contribution.summands), iter(contribution.reports)
        sizes = iter(contribution.unit_sizes)
        return [
            Contribution(
                [next(summands) for _ in range(node.codec.num_summand_arrays)],
                [next(reports) for _ in range(node.codec.num_report_arrays)],
                [next(sizes) for _ in node.codec.units],
            )
            for node in self._aggregates
        ]

    def entries(self, payload: Payload) -> list[TrafficEntry]:
        """One client's traffic."""
        return self._message.entries(payload)


def times(entries: Sequence[TrafficEntry], count: int) -> tuple[TrafficEntry, ...]:
    """The traffic of one message, sent `count` times."""
    return merged(
        dataclasses.replace(entry, bytes=entry.bytes * count, tensor_bits=entry.tensor_bits * count)
        for entry in entries
    )


def _as_before(state: Any, next_state: Any) -> Any:
    """The next state, without a memory that it has only because another codec in its message has one."""
    return {name: next_state[name] for name in state}


def _labelled(spec: TensorSpec, label: str) -> TensorSpec:
    return dataclasses.replace(spec, name=f"{label}/{spec.name}" if spec.name else label)


def _in_group_of(position: int, codec: Codec) -> Codec:
    """The codec, such that only tensors of the same item are concatenated."""
    stage = codec.stage
    if not isinstance(stage, Concatenate):
        return codec
    return dataclasses.replace(codec, stage=dataclasses.replace(stage, group=(stage.group << 16) + position))


def _tree(codec: BoundCodec, leaves: Sequence[Any]) -> Any:
    return jax.tree.unflatten(codec.structure, list(leaves))

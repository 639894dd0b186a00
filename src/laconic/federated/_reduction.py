"""What clients send, reduced in an order that depends on nothing but the cohort's size.

A cohort is cut into stretches. Each is reduced from its first client to its last, and the stretches in their order; so
a stretch may be reduced anywhere, and only what it gave travels on, and still the same bits come out.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from laconic.codecs import Contribution, Payload
from laconic.federated._crossing import Uplink
from laconic.federated._graph import Aggregate
from laconic.federated._traffic import TrafficEntry, merged

_STRETCHES = 64  # at most: enough to share among workers, few enough to be brought together


@dataclasses.dataclass(frozen=True)
class ClientOutput:
    """What one client's pass gave: what it sent, and the values that stay with it but are results."""

    client_id: str
    contributions: list[Contribution]
    payload: Payload | None
    kept: list[Any]


@dataclasses.dataclass(frozen=True)
class Part:
    """What some of the cohort gave, one after another in its order: arrays and numbers, which may be sent.

    Attributes:
      reduced: of each aggregate, what `Reducer` has of it so far.
      kept: of each result that stays at the clients, the values.
      entries: traffic of what they sent.
      sent: bytes sent by each client.
    """

    reduced: list[Any]
    kept: list[list[Any]]
    entries: tuple[TrafficEntry, ...]
    sent: dict[str, int]


def stretches(count: int) -> list[range]:
    """Positions in a cohort of `count` clients, cut where it is reduced apart: at most 64 stretches of one length."""
    length = -(-count // _STRETCHES)
    return [range(start, min(start + length, count)) for start in range(0, count, length)]


class Reducer:
    """The server's end of what clients send in one pass.

    Args:
      aggregates: what is reduced.
      states: each one's codec state.
      num_kept: how many results stay at the clients.
      uplink: how the aggregates travel.
    """

    def __init__(self, aggregates: Sequence[Aggregate], states: Sequence[Any], num_kept: int, uplink: Uplink):
        self._aggregates = aggregates
        self._states = states
        self._num_kept = num_kept
        self._uplink = uplink

    def part(self, outputs: Iterable[ClientOutput]) -> Part:
        """Of the outputs of clients that follow each other in the cohort."""
        reduced: list[Any] = []
        kept: list[list[Any]] = [[] for _ in range(self._num_kept)]
        entries: tuple[TrafficEntry, ...] = ()
        sent = {}
        for output in outputs:
            reduced = self._with_next(reduced, output.contributions)
            for values, value in zip(kept, output.kept, strict=True):
                values.append(value)
            if output.payload is not None:
                entries = merged([*entries, *self._uplink.entries(output.payload)])
            sent[output.client_id] = 0 if output.payload is None else len(output.payload)
        return Part(reduced, kept, entries, sent)

    def merged(self, part: Part, later: Part) -> Part:
        """Of stretches that follow each other. What `part` was must not be used any more."""
        for values, more in zip(part.kept, later.kept, strict=True):
            values += more
        part.sent.update(later.sent)
        entries = merged([*part.entries, *later.entries])
        reduced = [
            self._merged(node, so_far, other)
            for node, so_far, other in zip(self._aggregates, part.reduced, later.reduced, strict=True)
        ]
        return Part(reduced, part.kept, entries, part.sent)

    def results(self, part: Part) -> list[tuple[Any, Any]]:
        """Of each aggregate, the whole cohort's value and the codec's next state."""
        return [
            self._result(node, state, reduced)
            for node, state, reduced in zip(self._aggregates, self._states, part.reduced, strict=True)
        ]

    def _with_next(self, reduced: list[Any], contributions: Sequence[Contribution]) -> list[Any]:
        if not reduced:
            return list(map(self._started, self._aggregates, self._states, contributions))
        return list(map(self._accumulated, self._aggregates, reduced, contributions))

    def _started(self, node: Aggregate, state: Any, contribution: Contribution) -> Any:
        if node.reduction is not None:
            return node.reduction.start(_received(node, contribution))
        totals = node.codec.gather(state).totals
        totals.add(contribution)
        return totals

    def _accumulated(self, node: Aggregate, so_far: Any, contribution: Contribution) -> Any:
        if node.reduction is not None:
            return node.reduction.accumulate(so_far, _received(node, contribution))
        so_far.add(contribution)
        return so_far

    def _merged(self, node: Aggregate, so_far: Any, later: Any) -> Any:
        if node.reduction is not None:
            return node.reduction.merge(so_far, later)
        so_far.absorb(later)
        return so_far

    def _result(self, node: Aggregate, state: Any, reduced: Any) -> tuple[Any, Any]:
        if node.reduction is not None:
            return node.reduction.report(reduced), ()
        gather = node.codec.gather(state)
        gather.absorb(reduced)
        return gather.result()


def _received(node: Aggregate, contribution: Contribution) -> Any:
    # Only sums have a codec; any other value travels as it is, so that its summands are the value itself.
    codec = node.codec
    arrays = [np.asarray(array, spec.dtype) for array, spec in zip(contribution.summands, codec.specs, strict=True)]
    return jax.tree.unflatten(codec.structure, arrays)

"""What clients send, reduced in an order that depends on nothing but the cohort's size.

A cohort is halved, and each half again, until few clients are left. These are reduced from the first to the last, then
halves to wholes. So whoever has run clients that follow each other can reduce most of that by itself, and only what
that gave travels on, and still the same bits come out.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from laconic.codecs import Contribution, Payload
from laconic.federated._crossing import Uplink
from laconic.federated._graph import Aggregate
from laconic.federated._traffic import TrafficEntry, merged

_LEAVES = 64  # at most: enough to share among workers; of each size of half, one at a time is held


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


def leaves(count: int, extent: range | None = None, at_most: int = 1) -> list[range]:
    """What is not halved of an extent, in order: what has at most so many clients, or at most a 64th of the cohort.

    Args:
      count: clients of the cohort.
      extent: positions in it, made by halving; None is all of it.
      at_most: clients in an extent of the result, if that is more than a 64th.
    """
    longest = max(at_most, -(-count // _LEAVES))

    def below(extent: range) -> Iterator[range]:
        if len(extent) <= longest:
            yield extent
        else:
            for half in _halves(extent):
                yield from below(half)

    return list(below(range(count) if extent is None else extent))


def _halves(extent: range) -> tuple[range, range]:
    middle = (extent.start + extent.stop) // 2
    return range(extent.start, middle), range(middle, extent.stop)


class Parts:
    """Parts of a cohort's reduction, two of which become one as soon as they are halves of a whole.

    Args:
      count: clients of the cohort.
      part: of the outputs of clients that follow each other.
      merged: of two parts, the second of clients that follow those of the first.
    """

    def __init__(
        self, count: int, part: Callable[[Iterable[ClientOutput]], Part], merged: Callable[[Part, Part], Part]
    ):
        self._count = count
        self._part = part
        self._merged = merged
        self._held: dict[range, Part] = {}

    def reduce(self, extent: range, outputs: Iterable[ClientOutput]) -> None:
        """Adds the outputs of an extent of the cohort as they arrive; they must come in its order.

        Args:
          extent: the whole cohort's, or one of `ClientPass.extents`.
          outputs: of its clients.
        """
        coming = iter(outputs)
        for leaf in leaves(self._count, extent):
            self.add(leaf, self._part(itertools.islice(coming, len(leaf))))

    def add(self, extent: range, part: Part) -> None:
        """Adds what another object of this kind has given up; the part must not be used any more."""
        while extent != range(self._count):
            whole, first, second = self._around(extent)
            other = self._held.pop(second if extent == first else first, None)
            if other is None:
                break
            part = self._merged(part, other) if extent == first else self._merged(other, part)
            extent = whole
        self._held[extent] = part

    def taken(self) -> dict[range, Part]:
        """All parts by their extents, as few as they can be; none is left."""
        taken, self._held = self._held, {}
        return taken

    def _around(self, extent: range) -> tuple[range, range, range]:
        """The whole that the extent is a half of, and its halves."""
        whole = range(self._count)
        while extent not in (halves := _halves(whole)):
            whole = halves[extent.start >= halves[1].start]
        return whole, *halves


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
        """Of clients that follow each other. What `part` was must not be used any more."""
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

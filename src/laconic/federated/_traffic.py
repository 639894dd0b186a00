"""What travelled between SERVER and CLIENTS, byte for byte."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Literal

Direction = Literal["broadcast", "aggregate"]
Kind = Literal["payload", "side_information", "weights", "metrics", "framing"]


@dataclasses.dataclass(frozen=True)
class TrafficEntry:
    """One tensor's share of the traffic, of one kind and direction, all clients together.

    Attributes:
      direction: "broadcast" (to clients) or "aggregate" (from clients).
      value: what the computation sends, such as "model" or "update".
      tensor: the tensor's path in that value.
      kind: "payload" (compressed values), "side_information" (ranges, tables, parameters, reports, lengths), "weights",
        "metrics", or "framing" (format marks and checksums).
      bytes: lengths of real byte strings, added up.
      tensor_bits: the same tensors as TFF's sizing executor counts them, elements x dtype bits.
    """

    direction: Direction
    value: str
    tensor: str
    kind: Kind
    bytes: int
    tensor_bits: int


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Traffic of one run of a computation, or of several added with `+` (cumulative totals).

    Attributes:
      entries: shares by direction, value, tensor and kind.
      clients: where it was asked for, each client's bytes (down, up).
    """

    entries: tuple[TrafficEntry, ...] = ()
    clients: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)

    @property
    def broadcast_bytes(self) -> int:
        """Bytes sent to clients, all clients together."""
        return self._total("broadcast")

    @property
    def aggregate_bytes(self) -> int:
        """Bytes sent by clients, all clients together."""
        return self._total("aggregate")

    @property
    def total_bytes(self) -> int:
        """Bytes in both directions."""
        return self.broadcast_bytes + self.aggregate_bytes

    @property
    def broadcast_tensor_bits(self) -> int:
        """What TFF's `broadcast_bits` would have added."""
        return sum(entry.tensor_bits for entry in self.entries if entry.direction == "broadcast")

    @property
    def aggregate_tensor_bits(self) -> int:
        """What TFF's `aggregate_bits` would have added."""
        return sum(entry.tensor_bits for entry in self.entries if entry.direction == "aggregate")

    def by(self, *fields: Literal["direction", "value", "tensor", "kind"]) -> dict[tuple[str, ...], int]:
        """Bytes by some of an entry's fields: `traffic.by("direction", "kind")`."""
        totals: dict[tuple[str, ...], int] = {}
        for entry in self.entries:
            group = tuple(getattr(entry, field) for field in fields)
            totals[group] = totals.get(group, 0) + entry.bytes
        return totals

    def __add__(self, other: "Traffic") -> "Traffic":
        clients = dict(self.clients)
        for client_id, (down, up) in other.clients.items():
            before = clients.get(client_id, (0, 0))
            clients[client_id] = (before[0] + down, before[1] + up)
        return Traffic(merged(self.entries + other.entries), clients)

    def __str__(self) -> str:
        return f"{format_bytes(self.broadcast_bytes)} down, {format_bytes(self.aggregate_bytes)} up"

    def _total(self, direction: Direction) -> int:
        return sum(entry.bytes for entry in self.entries if entry.direction == direction)


def merged(entries: Iterable[TrafficEntry]) -> tuple[TrafficEntry, ...]:
    """Entries with equal direction, value, tensor and kind as one, in order of first appearance."""
    totals: dict[tuple[Direction, str, str, Kind], tuple[int, int]] = {}
    for entry in entries:
        group = (entry.direction, entry.value, entry.tensor, entry.kind)
        size, tensor_bits = totals.get(group, (0, 0))
        totals[group] = (size + entry.bytes, tensor_bits + entry.tensor_bits)
    return tuple(TrafficEntry(*group, *sizes) for group, sizes in totals.items())


def format_bytes(count: float) -> str:
    """Bytes in the decimal units that links are sold in: 999 B, 1.68 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.2f} {unit}"
        count /= 1000
    return f"{count:.2f} TB"


def format_tff_bits(count: float) -> str:
    """Bits as TFF's tutorial prints them, in steps of 1024, but with the right unit: 507.62 Mibit."""
    for unit in ("bit", "Kibit", "Mibit"):
        if abs(count) < 1024:
            return f"{count:.2f} {unit}"
        count /= 1024
    return f"{count:.2f} Gibit"

"""From bytes to time: how long rounds would take over their clients' links."""

import bisect
import dataclasses
import itertools
import math
import numbers
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from laconic.codecs import random
from laconic.errors import ArgumentError, ArgumentTypeError
from laconic.experiments._records import History, RoundRecord
from laconic.learning import RoundResult

_BITS = 8  # of a byte

# Bits per second down and up, and seconds of latency; `Link.named` says where they come from.
_FIGURES = {
    "lora": (5470 * 0.01, 5470 * 0.01, 1.0),
    "nb-iot": (26e3, 62e3, 1.6),
    "3g": (5.9e6, 2.0e6, 0.0635),
    "4g": (29.5e6, 7.6e6, 0.021),
    "5g": (129.9e6, 14.7e6, 0.019),
    "fibre": (2.48832e9 / 32, 1.24416e9 / 32, 0.010),
}


@dataclasses.dataclass(frozen=True)
class Link:
    """What connects a client to the server.

    A message takes the latency, and then its bits at the link's rate. Headers, retransmissions and the server's own
    link, which clients share, are left out.

    Attributes:
      down_bits_per_second: rate from the server to the client.
      up_bits_per_second: rate from the client to the server.
      latency_seconds: how long each message waits before its first bit, such as the round trip that a ping tells.
      name: of the link, for people.

    Raises:
      ArgumentError: if a rate is not above 0, the latency is below 0, or one of them is not finite.
      ArgumentTypeError: if one of them is not a number.
    """

    down_bits_per_second: float
    up_bits_per_second: float
    latency_seconds: float = 0.0
    name: str = ""

    def __post_init__(self) -> None:
        _check_number(self.down_bits_per_second, "down_bits_per_second", is_zero_allowed=False)
        _check_number(self.up_bits_per_second, "up_bits_per_second", is_zero_allowed=False)
        _check_number(self.latency_seconds, "latency_seconds", is_zero_allowed=True)

    @classmethod
    def named(cls, name: str) -> "Link":
        """A link of a common class. These are averages and standards: where you know your own figures, give those.

        * `"lora"`: 54.7 bit/s down and up, 1 s. LoRaWAN Regional Parameters 1.0.3, EU863-870: data rate 5 is 5470
          bit/s, the default channels may be used for 1 % of the time, and the first receive window opens after 1 s.
        * `"nb-iot"`: 26 kbit/s down, 62 kbit/s up, 1.6 s. Peak rates of category NB1 (3GPP Release 13), and the least
          of the usual 1.6 to 10 s.
        * `"3g"`: 5.9 Mbit/s down, 2.0 Mbit/s up, 63.5 ms. Averages in the United Kingdom (Ofcom, Mobile Matters 2023);
          latency from its Measuring mobile broadband performance, fourth quarter of 2014.
        * `"4g"`: 29.5 Mbit/s down, 7.6 Mbit/s up, 21 ms. Mobile Matters 2023; latency in the middle of the operators'
          18.3 to 23.7 ms in Mobile Matters 2024.
        * `"5g"`: 129.9 Mbit/s down, 14.7 Mbit/s up, 19 ms. The same reports; operators' 16.3 to 21.4 ms.
        * `"fibre"`: 77.76 Mbit/s down, 38.88 Mbit/s up, 10 ms. A 32nd of a passive optical network's 2.48832 and
          1.24416 Gbit/s (GPON, ITU-T G.984.2); latency of fixed broadband in Ookla's Speedtest Global Index,
          November 2022.

        Raises:
          ArgumentError: if there is no such class.
        """
        if name not in _FIGURES:
            raise ArgumentError(
                f"name must be one of {sorted(_FIGURES)}, got {name!r}; for another link give its rates, as in "
                "Link(down_bits_per_second=8e6, up_bits_per_second=1e6)"
            )
        return cls(*_FIGURES[name], name)

    def seconds(self, down_bytes: float, up_bytes: float) -> float:
        """How long a download takes and an upload after it; where there are no bytes, there is no message."""
        rates = ((down_bytes, self.down_bits_per_second), (up_bytes, self.up_bits_per_second))
        return sum(self.latency_seconds + size * _BITS / rate for size, rate in rates if size)


@dataclasses.dataclass(frozen=True)
class Links:
    """Which client has which link, and so how long rounds take: `Links("4g")`, `Links({"4g": 0.9, "3g": 0.1}, seed=0)`.

    A round takes as long as its slowest client needs to download, compute and upload. Where each client's bytes are
    known, that is exact: `run(links=...)` counts them, and so does `process.next(..., per_client_traffic=True)` in a
    loop of your own. Where only totals are known, each client is taken to have sent and received the mean. This needs
    one link for all, and the slowest client really took at least as long.

    Attributes:
      links: one for all clients; or shares of clients by link, which need not add up to 1; or a function from a
        client's id to its link, such as `table.__getitem__`. A link is a `Link` or a name that `Link.named` knows.
      seed: which client gets which link, where there are shares. That depends on this seed, the client's id and the
        shares, and on nothing else.
      computing_seconds: how long a client computes, or a function of client id and round number that tells it.

    Raises:
      ArgumentError: if a name is unknown, there is no share, one is not above 0, or shares are without a seed.
      ArgumentTypeError: if something is of the wrong kind.
    """

    links: Link | str | Mapping[Link | str, float] | Callable[[str], Link | str]
    seed: int | None = dataclasses.field(default=None, kw_only=True)
    computing_seconds: float | Callable[[str, int], float] = dataclasses.field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        if not callable(self.links):
            _ = self._shares  # or their error
        if self._only is None and not callable(self.links):
            if self.seed is None:
                raise ArgumentError("seed must be given where clients have different links, got None; pass seed=0, say")
            random.key(self.seed)
        if not callable(self.computing_seconds):
            _check_number(self.computing_seconds, "computing_seconds", is_zero_allowed=True)

    def link(self, client_id: str) -> Link:
        """The client's link.

        Raises:
          ArgumentTypeError: if a function that was given for `links` gives something else.
        """
        if callable(self.links):
            return _link(self.links(client_id), f"links({client_id!r})")
        return self._only or self._drawn(client_id)

    def round_seconds(self, measured: RoundResult | RoundRecord, *, round_number: int | None = None) -> float:
        """How long a round takes, from what was measured in it.

        Args:
          measured: what `process.next` gave, or a record of `run`.
          round_number: for `computing_seconds`, where it is a function; a record knows its own.

        Raises:
          ArgumentError: if only totals are known, and clients have different links or computing times; or if a round
            number is needed and not given.
        """
        if isinstance(measured, RoundRecord):
            client_bytes, round_number = measured.client_bytes, measured.round_number
        else:
            client_bytes = measured.traffic.clients
        if client_bytes:
            return max(
                self.link(client_id).seconds(*sizes) + self._computing(client_id, round_number)
                for client_id, sizes in client_bytes.items()
            )
        if self._only is None or callable(self.computing_seconds):
            raise ArgumentError(
                "measured must tell each client's bytes where clients' links or computing times differ, but has only "
                "totals; pass links= to experiments.run, or per_client_traffic=True to process.next"
            )
        totals = (measured.traffic.broadcast_bytes, measured.traffic.aggregate_bytes)
        return self._only.seconds(*(size / measured.clients for size in totals)) + self.computing_seconds

    def timed(self, history: History) -> History:
        """The same history over these links: what `run` would have given with them, as far as bytes are known.

        Raises:
          ArgumentError: as `round_seconds` does, or if the history is of a run that went on, without the rounds before.
        """
        if history.records and history.records[0].cumulative.total_bytes != history.records[0].traffic.total_bytes:
            raise ArgumentError(
                f"history must begin with the first round of its training, but that of {history.name!r} counts bytes "
                "of earlier rounds; join them: dataclasses.replace(rest, records=begun.records + rest.records)"
            )
        seconds = [self.round_seconds(record) for record in history.records]
        rows = zip(history.records, seconds, itertools.accumulate(seconds), strict=True)
        return dataclasses.replace(history, records=tuple(_timed(*row) for row in rows))

    @cached_property
    def _shares(self) -> list[tuple[Link, float]]:
        """Links and their shares, in an order that does not depend on that of the mapping."""
        if not isinstance(self.links, Mapping):
            return [(_link(self.links, "links"), 1.0)]
        if not self.links:
            raise ArgumentError("links must hold at least one link, got an empty mapping; pass Links('4g'), say")
        for link, share in self.links.items():
            if isinstance(share, (Link, str)):
                raise ArgumentTypeError(
                    f"links must map links to shares of clients, but maps {link!r} to {share!r}; where you know each "
                    "client's link, pass a function: Links(table.__getitem__)"
                )
            _check_number(share, f"the share of {link!r}", is_zero_allowed=False)
        shares = [(_link(link, "links"), float(share)) for link, share in self.links.items()]
        return sorted(shares, key=lambda pair: dataclasses.astuple(pair[0]))

    @cached_property
    def _only(self) -> Link | None:
        """The link that all clients have, if they have one."""
        return None if callable(self.links) or len(self._shares) > 1 else self._shares[0][0]

    def _drawn(self, client_id: str) -> Link:
        zero = np.zeros(1, np.uint32)
        assert self.seed is not None
        high, low = random.threefry(random.derive(random.key(self.seed), "link", client_id), zero, zero)
        uniform = ((int(high[0]) << 32 | int(low[0])) >> 11) * 2.0**-53
        bounds = list(itertools.accumulate(share for _, share in self._shares))
        return self._shares[bisect.bisect_right(bounds[:-1], uniform * bounds[-1])][0]

    def _computing(self, client_id: str, round_number: int | None) -> float:
        if not callable(self.computing_seconds):
            return self.computing_seconds
        if round_number is None:
            raise ArgumentError("round_number must be given where computing_seconds is a function of it, got None")
        seconds = self.computing_seconds(client_id, round_number)
        _check_number(seconds, f"computing_seconds({client_id!r}, {round_number})", is_zero_allowed=True)
        return seconds


def _timed(record: RoundRecord, seconds: float, so_far: float) -> RoundRecord:
    return dataclasses.replace(
        record,
        traffic=dataclasses.replace(record.traffic, link_seconds=seconds),
        cumulative=dataclasses.replace(record.cumulative, link_seconds=so_far),
    )


def _link(value: Any, argument: str) -> Link:
    if isinstance(value, str):
        return Link.named(value)
    if not isinstance(value, Link):
        raise ArgumentTypeError(
            f"{argument} must be an experiments.Link or the name of one, such as '4g', got {value!r} of type "
            f"{type(value).__name__}"
        )
    return value


def _check_number(value: Any, argument: str, *, is_zero_allowed: bool) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ArgumentTypeError(f"{argument} must be a number, got {value!r} of type {type(value).__name__}")
    number = float(value)
    if not (math.isfinite(number) and (number > 0 or (is_zero_allowed and number == 0))):
        raise ArgumentError(
            f"{argument} must be finite and {'at least' if is_zero_allowed else 'above'} 0, got {value!r}"
        )

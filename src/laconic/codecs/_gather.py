"""The receiving end of many-to-one: a streaming sum of contributions."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Self

import jax
import numpy as np

from laconic.codecs._layout import Unpacked
from laconic.codecs._merging import Merge, RunningSum
from laconic.errors import ArgumentError


@dataclasses.dataclass(frozen=True)
class Contribution:
    """One sender's payload, decoded as far as that must happen before the sum.

    Attributes:
      summands: arrays to be added to those of other senders.
      reports: what adaptive stages told the receiver.
      unit_sizes: bytes that each of the codec's units took.
    """

    summands: list[np.ndarray]
    reports: list[np.ndarray]
    unit_sizes: list[int]

    @classmethod
    def of(cls, summands: Any, unpacked: Unpacked) -> Self:
        """What a payload held, and the tree of its decoded summands."""
        return cls(
            [np.asarray(array) for array in jax.tree.leaves(summands)],
            [array for extra in unpacked.extras for array in extra],
            unpacked.unit_sizes,
        )


@dataclasses.dataclass(frozen=True)
class Summary:
    """All contributions of a round as one.

    Attributes:
      count: how many they were.
      sums: of the summands, in 64-bit integers or in float32 or wider.
      reports: merged, in their own dtypes.
      unit_sizes: bytes that each of the codec's units took in all contributions together.
    """

    count: int
    sums: list[np.ndarray]
    reports: list[np.ndarray]
    unit_sizes: list[int]


class Totals:
    """What contributions add up to, before it is decoded: arrays, which may be sent and absorbed elsewhere.

    Memory does not grow with the number of contributions, unless reports are stacked.
    """

    def __init__(self, merges: Sequence[Merge]):
        self.count = 0
        self._reports = [merge.accumulator() for merge in merges]
        self._sums: list[RunningSum] = []
        self._unit_sizes: list[int] = []

    def add(self, contribution: Contribution) -> None:
        """Adds one contribution."""
        self._sums = self._sums or [RunningSum() for _ in contribution.summands]
        for total, summand in zip(self._sums, contribution.summands, strict=True):
            total.add(summand)
        for merged, report in zip(self._reports, contribution.reports, strict=True):
            merged.add(report)
        self._count(1, contribution.unit_sizes)

    def absorb(self, later: "Totals") -> None:
        """Adds what later contributions add up to; of nothing, nothing."""
        if not later.count:
            return
        self._sums = self._sums or [RunningSum() for _ in later._sums]
        for total, summand in zip(self._sums, later._sums, strict=True):
            total.absorb(summand)
        for merged, report in zip(self._reports, later._reports, strict=True):
            merged.absorb(report)
        self._count(later.count, later._unit_sizes)

    def summary(self) -> Summary:
        """All of it."""
        sums = [total.total for total in self._sums]
        return Summary(self.count, sums, [merged.result() for merged in self._reports], self._unit_sizes)

    def _count(self, contributions: int, unit_sizes: list[int]) -> None:
        known = self._unit_sizes or [0] * len(unit_sizes)
        self._unit_sizes = [total + size for total, size in zip(known, unit_sizes, strict=True)]
        self.count += contributions


class Gather:
    """Adds up contributions, in the order in which they are given; made by `BoundCodec.gather`.

    Floats are added in float32 or wider, integers in 64 bits. Memory does not grow with the number of contributions,
    unless reports are stacked. One thread at a time.
    """

    def __init__(
        self,
        read: Callable[[Any], Contribution],
        finish: Callable[[Summary], tuple[Any, Any]],
        merges: Sequence[Merge],
    ):
        self._read = read
        self._finish = finish
        self.totals = Totals(merges)
        """What was added so far; `absorb` of another gather takes it."""

    @property
    def count(self) -> int:
        """Contributions added so far."""
        return self.totals.count

    def add(self, contribution: Contribution | Any) -> None:
        """Adds a contribution, or a payload that holds one.

        Raises:
          ArgumentError: if a sum of 64-bit integers overflows, here or at the latest in `result`.
          DecodeError: if a payload is damaged, or not of this codec.
        """
        if not isinstance(contribution, Contribution):
            contribution = self._read(contribution)
        self.totals.add(contribution)

    def absorb(self, totals: Totals) -> None:
        """Adds what another gather of this codec and state has added up, in one go.

        Floats may then have other bits than those of adding one contribution after the other.

        Raises:
          ArgumentError: if a sum of 64-bit integers overflows, here or at the latest in `result`.
        """
        self.totals.absorb(totals)

    def result(self) -> tuple[Any, Any]:
        """The decoded sum as a tree of JAX arrays, and the next round's state.

        Raises:
          ArgumentError: if nothing was added, or a sum of integers does not fit its dtype or 64 bits. A float that
            overflows becomes infinite.
        """
        if self.count == 0:
            raise ArgumentError("a sum needs at least one contribution, got none")
        return self._finish(self.totals.summary())

"""Tables of symbol frequencies: what a static model of integers is made of, and how it travels."""

import dataclasses
import enum
import functools
from typing import Self

import numpy as np

from laconic.codecs import _wire
from laconic.codecs.coders._histograms import BIT, log2
from laconic.codecs.coders._integer_coders import SectionReader, best_rice_parameter, to_naturals, write_rice
from laconic.errors import DecodeError

PRECISION = 24
"""Frequencies are in units of 2**-PRECISION."""

RESERVED = 2**8
"""What is kept from all symbols: so each takes 2**-16 bits at least, and bytes bound how many they can hold."""

MAX_COUNT = 2**38
"""Most integers in a section, so that no product overflows."""

_MAX_GEOMETRIC = 2**12
_MOST_WITH_REFERENCE = 64  # symbols: of more, one is next to nothing
_GEOMETRIC_START = 2**36
_MAX_ROOT = 2**19  # its square is the largest count


class Kind(enum.IntEnum):
    """How the frequencies of an alphabet travel.

    GEOMETRIC: as one scale. The others are the roots r of the counts, so that each entry is as precise as its count is
    significant (a count varies by its root): PLAIN by themselves; DIFFERENCES each from the one before; REFERENCE by
    themselves but for one symbol, which has what the others leave of the number of integers.
    """

    GEOMETRIC = 0
    PLAIN = 1
    DIFFERENCES = 2
    REFERENCE = 3


@dataclasses.dataclass(frozen=True)
class Table:
    """Weights of symbols, one row for each context that occurs.

    Attributes:
      kind: how they travel.
      weights: int64, contexts x symbols.
      head: the first bytes that say so.
      numbers: what follows in Rice codes, if anything.
      parameter: of these codes.
      bits: what all of it takes.
    """

    kind: Kind
    weights: np.ndarray
    head: bytes = b""
    numbers: np.ndarray | None = None
    parameter: int = 0
    bits: int = 0

    @classmethod
    def of_roots(cls, kind: Kind, weights: np.ndarray, head: bytes, numbers: np.ndarray) -> Self:
        """The table that such numbers say."""
        numbers = numbers.reshape(-1)
        parameter, bits = best_rice_parameter(numbers)
        return cls(kind, weights, head, numbers, parameter, 8 * len(head) + 8 + bits)

    def write(self) -> bytes:
        """The bytes that say the weights."""
        if self.numbers is None:
            return self.head
        return self.head + bytes([self.parameter]) + write_rice(self.numbers, self.parameter)


def frequencies(weights: np.ndarray) -> np.ndarray:
    """Of the symbols in each context (int64, like the weights): at least 1, and 2**PRECISION - RESERVED in all.

    Shared out by weight, in integers alone; what rounding leaves goes to the first of the heaviest.
    """
    num_symbols = weights.shape[1]
    room = 2**PRECISION - RESERVED - num_symbols
    shares = 1 + weights * room // weights.sum(axis=1, keepdims=True)
    rows = np.arange(len(weights))
    shares[rows, weights.argmax(axis=1)] += 2**PRECISION - RESERVED - shares.sum(axis=1)
    return shares


def best_table(counts: np.ndarray) -> tuple[Table, int]:
    """The table that takes least for the counts, contexts x symbols, none of the contexts empty; and its cost."""
    roots = np.rint(np.sqrt(counts)).astype(np.int64)
    plain = roots.astype(np.uint32)
    differences = roots.copy()
    differences[:, 1:] -= roots[:, :-1]
    tables = [
        Table.of_roots(Kind.PLAIN, roots**2, b"", plain),
        Table.of_roots(Kind.DIFFERENCES, roots**2, b"", to_naturals(differences.astype(np.int32))),
    ]
    tables = [min(tables, key=lambda table: table.bits)]
    if counts.shape[1] > _MOST_WITH_REFERENCE:
        return _cheapest(tables, counts)
    reference = int(counts.sum(axis=0).argmax())
    weights = _with_reference(roots**2, reference, counts.sum(axis=1))
    if not np.any((weights == 0) & (counts > 0)):
        others = np.delete(plain, reference, axis=1)
        tables.append(Table.of_roots(Kind.REFERENCE, weights, _wire.varint(reference), others))
    return _cheapest(tables, counts)


def geometric_table(counts: np.ndarray) -> tuple[Table, int] | None:
    """The two-sided geometric distribution that fits the counts of one context best and its cost; None if too large."""
    if not 1 < counts.size <= _MAX_GEOMETRIC:
        return None
    median = int(np.searchsorted(np.cumsum(counts), (counts.sum() + 1) // 2))
    tables = []
    for center in sorted({median, int(counts.argmax())}):
        distances = np.abs(np.arange(counts.size) - center)
        # With p(k) ~ t**|k|, 1 - t is near 1 / (E|k| + 1); the scale's neighbours are tried too.
        complement = 2**32 * int(counts.sum()) // int((distances * counts).sum() + counts.sum())
        octave = min(15, max(0, 32 - complement.bit_length()))
        middle = 16 * octave + min(15, max(0, 31 - (complement >> (27 - octave))))
        for scale in range(max(0, middle - 1), min(255, middle + 1) + 1):
            head = _wire.varint(center) + bytes([scale])
            tables.append(Table(Kind.GEOMETRIC, _geometric(counts.size, center, scale), head, bits=8 * len(head)))
    return _cheapest(tables, counts[None])


def _cheapest(tables: list[Table], counts: np.ndarray) -> tuple[Table, int]:
    """The table that takes least, and what integers of these counts and it take, in units of 1 / BIT."""
    # All at once: most tables are small, and then the time goes into calls.
    weights = np.concatenate([table.weights for table in tables])
    bits = PRECISION * BIT - log2(frequencies(weights))
    bits[np.count_nonzero(weights, axis=1) <= 1] = 0
    costs = (counts * bits.reshape(len(tables), *counts.shape)).sum(axis=(1, 2))
    costs += np.array([table.bits for table in tables]) * BIT
    best = int(np.argmin(costs))
    return tables[best], int(costs[best])


def read_table(reader: SectionReader, kind: Kind, totals: np.ndarray, num_symbols: int) -> np.ndarray:
    """The weights of contexts with these totals, none of them zero.

    Raises:
      DecodeError: if there is no such table.
    """
    if kind == Kind.GEOMETRIC:
        center = reader.varint("a geometric table's center")
        scale = reader.take(1, "a geometric table's scale")[0]
        if center >= num_symbols or num_symbols > _MAX_GEOMETRIC:
            raise DecodeError(f"a geometric table of {num_symbols} symbols cannot have its center at {center}")
        return np.repeat(_geometric(num_symbols, center, scale), len(totals), axis=0)
    reference = None
    if kind == Kind.REFERENCE:
        reference = reader.varint("a table's reference symbol")
        if reference >= num_symbols:
            raise DecodeError(f"a table of {num_symbols} symbols cannot have the reference {reference}")
    shape = (len(totals), num_symbols - (reference is not None))
    parameter = reader.take(1, "a table's Rice parameter")[0]
    naturals = reader.rice(shape[0] * shape[1], parameter).reshape(shape)
    if int(naturals.max(initial=0)) > 2 * _MAX_ROOT:
        raise DecodeError("a table of frequencies has an entry out of range")
    numbers = naturals.astype(np.int64)
    if kind == Kind.DIFFERENCES:
        numbers = np.cumsum((numbers >> 1) ^ -(numbers & 1), axis=1)
    if numbers.size and not 0 <= int(numbers.min()) <= int(numbers.max()) <= _MAX_ROOT:
        raise DecodeError("a table of frequencies has an entry out of range")
    weights = numbers**2
    if reference is not None:
        weights = _with_reference(np.insert(weights, reference, 0, axis=1), reference, totals)
    if not weights.any(axis=1).all():
        raise DecodeError("a table of frequencies is all zero")
    return weights


def _with_reference(weights: np.ndarray, reference: int, totals: np.ndarray) -> np.ndarray:
    weights = weights.copy()
    weights[:, reference] = 0
    weights[:, reference] = np.maximum(totals - weights.sum(axis=1), 0)
    return weights


def _geometric(num_symbols: int, center: int, scale: int) -> np.ndarray:
    """Weights, 1 x symbols, that fall on either side of the center by one part in 2**(scale / 16), or so, a symbol."""
    return _fall(scale, num_symbols)[np.abs(np.arange(num_symbols) - center)][None]


@functools.lru_cache(maxsize=256)  # 8 MB at most
def _fall(scale: int, size: int) -> np.ndarray:
    octave, step = divmod(scale, 16)
    ratio = 2**32 - ((31 - step) << (27 - octave))
    fall, weight = [], _GEOMETRIC_START
    for _ in range(size):
        fall.append(weight)
        weight = weight * ratio >> 32
    return np.array(fall, np.int64)

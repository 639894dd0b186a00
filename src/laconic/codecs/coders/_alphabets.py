"""Alphabets: which integers the symbols of an entropy code stand for."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Self

import numpy as np

from laconic.codecs import _wire
from laconic.codecs.coders._bit_streams import BitReader, bits_to_bytes, pack, packed_size, unpack
from laconic.codecs.coders._histograms import BIT, MAX_MAGNITUDE, Histogram, information, log2
from laconic.codecs.coders._integer_coders import (
    from_naturals,
    from_zigzag,
    gamma_bits,
    gamma_sizes,
    read_gamma,
    to_naturals,
    zigzag,
)
from laconic.errors import ArgumentError, DecodeError

MAX_SYMBOLS = 2**16
FLAG_BITS = 2

_ENTRY_BITS = 2 * BIT  # what a symbol takes in a table, about
_ESCAPE_BITS = 32 * BIT  # what an escaped integer takes, about
_FEWEST = 4  # symbols, of which no fewer are tried
_START_BITS = 4  # of what is in common use, with which the search begins
_MOST_SYMBOLS = 2**15  # half of what a section may have, so that Huffman codes of 16 bits are enough
_TOLERANCE = 1024  # 1 / 1024 of the size is given for faster decoding
_LITTLE = 32  # 1 / 32 of the size is not searched for
_HALVINGS_OF_ESCAPE = 64
_MANY = 2**14  # integers, from which the time matters


@dataclasses.dataclass(frozen=True)
class Alphabet:
    """A window of integers, in steps of 2**shift.

    An integer v has the symbol (v >> shift) - base where that is one of 0 .. size - 1, and the symbol `size`, the
    escape, where it is not. Its `shift` low bits, and how far an escaped one is outside the window, travel beside the
    symbols: the low bits of spread-out integers hold nothing that a table could save.
    """

    shift: int
    base: int
    size: int
    has_escapes: bool

    @property
    def num_symbols(self) -> int:
        """How many symbols there are, the escape among them."""
        return self.size + self.has_escapes

    def split(self, values: np.ndarray, first: int = 0) -> tuple[np.ndarray, bytes]:
        """The symbols plus `first`, int32, and the bytes of all that they do not say."""
        low_bits, shifted = b"", values
        unsigned = np.dtype(f"u{values.itemsize}")
        if self.shift:
            low_bits = pack(values.view(unsigned) & unsigned.type(2**self.shift - 1), self.shift).tobytes()
            shifted = values >> values.dtype.type(self.shift)
        # Wraps around where an integer is outside, to no less than the size.
        offsets = (shifted - np.array(self.base).astype(values.dtype)).view(unsigned)
        symbols = offsets.astype(np.int32)
        symbols += np.int32(first)
        if not self.has_escapes:
            return symbols, low_bits
        outside = np.flatnonzero(offsets >= unsigned.type(self.size))
        symbols[outside] = first + self.size
        beyond = shifted[outside].astype(np.int64) - self.base
        beyond[beyond >= 0] -= self.size
        escapes = bits_to_bytes(*gamma_bits(to_naturals(beyond)))
        return symbols, _wire.varint(len(escapes)) + escapes + low_bits

    def join(self, symbols: np.ndarray, rest: "Rest", dtype: np.dtype) -> np.ndarray:
        """The integers of these symbols, int32 and below `num_symbols`.

        Raises:
          DecodeError: if one does not fit the dtype.
        """
        values = symbols.astype(dtype)
        if self.shift:
            values <<= dtype.type(self.shift)
            values |= rest.low_bits.astype(dtype, copy=False)
        values += np.array(self.base << self.shift).astype(dtype)  # wraps around, to the right number
        if self.has_escapes:
            outside = np.flatnonzero(symbols == self.size)
            values[outside] = self._escaped(outside, rest, dtype)
        return values

    def _escaped(self, outside: np.ndarray, rest: "Rest", dtype: np.dtype) -> np.ndarray:
        """The integers at these places, which have no symbol of their own."""
        reader = BitReader(rest.escapes, "escaped integers")
        naturals = read_gamma(reader, outside.size)
        if reader.finish() != len(rest.escapes):
            raise DecodeError("bytes follow the escaped integers of a section")
        if int(naturals.max(initial=0)) >= 4 * MAX_MAGNITUDE:
            raise DecodeError("an escaped integer is out of range")
        shifted = from_naturals(naturals, np.dtype(np.int64))
        shifted[shifted >= 0] += self.size
        shifted += self.base
        low, high = _limits(dtype, self.shift)
        if int(shifted.min(initial=high)) < low or int(shifted.max(initial=low)) > high:
            raise DecodeError(f"an escaped integer does not fit {dtype}")
        if self.shift:
            shifted = (shifted << self.shift) | rest.low_bits[outside].astype(np.int64)
        return shifted.astype(dtype)

    @property
    def flags(self) -> int:
        """`FLAG_BITS` bits that go before what `write` gives, where the coder wants."""
        return self.has_escapes | (2 if self.shift else 0)

    def write(self) -> bytes:
        """The alphabet, but for its flags."""
        shift = bytes([self.shift]) if self.shift else b""
        return shift + _wire.varint(zigzag(self.base)) + _wire.varint(self.size - 1)

    @classmethod
    def read(cls, reader: _wire.Reader, flags: int, dtype: np.dtype) -> Self:
        """The inverse of `write`.

        Raises:
          DecodeError: if the window is not within the dtype.
        """
        shift = reader.take(1, "an alphabet's shift")[0] if flags & 2 else 0
        if not shift < 8 * dtype.itemsize or (flags & 2 and not shift):
            raise DecodeError(f"an alphabet of {dtype} cannot have the shift {shift}")
        base = from_zigzag(reader.varint("an alphabet's base"))
        size = reader.varint("an alphabet's size") + 1
        low, high = _limits(dtype, shift)
        if size > MAX_SYMBOLS or base < low or base + size - 1 > high:
            raise DecodeError(f"an alphabet of {size} symbols from {base} on, times {2**shift}, is not within {dtype}")
        return cls(shift, base, size, bool(flags & 1))

    def read_rest(self, reader: _wire.Reader, count: int) -> "Rest":
        """What goes beside the symbols of `count` integers."""
        escapes = memoryview(b"")
        if self.has_escapes:
            escapes = reader.take(reader.varint("the escaped integers"), "the escaped integers")
        stream = reader.take(packed_size(count, self.shift), "the low bits of integers")
        return Rest(escapes, unpack(np.frombuffer(stream, np.uint8), self.shift, count if self.shift else 0))


@dataclasses.dataclass(frozen=True)
class Rest:
    """What goes beside the symbols: the bytes of escaped integers, and the low bits of all."""

    escapes: memoryview
    low_bits: np.ndarray


@dataclasses.dataclass(frozen=True)
class Fit:
    """An alphabet, how often its symbols occur, and what integers would take at least (in units of 1 / BIT)."""

    alphabet: Alphabet
    counts: np.ndarray
    cost: int

    @property
    def effort(self) -> int:
        """Of decoding: a symbol is found by halving the alphabet, and an escape takes as long as many halvings."""
        halvings = int(log2(np.array(len(self.counts))))
        return int(self.counts.sum()) * halvings + self.num_escaped * _HALVINGS_OF_ESCAPE * BIT

    @property
    def num_escaped(self) -> int:
        """How many integers have no symbol of their own."""
        return int(self.counts[-1]) if self.alphabet.has_escapes else 0

    @property
    def table_cost(self) -> int:
        """What of the cost is for a table, about."""
        return len(self.counts) * _ENTRY_BITS

    @property
    def least_if_folded(self) -> int:
        """What the integers would take with more bits of shift, at least: then fewer may be escaped."""
        return self.cost - self.table_cost - self.num_escaped * _ESCAPE_BITS


def fit_alphabet(histogram: Histogram) -> Fit:
    """The alphabet for integers of which there is a histogram, by what they and a table would take.

    Of those that take nearly least, the one that is fastest to decode.
    """
    # Leaving out low bits makes the table smaller, and the rest never: so at either side of the best shift there is an
    # end to what may be better. The search begins where tables have some 16 entries for each that is in common use.
    least = information(histogram.counts) + histogram.total * histogram.shift * BIT
    foldings = [histogram]
    for _ in range(max(0, (least // histogram.total // BIT) - histogram.shift - _START_BITS)):
        foldings.append(foldings[-1].folded())
    fits: list[Fit] = []
    first = window = _consider(foldings[-1], fits)
    for folding in reversed(foldings[:-1]):
        if fits and _is_no_better_finer(window, least, _accepted(fits)):
            break
        window = _consider(folding, fits)
    folding, window = foldings[-1], first
    while not fits or (folding.counts.size > _FEWEST and window.least_if_folded <= _accepted(fits)):
        folding = folding.folded()
        window = _consider(folding, fits)
    limit = _accepted(fits)
    return min((fit for fit in fits if fit.cost <= limit), key=lambda fit: fit.effort)


def _is_no_better_finer(window: Fit, least: int, accepted: int) -> bool:
    """Whether less shift cannot pay, or is worse already and could gain little."""
    hoped = least + 2 * window.table_cost  # for twice as many entries
    return hoped > accepted or (window.cost > accepted and hoped > accepted - accepted // _LITTLE)


def _consider(histogram: Histogram, fits: list[Fit]) -> Fit:
    """Adds the fits of this shift that may be accepted; gives the widest of them all."""
    window = _window(histogram)
    narrow = _narrow_windows(histogram, window.alphabet.size) if histogram.total >= _MANY else ()
    for fit in itertools.chain([window], narrow):
        fits += [fit] if fit.alphabet.size <= _MOST_SYMBOLS else []
        if fits and fit.cost > _accepted(fits):
            break
    return window


def _accepted(fits: list[Fit]) -> int:
    least = min(fit.cost for fit in fits)
    return least + least // _TOLERANCE


def check_magnitude(values: np.ndarray, coder: str) -> None:
    """Raises ArgumentError if there are integers too large for a coder with tables."""
    if not has_magnitude(values):
        raise ArgumentError(
            f"coder {coder!r} takes integers from -2**61 to 2**61 - 1, got values from {values.min()} to "
            f"{values.max()}; take another, such as EntropyCoder or Raw"
        )


def has_magnitude(values: np.ndarray) -> bool:
    """Whether integers are small enough for a coder with tables."""
    return values.itemsize < 8 or -MAX_MAGNITUDE <= int(values.min()) <= int(values.max()) < MAX_MAGNITUDE


def _window(histogram: Histogram) -> Fit:
    """The best window of this shift: entries at either end go where escaping what they count takes less."""
    counts = histogram.counts
    mode = int(counts.argmax())
    first = _trimmed(counts[:mode])
    last = counts.size - _trimmed(counts[:mode:-1])
    kept = counts[first:last]
    escaped = histogram.total - int(kept.sum())
    alphabet = Alphabet(histogram.shift, histogram.base + first, kept.size, escaped > 0)
    kept = np.append(kept, escaped) if escaped else kept
    beside = histogram.total * histogram.shift * BIT + kept.size * _ENTRY_BITS + escaped * _ESCAPE_BITS
    return Fit(alphabet, kept, information(kept) + beside)


def _narrow_windows(histogram: Histogram, size: int) -> Iterator[Fit]:
    """Ever narrower windows, all below `size`, where integers are most frequent."""
    counts, unseen = histogram.counts, histogram.total - int(histogram.counts.sum())
    below = np.concatenate([[0], np.cumsum(counts)])
    distances = np.arange(counts.size)
    sizes_above = gamma_sizes(to_naturals(distances))
    sizes_below = gamma_sizes(to_naturals(-1 - distances))
    size = min(size, _MOST_SYMBOLS + 1)
    while size > _FEWEST:
        size = (1 << ((size - 1).bit_length() - 1)) - 1  # with the escape, a power of two
        first = int(np.argmax(below[size:] - below[:-size]))
        kept = counts[first : first + size]
        kept = np.append(kept, histogram.total - kept.sum())
        before, after = counts[:first], counts[first + size :]
        escapes = int(before[::-1] @ sizes_below[:first] + after @ sizes_above[: after.size]) * BIT
        escapes += unseen * _ESCAPE_BITS
        beside = histogram.total * histogram.shift * BIT + kept.size * _ENTRY_BITS
        alphabet = Alphabet(histogram.shift, histogram.base + first, size, True)
        yield Fit(alphabet, kept, information(kept) + beside + escapes)


def _trimmed(counts: np.ndarray) -> int:
    """How many entries at the beginning to leave out."""
    (used,) = counts.nonzero()
    unused = int(used[0]) if used.size else counts.size
    # What is gained must also pay for there being escapes at all.
    least = 2 * _ESCAPE_BITS
    if counts.size * _ENTRY_BITS <= least:
        return unused
    gains = np.arange(counts.size + 1) * _ENTRY_BITS
    gains[1:] -= counts.cumsum() * _ESCAPE_BITS
    best = int(gains.argmax())
    return best if gains[best] > gains[unused] + least else unused


def _limits(dtype: np.dtype, shift: int) -> tuple[int, int]:
    """The smallest and largest v >> shift of the integers v of a dtype that a coder with tables takes."""
    info = np.iinfo(dtype)
    return max(int(info.min), -MAX_MAGNITUDE) >> shift, min(int(info.max), MAX_MAGNITUDE - 1) >> shift

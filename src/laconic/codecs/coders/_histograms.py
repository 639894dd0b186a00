"""Counts of integers, and how many bits they say that the integers need."""

import dataclasses
import math

import numpy as np

MAX_MAGNITUDE = 2**61
"""Coders with tables take integers of -MAX_MAGNITUDE .. MAX_MAGNITUDE - 1, so that no difference overflows."""

BIT = 2**16
"""Information is counted in whole numbers of this part of a bit: decisions must not hang on the last place of a float,
or two machines would write the same values in different bytes."""

_MANTISSAS = 2**12
_LOG2_OF_MANTISSA = np.rint(BIT * np.log2(1 + (np.arange(_MANTISSAS) + 0.5) / _MANTISSAS)).astype(np.int64)

_MANY = 2**14  # from here on a histogram of 2**16 entries is cheap beside the values
_SAMPLE = 1024


@dataclasses.dataclass(frozen=True)
class Histogram:
    """How often integers occur, those in a window one by one.

    Attributes:
      shift: integers are counted by their value v >> shift.
      base: what `counts[0]` counts.
      counts: int64, for base, base + 1, ...
      total: number of all integers, those outside the window too.
      low: the smallest integer.
      high: the largest.
    """

    shift: int
    base: int
    counts: np.ndarray
    total: int
    low: int
    high: int

    def folded(self) -> "Histogram":
        """The same, counted with one more bit of shift."""
        odd = self.base & 1
        counts = np.zeros(-(-(self.counts.size + odd) // 2) * 2, np.int64)
        counts[odd : odd + self.counts.size] = self.counts
        return Histogram(self.shift + 1, self.base >> 1, counts[0::2] + counts[1::2], self.total, self.low, self.high)


def histogram(values: np.ndarray) -> Histogram:
    """The histogram of one or more integers, none of larger magnitude than `MAX_MAGNITUDE`.

    Where they spread too widely for a window, it has most of them, by a sample: values far from the others are outside.
    """
    if values.itemsize == 1:
        counts = _counts_of_bytes(values.view(np.uint8))
        base = 0 if values.dtype.kind == "u" else -128
        if base:
            counts = np.roll(counts, 128)
        present = np.flatnonzero(counts)
        first, last = int(present[0]), int(present[-1])
        return Histogram(0, base + first, counts[first : last + 1], values.size, base + first, base + last)
    low, high = int(values.min()), int(values.max())
    window = 2**16 if values.size >= _MANY else 2**12
    if high - low < window:
        offsets = values - values.dtype.type(low)  # wraps around, to the right number
        counts = np.bincount(offsets.view(f"u{values.itemsize}") if values.itemsize < 8 else offsets)
        return Histogram(0, low, counts, values.size, low, high)
    sample = np.sort(values[:: -(-values.size // _SAMPLE)])
    inner_low, inner_high = int(sample[sample.size // 20]), int(sample[-1 - sample.size // 20])
    margin = 4 * (inner_high - inner_low) + window // 8
    first, last = max(low, inner_low - margin), min(high, inner_high + margin)
    shift = max(0, (last - first).bit_length() - window.bit_length() + 1)
    base, size = first >> shift, (last >> shift) - (first >> shift) + 1
    offsets = (values >> values.dtype.type(shift)).astype(np.int64) - (base - 1)
    counts = np.bincount(np.clip(offsets, 0, size + 1), minlength=size + 2)
    return Histogram(shift, base, counts[1:-1], values.size, low, high)


def _counts_of_bytes(values: np.ndarray) -> np.ndarray:
    """Of many, two at a time: bincount's time goes into making its input wide."""
    if values.size < _MANY:
        return np.bincount(values, minlength=256)
    even = values.size - values.size % 2
    pairs = np.bincount(values[:even].view(np.uint16), minlength=2**16).reshape(256, 256)
    return pairs.sum(axis=0) + pairs.sum(axis=1) + np.bincount(values[even:], minlength=256)


def log2(numbers: np.ndarray) -> np.ndarray:
    """Of whole numbers from 1 to 2**53, in units of 1 / BIT, within 2e-4: the same int64 on every machine.

    Of zero it is some number, so that zero times it is zero.
    """
    if numbers.max(initial=0) < len(_LOG2_OF_SMALL):
        return _LOG2_OF_SMALL[numbers]
    return _computed_log2(numbers)


def _computed_log2(numbers: np.ndarray) -> np.ndarray:
    mantissas, exponents = np.frexp(numbers.astype(np.float64))
    index = ((mantissas - 0.5) * (2 * _MANTISSAS)).astype(np.int64)
    return _LOG2_OF_MANTISSA[index] + (exponents.astype(np.int64) - 1) * BIT


def _log2_of_one(number: int) -> int:
    """The same of one number: a sixth of the time."""
    mantissa, exponent = math.frexp(number)
    return int(_LOG2_OF_MANTISSA[int((mantissa - 0.5) * (2 * _MANTISSAS))]) + (exponent - 1) * BIT


# Counts are small more often than not, and looking them up takes a quarter of the time.
_LOG2_OF_SMALL = _computed_log2(np.maximum(np.arange(2**12), 1))


def information(counts: np.ndarray) -> int:
    """What symbols that occur so often need at least, n H, in units of 1 / BIT."""
    total = int(counts.sum())
    return max(0, total * _log2_of_one(total) - int((counts * log2(counts)).sum())) if total else 0


def information_given_rows(counts: np.ndarray) -> int:
    """The same of symbols of which it is known in which row, a context, they are counted: a sum over the rows."""
    totals = counts.sum(axis=1)
    needed = totals * log2(totals) - (counts * log2(counts)).sum(axis=1)
    return int(np.maximum(needed, 0).sum())

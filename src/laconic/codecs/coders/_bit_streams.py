"""Bit streams, written and read without a loop over numbers. Bit j of a stream is bit j mod 8 of byte floor(j / 8)."""

import sys
from typing import Any

import numpy as np

from laconic.errors import DecodeError


def packed_size(count: int, bits: int) -> int:
    """Bytes of `count` numbers of `bits` bits each, as `pack` writes them."""
    whole, rest = divmod(bits, 16)
    return 2 * count * whole + -(-count * rest // 8)


def pack(numbers: np.ndarray, bits: int) -> np.ndarray:
    """The bytes of non-negative numbers below 2**bits, each in `bits` bits, 0 to 64.

    More than 16 bits are cut: the low 16 bits of every number come first, then all that is above them.
    """
    if bits == 0:
        return np.zeros(0, np.uint8)
    if bits in (8, 16):
        return little_endian(numbers.astype(f"u{bits // 8}", copy=False)).view(np.uint8)
    if bits > 16:
        low = (numbers & numbers.dtype.type(0xFFFF)).astype(np.uint16)
        return np.concatenate([pack(low, 16), pack(numbers >> numbers.dtype.type(16), bits - 16)])
    words: np.ndarray = np.zeros(-(-numbers.size // 8) * 8, np.uint8 if bits < 8 else np.uint16)
    words[: numbers.size] = numbers
    # Neighbours are joined in ever wider words: an eighth of the time of shifting each number to its place.
    joined = bits
    for width in _widths(bits):
        words = _viewed(words, width)
        mask, shift = _half(joined, width)
        words = (words & mask) | ((words >> shift) & (mask << words.dtype.type(joined)))
        joined *= 2
    if bits < 8:
        wide = _viewed(words, 64)[:, None]
    else:  # eight numbers do not fit one word
        wide = np.empty((words.size // 2, 2), "<u8")
        wide[:, 0] = words[0::2] | (words[1::2] << np.uint64(joined))
        wide[:, 1] = words[1::2] >> np.uint64(64 - joined)
    packed = np.empty((len(wide), bits), np.uint8)
    _copy_columns(packed, wide.view(np.uint8))
    return packed.reshape(-1)[: packed_size(numbers.size, bits)]


def unpack(stream: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The inverse of `pack`, for a stream of exactly the right length; in the narrowest unsigned dtype.

    Raises:
      DecodeError: if the bits after the last number are not zero.
    """
    if bits == 0:
        return np.zeros(count, np.uint8)
    if bits in (8, 16):
        return little_endian(stream.view(f"u{bits // 8}"))
    if bits > 16:
        dtype = np.dtype(np.uint32 if bits <= 32 else np.uint64)
        high = unpack(stream[2 * count :], bits - 16, count).astype(dtype)
        return (high << dtype.type(16)) | unpack(stream[: 2 * count], 16, count)
    padding = 8 * stream.size - count * bits
    if padding and stream[-1] >> (8 - padding):
        raise DecodeError("the unused bits at the end of a fixed-width section are not zero")
    groups = -(-count // 8)
    padded = np.zeros(groups * bits, np.uint8)
    padded[: stream.size] = stream
    wide = np.zeros((groups, 8 if bits < 8 else 16), np.uint8)
    _copy_columns(wide, padded.reshape(groups, bits))
    words: np.ndarray = wide.reshape(-1).view("<u8")
    joined = 8 * bits
    if bits > 8:
        joined //= 2
        both = np.empty(words.size, np.uint64)
        both[0::2] = words[0::2] & np.uint64(2**joined - 1)
        both[1::2] = (words[0::2] >> np.uint64(joined)) | (words[1::2] << np.uint64(64 - joined))
        words = both
    for width in reversed(_widths(bits)):
        joined //= 2
        mask, shift = _half(joined, width)
        words = _viewed((words & mask) | ((words << shift) & (mask << words.dtype.type(width // 2))), width // 2)
    return words[:count].astype(words.dtype.newbyteorder("="), copy=False)


def _copy_columns(target: np.ndarray, source: np.ndarray) -> None:
    """Copies what columns both have: one by one takes a third of the time of many short rows."""
    for column in range(min(target.shape[1], source.shape[1])):
        target[:, column] = source[:, column]


def little_endian(array: np.ndarray) -> np.ndarray:
    """The array, with its bytes swapped on a big-endian machine."""
    return array if sys.byteorder == "little" else array.byteswap()


def _widths(bits: int) -> tuple[int, ...]:
    return (16, 32, 64) if bits < 8 else (32, 64)


def _half(joined: int, width: int) -> tuple[Any, Any]:
    """A mask of `joined` bits for a word of this width, and how far those of its upper half are from the lower's."""
    dtype = np.dtype(f"u{width // 8}").type
    return dtype(2**joined - 1), dtype(width // 2 - joined)


def _viewed(words: np.ndarray, width: int) -> np.ndarray:
    """The words' bytes, in little-endian order, as words of another width in bits."""
    return words.astype(words.dtype.newbyteorder("<"), copy=False).view(f"<u{width // 8}")


def unary(numbers: np.ndarray) -> np.ndarray:
    """The bits, one a byte, of non-negative numbers: as many zeros, then a one."""
    ends = np.cumsum(numbers.astype(np.int64) + 1)
    bits = np.zeros(ends[-1] if ends.size else 0, np.uint8)
    bits[ends - 1] = 1
    return bits


def planes(numbers: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """The bits, one a byte, of each number's lowest `width`: bit 0 of all that have it, then bit 1, and so on."""
    parts = [np.zeros(0, np.uint8)]
    for bit in range(int(widths.max(initial=0))):
        kept = widths > bit
        numbers, widths = numbers[kept], widths[kept]
        parts.append(((numbers >> numbers.dtype.type(bit)) & numbers.dtype.type(1)).astype(np.uint8))
    return np.concatenate(parts)


def bits_to_bytes(*parts: np.ndarray) -> bytes:
    """The bytes of a stream of bits that are given one a byte."""
    return np.packbits(np.concatenate(parts), bitorder="little").tobytes()


class BitReader:
    """Reads what `unary` and `planes` wrote, from untrusted bytes that may go on after the stream."""

    def __init__(self, data: memoryview, what: str):
        self._bytes = np.frombuffer(data, np.uint8)
        self._position = 0
        self._what = what

    def unary(self, count: int, limit: int) -> np.ndarray:
        """The next `count` numbers (int64), none above `limit`."""
        available = self._available
        if count > available:
            raise self._error()
        bits = self._bits(min(available, count * (limit + 1)))
        ends = np.flatnonzero(bits)[:count]
        if ends.size < count:
            raise self._error()
        numbers = np.diff(ends, prepend=-1) - 1
        if numbers.max(initial=0) > limit:
            raise DecodeError(f"{self._what} hold a number above {limit} in unary")
        self._position += int(ends[-1]) + 1 if count else 0
        return numbers

    def planes(self, widths: np.ndarray) -> np.ndarray:
        """The next numbers (uint64), of these widths, at most 64, in bits."""
        total = int(widths.sum())
        if total > self._available:
            raise self._error()
        bits = self._bits(total)
        self._position += total
        numbers = np.zeros(widths.size, np.uint64)
        indices = np.arange(widths.size)
        start = 0
        for bit in range(int(widths.max(initial=0))):
            indices = indices[widths[indices] > bit]
            plane = bits[start : start + indices.size].astype(np.uint64)
            numbers[indices] |= plane << np.uint64(bit)
            start += indices.size
        return numbers

    def finish(self) -> int:
        """The bytes that the stream took, whose last bits must be zero where it does not fill them."""
        if self._position % 8 and self._bytes[self._position // 8] >> (self._position % 8):
            raise DecodeError(f"the unused bits after {self._what} are not zero")
        return -(-self._position // 8)

    @property
    def _available(self) -> int:
        return 8 * self._bytes.size - self._position

    def _bits(self, count: int) -> np.ndarray:
        """The next bits, one a byte; the position stays."""
        start, offset = divmod(self._position, 8)
        stop = -(-(self._position + count) // 8)
        return np.unpackbits(self._bytes[start:stop], bitorder="little")[offset : offset + count]

    def _error(self) -> DecodeError:
        return DecodeError(f"a section is truncated: it ends within {self._what}")

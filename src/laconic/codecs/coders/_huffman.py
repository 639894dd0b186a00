"""Huffman codes."""

import dataclasses
from typing import ClassVar

import numpy as np

from laconic.codecs import _wire
from laconic.codecs._registry import register
from laconic.codecs.coders._alphabets import FLAG_BITS, Alphabet, check_magnitude, fit_alphabet
from laconic.codecs.coders._bit_streams import pack, packed_size, unpack
from laconic.codecs.coders._histograms import histogram
from laconic.codecs.coders._integer_coders import (
    IntegerCoder,
    SectionReader,
    best_rice_parameter,
    from_naturals,
    to_naturals,
    write_rice,
)
from laconic.errors import DecodeError

MAX_LENGTH = 16
"""Of a code, in bits."""

_SMALLEST_BLOCK = 2**6
_SYMBOL_BITS = 17


@register
@dataclasses.dataclass(frozen=True)
class Huffman(IntegerCoder):
    """Canonical Huffman codes (1952, "A method for the construction of minimum-redundancy codes") of at most 16 bits.

    Takes at least one bit for each integer, so for less than 1.2 bits or so of entropy choose `RANS` or `RunLength`.
    The code lengths travel. Codes of more than 16 bits are avoided at least cost by package-merge (Larmore and
    Hirschberg 1990, "A fast algorithm for optimal length-limited Huffman codes"); integers far from all others, and
    low bits in which there is nothing to gain, travel by themselves, as in `RANS`.

    Takes integers from -2**61 to 2**61 - 1.
    """

    name: ClassVar[str] = "huffman"

    def _encode(self, values: np.ndarray, contexts: np.ndarray | None) -> bytes:
        del contexts
        check_magnitude(values, self.name)
        fit = fit_alphabet(histogram(values))
        symbols, rest = fit.alphabet.split(values)
        head = bytes([fit.alphabet.flags]) + fit.alphabet.write()
        if fit.alphabet.num_symbols == 1:
            return head + rest
        lengths = code_lengths(fit.counts)
        differences = to_naturals(np.diff(lengths, prepend=0).astype(np.int8))
        parameter, _ = best_rice_parameter(differences)
        table = bytes([parameter]) + write_rice(differences, parameter)
        stream, sizes = _encode_symbols(symbols, lengths)
        low = int(sizes.min(initial=2**63 - 1)) if sizes.size else 0
        width = int(sizes.max(initial=0) - low).bit_length() if sizes.size else 0
        index = _wire.varint(low) + bytes([width]) + pack(sizes - low, width).tobytes()
        return b"".join((head, table, rest, index, stream))

    def _decode(self, data: memoryview, count: int, dtype: np.dtype, contexts: np.ndarray | None) -> np.ndarray:
        del contexts
        reader = SectionReader(data)
        flags = reader.take(1, "a huffman section")[0]
        if flags >> FLAG_BITS:
            raise DecodeError(f"a huffman section cannot begin with {flags}")
        alphabet = Alphabet.read(reader, flags, dtype)
        if alphabet.num_symbols == 1:
            rest = alphabet.read_rest(reader, count)
            reader.finish()
            return alphabet.join(np.zeros(count, np.int32), rest, dtype)
        if count > 8 * len(data):
            raise DecodeError(f"a huffman section of {len(data)} bytes cannot hold {count} integers")
        lengths = _read_lengths(reader, alphabet.num_symbols)
        rest = alphabet.read_rest(reader, count)
        blocks = -(-count // _block(count))
        low = reader.varint("the size of a block")
        width = reader.take(1, "the width of sizes")[0]
        if low >= 2**32 or width > 32:
            raise DecodeError("a block of a huffman section is too large")
        stream = np.frombuffer(reader.take(packed_size(blocks - 1, width), "the sizes of blocks"), np.uint8)
        sizes = unpack(stream, width, blocks - 1).astype(np.int64) + low
        stream = np.frombuffer(reader.take(reader.remaining, "Huffman codes"), np.uint8)
        return alphabet.join(_decode_symbols(stream, count, lengths, sizes), rest, dtype)


def code_lengths(counts: np.ndarray) -> np.ndarray:
    """Of the code of at most MAX_LENGTH bits in which symbols that occur so often take least; 0 if a symbol does not.

    Package-merge: of every length's items, the symbols and the pairs of the next length's items, the lightest are kept.
    """
    present = np.flatnonzero(counts)
    present = present[np.argsort(counts[present], kind="stable")]
    weights = counts[present]
    items, levels = weights, [np.ones(weights.size, bool)]
    for _ in range(MAX_LENGTH - 1):
        pairs = items[: items.size // 2 * 2].reshape(-1, 2).sum(axis=1)
        merged = np.concatenate([weights, pairs])
        order = np.argsort(merged, kind="stable")
        items = merged[order]
        levels.append(order < weights.size)
    lengths = np.zeros(counts.size, np.int64)
    kept = 2 * weights.size - 2
    for is_symbol in reversed(levels):
        symbols = int(np.count_nonzero(is_symbol[:kept]))
        lengths[present[:symbols]] += 1
        kept = 2 * (kept - symbols)
    return lengths


def _read_lengths(reader: SectionReader, num_symbols: int) -> np.ndarray:
    parameter = reader.take(1, "a table's Rice parameter")[0]
    differences = from_naturals(reader.rice(num_symbols, parameter), np.dtype(np.int64))
    if int(np.abs(differences).max()) > MAX_LENGTH:
        raise DecodeError(f"a code of a huffman section is longer than {MAX_LENGTH} bits")
    lengths = np.cumsum(differences)
    if not 0 <= int(lengths.min()) <= int(lengths.max()) <= MAX_LENGTH:
        raise DecodeError(f"a code of a huffman section is not of 0 to {MAX_LENGTH} bits")
    if int((1 << (MAX_LENGTH - lengths[lengths > 0])).sum()) != 1 << MAX_LENGTH:
        raise DecodeError("the code lengths of a huffman section are not those of a complete code")
    return lengths


def _block(count: int) -> int:
    """Symbols that are decoded one after the other; all blocks are decoded side by side."""
    return max(_SMALLEST_BLOCK, 1 << (count.bit_length() // 2 + 1))


def _reversed_bits(numbers: np.ndarray) -> np.ndarray:
    """Of 16 bits, the first becomes the last."""
    for mask, shift in ((0x5555, 1), (0x3333, 2), (0x0F0F, 4), (0x00FF, 8)):
        numbers = ((numbers >> shift) & mask) | ((numbers & mask) << shift)
    return numbers


def _canonical(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The symbols that have a code in the order of their codes, and how many of 2**16 windows each code begins."""
    order = np.argsort(lengths, kind="stable")
    order = order[np.count_nonzero(lengths == 0) :]
    return order, 1 << (MAX_LENGTH - lengths[order])


def _encode_symbols(symbols: np.ndarray, lengths: np.ndarray) -> tuple[bytes, np.ndarray]:
    """The stream of codes, and how many bits each block but the last takes."""
    order, spans = _canonical(lengths)
    codes = np.zeros(lengths.size, np.uint16)
    codes[order] = _reversed_bits(np.cumsum(spans) - spans)
    padded = np.zeros(-(-symbols.size // 4) * 4, np.uint16)
    padded[: symbols.size] = codes[symbols]
    widths = np.zeros(padded.size, np.uint8)
    widths[: symbols.size] = lengths.astype(np.uint8)[symbols]
    # Four codes are joined to one of at most 64 bits, before any is put where it belongs.
    words = padded
    for dtype in (np.uint32, np.uint64):
        pairs = words.astype(dtype).reshape(-1, 2)
        words = pairs[:, 0] | (pairs[:, 1] << widths[0::2].astype(dtype))
        widths = widths[0::2] + widths[1::2]
    starts = np.cumsum(widths, dtype=np.int64)
    total = int(starts[-1])
    starts -= widths
    places, shifts = starts >> 6, (starts & 63).astype(np.uint64)
    first = np.flatnonzero(np.diff(places, prepend=-1))
    stream = np.zeros(total // 64 + 2, np.uint64)
    stream[places[first]] = np.bitwise_or.reduceat(words << shifts, first)
    # At most one code reaches from a word into the next.
    across = np.flatnonzero(shifts + widths > 64)
    stream[places[across] + 1] |= words[across] >> (np.uint64(64) - shifts[across])
    sizes = np.diff(starts[:: _block(symbols.size) // 4])
    return stream.astype("<u8", copy=False).tobytes()[: -(-total // 8)], sizes


def _decode_symbols(stream: np.ndarray, count: int, lengths: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The symbols, int32, of blocks of these sizes in bits and a last one."""
    total = 8 * stream.size
    starts = np.concatenate([[0], np.cumsum(sizes)])
    if int(starts[-1]) > total:
        raise DecodeError("the blocks of a huffman section are longer than its codes")
    longest = int(lengths.max())
    order, spans = _canonical(lengths)
    by_code = np.repeat(order | (lengths[order] << _SYMBOL_BITS), spans >> (MAX_LENGTH - longest)).astype(np.int32)
    windows = _reversed_bits(np.arange(1 << longest)) >> (MAX_LENGTH - longest)
    entries = by_code[windows]
    block = _block(count)
    # Where damaged blocks run on, they find zeros.
    padded = np.zeros(stream.size + 2 * block + 3, np.int32)
    padded[: stream.size] = stream
    following = padded[:-2] | (padded[1:-1] << 8) | (padded[2:] << 16)
    in_last = count - block * sizes.size
    found = np.zeros((block, starts.size), np.int32)
    ends = starts.copy()
    mask = np.int32(2**longest - 1)
    for i in range(block):
        running = ends if i < in_last else ends[:-1]  # a view
        if not running.size:
            break
        window = (following[running >> 3] >> (running & 7).astype(np.int32)) & mask
        entry = entries[window]
        found[i, : running.size] = entry
        running += entry >> _SYMBOL_BITS
    if np.any(ends[:-1] != starts[1:]) or not total - 8 < int(ends[-1]) <= total:
        raise DecodeError("the codes of a huffman section do not end where they should")
    if int(ends[-1]) % 8 and stream[-1] >> (int(ends[-1]) % 8):
        raise DecodeError("the unused bits after Huffman codes are not zero")
    return np.ascontiguousarray((found & np.int32(2**_SYMBOL_BITS - 1)).T).reshape(-1)[:count]

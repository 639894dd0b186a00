"""Huffman codes are optimal, canonical, and read back side by side."""

import hashlib
import heapq

import hypothesis
import numpy as np
import pytest
from codec_support import few_examples
from coder_support import (
    assert_round_trip,
    assert_total_when_damaged,
    entropy_bytes,
    integer_arrays,
    many_examples,
    pattern,
    quantized,
    spec_like,
)
from hypothesis import strategies as st

from laconic.codecs import TensorSpec
from laconic.codecs.coders._huffman import MAX_LENGTH, Huffman, code_lengths
from laconic.errors import ArgumentError, DecodeError


def least_bits(counts):
    """What Huffman's own algorithm takes, the sum of all merged weights."""
    heap = [int(count) for count in counts if count]
    heapq.heapify(heap)
    total = 0
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        total += merged
        heapq.heappush(heap, merged)
    return total


@many_examples
@hypothesis.given(array=integer_arrays())
def test_round_trips(array):
    """Any integers come back, in their dtype and shape."""
    assert_round_trip(Huffman(), array)
    assert_round_trip(Huffman(), array[: array.size // 2 * 2].reshape(2, -1)[:, ::-1])


@pytest.mark.parametrize("size", [1, 63, 64, 65, 127, 128, 4096, 100_003])
def test_blocks(size):
    """Sizes at the edges of blocks come back."""
    assert_round_trip(Huffman(), quantized(size, 0.2))


@hypothesis.settings(few_examples, max_examples=100)
@hypothesis.given(
    counts=st.lists(st.integers(0, 2**20), min_size=2, max_size=60).filter(lambda c: sum(map(bool, c)) > 1)
)
def test_lengths_are_optimal(counts):
    """The lengths are those of a complete code that takes as little as Huffman's, where that is short enough."""
    counts = np.array(counts)
    lengths = code_lengths(counts)
    assert ((lengths == 0) == (counts == 0)).all()
    assert sum(2.0 ** -lengths[lengths > 0]) == 1
    assert (lengths * counts).sum() == least_bits(counts) or lengths.max() == MAX_LENGTH


def test_lengths_are_limited():
    """Counts like Fibonacci's, whose code would have 39 bits, get 16, and pay little for it."""
    counts = np.array([1, 1])
    while counts.size < 40:
        counts = np.append(counts, counts[-2:].sum())
    lengths = code_lengths(counts)
    assert lengths.max() == MAX_LENGTH
    assert sum(2.0**-lengths) == 1
    assert least_bits(counts) < (lengths * counts).sum() < 1.001 * least_bits(counts)


@pytest.mark.parametrize("step", [1.5, 0.3, 0.03])
def test_size(step):
    """The section takes the code's bits and a few bytes; never less than a bit for each."""
    codes = quantized(100_000, step)
    coded = len(assert_round_trip(Huffman(), codes))
    _, counts = np.unique(codes, return_counts=True)
    assert entropy_bytes(codes) < coded
    assert 100_000 / 8 < coded < 1.01 * least_bits(counts) / 8 + 60


def test_bits():
    """A section bit by bit, as the wire format says."""
    # 0, 1 and 2 occur 4, 2 and 1 times, so that their codes are 0, 10 and 11.
    values = np.array([0, 0, 1, 0, 2, 1, 0], np.uint8)
    no_flags, base, size_less_one = 0, 0, 2
    parameter, differences = 0, "001" + "001" + "1"  # lengths 1, 2, 2 grow by 1, 1, 0, the zig-zag numbers 2, 2, 0
    smallest_block, width = 0, 0
    stream = "0" + "0" + "10" + "0" + "11" + "10" + "0"
    expected = [no_flags, base, size_less_one, parameter, int(differences[::-1], 2), smallest_block, width]
    assert list(Huffman().encode(values)) == [*expected, *int(stream[::-1], 2).to_bytes(2, "little")]


def test_golden():
    """The bytes do not change."""
    values = pattern(40, 6).astype(np.int8)
    many = pattern(3000, 300)
    many[77] = 10**9
    assert bytes(Huffman().encode(values)).hex() == "020205040106b0125fffa982f6dd2788507d000027962cf18c92a8cf4a"
    assert hashlib.sha256(bytes(Huffman().encode(many))).hexdigest()[:16] == "98aa8186f2bc8f73"


def test_what_it_does_not_take():
    """Integers out of range are named."""
    with pytest.raises(ArgumentError, match=r"coder 'huffman' takes integers from -2\*\*61 to 2\*\*61 - 1, got"):
        Huffman().encode(np.array([0, 2**61]))


@many_examples
@hypothesis.given(array=integer_arrays(max_size=100), data=st.data())
def test_damage(array, data):
    """Damaged bytes, and bytes for another size, give an array or a DecodeError."""
    assert_total_when_damaged(Huffman(), array, data)


def test_rejects():
    """What cannot be is named; an announced size makes nothing large."""
    codes = quantized(200, 0.5)
    coded = bytes(Huffman().encode(codes))
    with pytest.raises(DecodeError, match="cannot hold 281474976710656 integers"):
        Huffman().decode(memoryview(coded), TensorSpec("", (2**48,), codes.dtype))
    with pytest.raises(DecodeError, match="a huffman section cannot begin with 4"):
        Huffman().decode(memoryview(b"\x04" + coded[1:]), spec_like(codes))
    with pytest.raises(DecodeError, match="do not end where they should"):
        Huffman().decode(memoryview(coded + b"\0"), spec_like(codes))
    with pytest.raises(DecodeError, match="not those of a complete code"):
        Huffman().decode(memoryview(bytes([0, 0, 1, 0, 0b1001])), spec_like(np.zeros(9, np.int8)))

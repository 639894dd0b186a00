"""Numbers in bit streams: every width, every length, against slow and plain references."""

import hypothesis
import numpy as np
import pytest
from codec_support import few_examples
from hypothesis import strategies as st

from laconic.codecs.coders._bit_streams import BitReader, bits_to_bytes, pack, packed_size, planes, unary, unpack
from laconic.errors import DecodeError

widths_and_numbers = st.integers(0, 64).flatmap(
    lambda bits: st.tuples(st.just(bits), st.lists(st.integers(0, 2**bits - 1), max_size=40))
)


def packed_reference(numbers, bits):
    """Up to 16 bits as one long number; above, the low 16 bits of all numbers, then the rest."""
    if bits > 16:
        rest = packed_reference([number >> 16 for number in numbers], bits - 16)
        return packed_reference([number & 0xFFFF for number in numbers], 16) + rest
    stream = sum(number << (i * bits) for i, number in enumerate(numbers))
    return stream.to_bytes(-(-len(numbers) * bits // 8), "little")


@hypothesis.settings(few_examples, max_examples=300)
@hypothesis.given(drawn=widths_and_numbers)
def test_packing_any_width(drawn):
    """Numbers of 0 to 64 bits are packed as the reference does, from wide dtypes and narrow, and come back."""
    bits, numbers = drawn
    narrow = next(dtype for dtype in (np.uint8, np.uint16, np.uint32, np.uint64) if np.iinfo(dtype).bits >= bits)
    for dtype in (narrow, np.uint64):
        array = np.array(numbers, dtype)
        stream = pack(array, bits)
        assert stream.tobytes() == packed_reference(numbers, bits)
        assert stream.size == packed_size(array.size, bits)
        np.testing.assert_array_equal(unpack(stream, bits, array.size), array)


@pytest.mark.parametrize("bits", [3, 13, 21])
def test_padding_must_be_zero(bits):
    """Bits after the last number are rejected unless zero."""
    stream = pack(np.array([1], np.uint32), bits).copy()
    stream[-1] |= 0x80
    with pytest.raises(DecodeError, match="unused bits at the end of a fixed-width section are not zero"):
        unpack(stream, bits, 1)


@hypothesis.settings(few_examples, max_examples=100)
@hypothesis.given(numbers=st.lists(st.integers(0, 24), max_size=60), more=st.binary(max_size=3))
def test_unary_and_planes(numbers, more):
    """What is written bit by bit is what a loop would write, and is read back though other bytes follow."""
    widths = np.array(numbers, np.int64)
    values = np.array([(0xABCDEF * (i + 1)) & (2**n - 1) for i, n in enumerate(numbers)], np.uint64)
    expected = "".join("0" * n + "1" for n in numbers)
    expected += "".join(
        str(int(value) >> bit & 1) for bit in range(24) for value, n in zip(values, numbers, strict=True) if n > bit
    )
    coded = bits_to_bytes(unary(widths), planes(values, widths))
    assert int.from_bytes(coded, "little") == int("0" + expected[::-1], 2)
    assert len(coded) == -(-len(expected) // 8)
    reader = BitReader(memoryview(coded + more), "numbers")
    np.testing.assert_array_equal(reader.unary(widths.size, 24), widths)
    np.testing.assert_array_equal(reader.planes(widths), values)
    assert reader.finish() == len(coded)


def test_reader_rejects():
    """A stream that ends early, a number above its limit, bits after the end."""
    with pytest.raises(DecodeError, match="it ends within codes"):
        BitReader(memoryview(b"\x00"), "codes").unary(9, 10)
    with pytest.raises(DecodeError, match="it ends within codes"):
        BitReader(memoryview(b"\x01"), "codes").unary(2, 10)
    with pytest.raises(DecodeError, match="codes hold a number above 2 in unary"):
        BitReader(memoryview(b"\x18"), "codes").unary(2, 2)
    with pytest.raises(DecodeError, match="it ends within codes"):
        BitReader(memoryview(b"\x00"), "codes").planes(np.array([4, 5]))
    reader = BitReader(memoryview(b"\x03"), "codes")
    reader.unary(1, 0)
    with pytest.raises(DecodeError, match="unused bits after codes are not zero"):
        reader.finish()

"""Mostly zero arrays take few bytes and come back bit for bit; no bytes do harm."""

import contextlib

import hypothesis
import ml_dtypes
import numpy as np
import pytest
from codec_support import few_examples, same_bits
from hypothesis import strategies as st

from laconic.codecs import TensorSpec, _wire
from laconic.codecs._specs import DTYPES
from laconic.codecs.coders._entropy_coder import EntropyCoder
from laconic.codecs.coders._sparse_values import SparseValues
from laconic.errors import DecodeError

CODER = SparseValues()


def spec_of(array):
    """The spec of a NumPy array."""
    return TensorSpec("x", array.shape, array.dtype)


def round_trip(array):
    """Through bytes and back."""
    return CODER.decode(memoryview(bytes(CODER.encode(array))), spec_of(array))


@few_examples
@hypothesis.given(
    dtype=st.sampled_from(DTYPES),
    shape=st.sampled_from([(), (0,), (1,), (7,), (3, 5), (40,)]),
    share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    seed=st.integers(0, 99),
)
def test_arrays_come_back(dtype, shape, share, seed):
    """Every bit of every dtype and shape, however many zeros there are."""
    generator = np.random.default_rng(seed)
    is_kept = generator.random(shape) < share
    array = np.asarray(np.where(is_kept, generator.integers(1, 100, shape), 0)).astype(dtype)
    assert same_bits(round_trip(array), array)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_negative_zeros_and_subnormals_are_kept(dtype):
    """Only what has no bit set is left out."""
    array = np.zeros(50, dtype)
    array[[3, 30, 49]] = np.array([-0.0, np.nextafter(dtype(0), dtype(1)), -2.5]).astype(dtype)
    assert same_bits(round_trip(array), array)


def test_size_is_that_of_gaps_and_values():
    """A head of a few bytes, the gaps as EntropyCoder has them, and the values."""
    array = np.zeros(10_000, np.float32)
    positions = np.sort(np.random.default_rng(0).choice(array.size, 100, replace=False))
    array[positions] = 1.5
    gaps = (np.diff(positions, prepend=-1) - 1).astype(np.uint32)
    coded = bytes(EntropyCoder().encode(gaps))
    expected = _wire.varint(101) + _wire.varint(len(coded)) + coded + array[positions].tobytes()
    assert bytes(CODER.encode(array)) == expected


def test_dense_arrays_cost_a_byte_more_than_raw():
    """Where leaving out zeros would not help, all entries follow a zero byte."""
    for array in (np.arange(1, 9, dtype=np.float32), np.arange(9, dtype=np.float16), np.zeros(0, np.float32)):
        assert bytes(CODER.encode(array)) == b"\0" + array.tobytes()


def test_zeros_take_almost_nothing():
    """All zero: no values, and a few bytes."""
    assert len(CODER.encode(np.zeros(10**6, np.float32))) <= 8


def test_arrays_that_are_not_contiguous():
    """Strided and transposed views are coded in C order."""
    array = np.zeros((6, 8), np.float32)
    array[2, 3], array[5, 7] = 1, 2
    for view in (array.T, array[::2, 1::2], array[::-1]):
        assert same_bits(round_trip(view), np.ascontiguousarray(view))


def section(count, gaps, values):
    """A section made by hand."""
    coded = bytes(EntropyCoder().encode(np.asarray(gaps, np.uint32)))
    return _wire.varint(count + 1) + _wire.varint(len(coded)) + coded + np.asarray(values, np.float32).tobytes()


SPEC = TensorSpec("w", (9,), np.dtype(np.float32))

HOSTILE = {
    "empty": b"",
    "raw, too short": b"\0" + bytes(35),
    "raw, too long": b"\0" + bytes(37),
    "more values than entries": section(10, range(10), range(10)),
    "a huge count": b"\xff\xff\xff\xff\xff\xff\xff\x7f" + bytes(20),
    "an unending varint": b"\xff" * 12,
    "values missing": section(3, [0, 0, 0], [1, 2]),
    "values left over": section(3, [0, 0, 0], [1, 2, 3, 4]),
    "a gap beyond the end": section(2, [1, 9], [1, 2]),
    "gaps that add up to beyond the end": section(2, [4, 4], [1, 2]),
    "gaps that would wrap around": section(2, [2**32 - 1, 2**32 - 1], [1, 2]),
    "gaps longer than the section": b"\x03\xff\x01" + bytes(10),
    "gaps that are none": _wire.varint(3) + b"\x01\xee" + bytes(8),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_sections_are_refused(name):
    """Each is a DecodeError, before room is made for what it says it holds."""
    with pytest.raises(DecodeError):
        CODER.decode(memoryview(HOSTILE[name]), SPEC)


@few_examples
@hypothesis.given(data=st.binary(max_size=60))
def test_any_bytes_give_an_array_or_an_error(data):
    """Decoding is total."""
    try:
        array = CODER.decode(memoryview(data), SPEC)
    except DecodeError:
        return
    assert (array.shape, array.dtype) == (SPEC.shape, SPEC.dtype)


@few_examples
@hypothesis.given(position=st.integers(0, 500), bit=st.integers(0, 7))
def test_any_flipped_bit_gives_an_array_or_an_error(position, bit):
    """A damaged section does no harm."""
    array = np.zeros(300, np.float32)
    array[::17] = np.arange(1, 19)
    data = bytearray(CODER.encode(array))
    data[position % len(data)] ^= 1 << bit
    with contextlib.suppress(DecodeError):
        assert CODER.decode(memoryview(bytes(data)), spec_of(array)).shape == (300,)


def test_no_room_is_a_decode_error():
    """A tensor that no machine holds is an error of the bytes that claim it, not a crash."""
    spec = TensorSpec("w", (2**48,), np.dtype(np.float64))
    with pytest.raises(DecodeError, match="there is no room for"):
        CODER.decode(memoryview(_wire.varint(1) + _wire.varint(0)), spec)

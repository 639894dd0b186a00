"""Elias gamma and Rice codes have the lengths of the textbook, and come back."""

import hypothesis
import numpy as np
import pytest
from codec_support import INTEGERS, few_examples
from coder_support import (
    assert_round_trip,
    assert_total_when_damaged,
    integer_arrays,
    many_examples,
    pattern,
    spec_like,
)
from hypothesis import strategies as st

from laconic import codecs
from laconic.codecs import TensorSpec
from laconic.codecs.coders._integer_coders import (
    EliasGamma,
    Rice,
    best_rice_parameter,
    from_naturals,
    from_zigzag,
    to_naturals,
    zigzag,
)
from laconic.errors import ArgumentError, ArgumentTypeError, DecodeError

CODERS = [EliasGamma(), Rice(), Rice(0), Rice(5), Rice(63)]


def naturals_of(array):
    """Zig-zag by the definition."""
    return [int(v) if array.dtype.kind == "u" else 2 * int(v) if v >= 0 else -1 - 2 * int(v) for v in array]


def rice_length(m, k):
    """Bits of one number: quotient in unary, and on in a gamma code from 24 on; remainder."""
    q = m >> k
    beyond = 2 * ((q - 23).bit_length() - 1) + 1 if q >= 24 else 0
    return min(q, 24) + 1 + beyond + k


@pytest.mark.parametrize("coder", CODERS, ids=str)
@many_examples
@hypothesis.given(array=integer_arrays(max_magnitude=2**63 - 1))
def test_round_trips(coder, array):
    """Any integers come back, in their dtype and shape."""
    assert_round_trip(coder, array)
    assert_round_trip(coder, array[: array.size // 2 * 2].reshape(2, -1)[:, ::-1])


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_extremes(dtype):
    """The smallest and largest integers of each dtype are zig-zag coded and back; only gamma lacks the very last."""
    info = np.iinfo(dtype)
    ends = np.array([info.min, info.max, 0, 1], dtype)
    assert to_naturals(ends).tolist() == naturals_of(ends)
    np.testing.assert_array_equal(from_naturals(to_naturals(ends), np.dtype(dtype)), ends)
    for coder in CODERS[1:]:
        assert_round_trip(coder, ends)
    if info.bits < 64:
        assert_round_trip(EliasGamma(), ends)
    else:
        with pytest.raises(ArgumentError, match=r"Elias gamma codes numbers up to 2\*\*64 - 2; take another coder"):
            EliasGamma().encode(ends)


@hypothesis.given(value=st.integers(-(2**61), 2**61))
@hypothesis.settings(few_examples)
def test_zigzag(value):
    """The zig-zag of one number is that of arrays, and has an inverse."""
    assert zigzag(value) == int(to_naturals(np.array([value]))[0])
    assert from_zigzag(zigzag(value)) == value


@many_examples
@hypothesis.given(array=integer_arrays(), parameter=st.integers(0, 63))
def test_lengths(array, parameter):
    """The bytes are as many as the code lengths of the definitions say."""
    numbers = naturals_of(array)
    gamma = sum(2 * ((m + 1).bit_length() - 1) + 1 for m in numbers)
    assert len(EliasGamma().encode(array)) == -(-gamma // 8)
    unary = sum(rice_length(m, parameter) - parameter for m in numbers)
    whole, rest = divmod(parameter, 16)
    packed = 2 * whole * array.size + -(-rest * array.size // 8)
    assert len(Rice(parameter).encode(array)) == packed + -(-unary // 8)
    if array.size:
        best = min(-(-sum(rice_length(m, k) for m in numbers) // 8) for k in range(64))
        assert len(Rice().encode(array)) <= best + 2  # the byte of the parameter, and what fills a byte


@few_examples
@hypothesis.given(scale=st.floats(0, 40), tail=st.integers(0, 2**40), seed=st.integers(0, 2**32 - 1))
def test_the_best_parameter_of_many_numbers(scale, tail, seed):
    """Not all parameters are tried with many numbers, but none would take fewer bits."""
    numbers = np.exp(np.random.default_rng(seed).uniform(0, scale / 2, 300)).astype(np.uint64)
    numbers[::50] += np.uint64(tail)
    bits = [sum(rice_length(m, k) for m in numbers.tolist()) for k in range(63)]
    best, least = best_rice_parameter(numbers)
    assert bits[best] == least == min(bits)


def test_bits():
    """The bits of a few numbers, as the wire format says."""
    # Of 0, 1, 2, 4 the code is that of 1, 2, 3, 5: lengths 0, 1, 1, 2 in unary; bits 0 of 2, 3, 5; bit 1 of 5.
    stream = "1" + "01" + "01" + "001" + "011" + "0"
    assert bytes(EliasGamma().encode(np.array([0, 1, 2, 4], np.uint8))) == int(stream[::-1], 2).to_bytes(2, "little")
    # -1 and 3 are 1 and 6: remainders 1 and 2 of 2 bits, quotients 0 and 1.
    assert bytes(Rice(2).encode(np.array([-1, 3], np.int32))) == bytes([0b1001, 0b101])
    assert bytes(Rice().encode(np.zeros(5, np.int64))) == bytes([0, 0b11111])


def test_golden():
    """The bytes do not change."""
    values = pattern(20, 40).astype(np.int16)
    assert bytes(EliasGamma().encode(values)).hex() == "4084208220210442481002410412a504c03fa878955e6b12"
    assert bytes(Rice().encode(values)).hex() == "0577c171361c3a375f4d8bfcac0fb8f5bc6901"
    assert bytes(Rice(0).encode(np.array([200, 0], np.int16))).hex() == "00000003cc03"


def test_outlier_does_not_explode():
    """One huge number among small ones costs its own bits, not its quotient's."""
    values = np.zeros(1000, np.int64)
    plain = len(Rice().encode(values))
    values[500] = 2**62
    assert len(Rice().encode(values)) <= plain + 20
    assert len(Rice(0).encode(values)) <= plain + 19


@pytest.mark.parametrize("coder", CODERS, ids=str)
@many_examples
@hypothesis.given(array=integer_arrays(max_size=30), data=st.data())
def test_damage(coder, array, data):
    """Damaged bytes, and bytes for another size, give an array or a DecodeError."""
    assert_total_when_damaged(coder, array, data)


def test_rejects():
    """What cannot be is named; announced sizes alone make nothing large."""
    huge = TensorSpec("", (2**48,), np.dtype(np.int32))
    for coder in CODERS:
        with pytest.raises(DecodeError, match="truncated"):
            coder.decode(memoryview(bytes(50)), huge)
    with pytest.raises(DecodeError, match="a rice section is empty"):
        Rice().decode(memoryview(b""), spec_like(np.zeros(3, np.int8)))
    with pytest.raises(DecodeError, match=r"parameter must lie in 0\.\.63, got 64"):
        Rice().decode(memoryview(b"\x40"), spec_like(np.zeros(3, np.int8)))
    with pytest.raises(DecodeError, match="must have 0 bytes, got 2"):
        Rice().decode(memoryview(b"ab"), spec_like(np.zeros((0, 3), np.int8)))
    with pytest.raises(DecodeError, match="1 bytes follow the end of a elias_gamma section"):
        EliasGamma().decode(memoryview(b"\x01\x00"), spec_like(np.zeros(1, np.int8)))
    with pytest.raises(DecodeError, match="holds the number 256, which does not fit it"):
        EliasGamma().decode(
            memoryview(EliasGamma().encode(np.array([256], np.uint16))), spec_like(np.zeros(1, np.int8))
        )
    with pytest.raises(DecodeError, match="a number of more than 64 bits"):
        Rice(63).decode(memoryview(bytes(8) + b"\x04"), spec_like(np.zeros(1, np.int8)))


def test_wrong_options():
    """Wrong parameters, floats and contexts are named."""
    with pytest.raises(ArgumentError, match=r"parameter must lie in 0\.\.63, got 64"):
        Rice(64)
    with pytest.raises(ArgumentTypeError, match="parameter must be a whole number or None, got 1.0"):
        Rice(1.0)
    with pytest.raises(
        ArgumentTypeError, match=r"w/values is float32\[3\], but the coder 'rice' takes integers; quant"
    ):
        codecs.bind(codecs.chain(codecs.Identity(), Rice()), {"w": np.zeros(3, np.float32)})
    for contexts in (np.zeros(2, np.uint8), np.zeros(3, np.int32)):
        with pytest.raises(ArgumentError, match="contexts must be 3 uint8, one for each integer, got"):
            Rice().encode(np.zeros(3, np.int8), contexts)

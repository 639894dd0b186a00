"""The default coder takes the way that takes least, and never much more than the codes themselves."""

import hypothesis
import numpy as np
import pytest
from codec_support import INTEGERS
from coder_support import (
    assert_round_trip,
    assert_total_when_damaged,
    entropy_bytes,
    integer_arrays,
    many_examples,
    quantized,
    spec_like,
)
from hypothesis import strategies as st

from laconic import codecs
from laconic.codecs import TensorSpec
from laconic.codecs.coders._dense_modes import Mode
from laconic.codecs.coders._entropy_coder import EntropyCoder
from laconic.codecs.coders._integer_coders import Rice
from laconic.codecs.coders._rans import RANS
from laconic.codecs.coders._run_length import RunLength
from laconic.errors import ArgumentTypeError, DecodeError


def mode_of(array, contexts=None):
    """The mode that the coder takes."""
    return Mode(assert_round_trip(EntropyCoder(), array, contexts)[0])


@many_examples
@hypothesis.given(array=integer_arrays(max_magnitude=2**63), with_contexts=st.booleans())
def test_round_trips_in_little_space(array, with_contexts):
    """Any integers come back, and take at most 16 bytes more than their range needs, or a byte more than in memory."""
    contexts = (np.arange(array.size) % 5).astype(np.uint8) if with_contexts else None
    coded = assert_round_trip(EntropyCoder(), array, contexts)
    bits = (int(array.max()) - int(array.min())).bit_length() if array.size else 0
    assert len(coded) <= min(-(-array.size * bits // 8) + 16, array.nbytes + 1)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_edges(dtype):
    """No integers take no bytes; a scalar, constants, zeros and the dtype's ends come back."""
    info = np.iinfo(dtype)
    assert assert_round_trip(EntropyCoder(), np.zeros((3, 0), dtype)) == b""
    for value in (info.min, 0, 1, info.max):
        assert_round_trip(EntropyCoder(), np.array(value, dtype))
        # Constants outside the tables' range take themselves.
        small = len(assert_round_trip(EntropyCoder(), np.full((40, 50), value, dtype))) < 15
        assert small or abs(int(value)) >= 2**61
    assert_round_trip(EntropyCoder(), np.tile(np.array([info.min, info.max], dtype), 3000))


def test_modes():
    """Each kind of integers goes the way that suits it."""
    generator = np.random.default_rng(0)
    assert mode_of(generator.integers(-(2**63), 2**63 - 1, 100)) == Mode.RAW
    assert mode_of(generator.integers(7, 7 + 64, 10_000)) == Mode.FIXED_WIDTH
    assert mode_of(np.full(100, 3)) == Mode.FIXED_WIDTH
    assert mode_of(np.array([0, 1, 0, 3, 9, 0, 0, 2])) == Mode.RICE
    assert mode_of(quantized(10_000, 0.2)) == Mode.RANS
    assert mode_of(np.where(generator.random(10_000) < 0.01, quantized(10_000, 0.2), 0)) == Mode.RUN_LENGTH


@pytest.mark.parametrize("step", [5.0, 2.0, 0.5, 0.05, 0.005])
@pytest.mark.parametrize("size", [30, 1000, 30_000])
def test_no_other_coder_takes_much_less(size, step):
    """The choice, made by estimates, is within 1 % and a few bytes of the best that trying all finds."""
    dither = np.random.default_rng(1).random(size) - 0.5
    codes = quantized(size, step, dither=dither)
    for contexts in (None, ((dither + 0.5) * 8).astype(np.uint8)):
        best = min(len(coder.encode(codes, contexts)) for coder in (Rice(), RANS(), RunLength()))
        assert len(assert_round_trip(EntropyCoder(), codes, contexts)) <= 1.01 * best + 5


@pytest.mark.parametrize("deviation", [6, 20, 40])
def test_codes_of_an_8_bit_quantizer(deviation):
    """Uint8 codes take at most 0.3 % more than their entropy."""
    codes = np.clip(np.rint(np.random.default_rng(0).normal(128, deviation, 500_000)), 0, 255).astype(np.uint8)
    assert len(assert_round_trip(EntropyCoder(), codes)) <= 1.003 * entropy_bytes(codes)


def test_the_dither_decides_for_contexts():
    """Few codes that are not zero are coded by their contexts where those say much, by runs where they say little."""
    size = 50_000
    dither = np.random.default_rng(1).random(size) - 0.5
    codes = quantized(size, 12.0, dither=dither)
    contexts = ((dither + 0.5) * 8).astype(np.uint8)
    assert mode_of(codes) == Mode.RUN_LENGTH
    assert mode_of(codes, contexts) == Mode.RANS
    assert mode_of(codes, np.random.default_rng(2).permutation(contexts)) == Mode.RUN_LENGTH
    coded = len(EntropyCoder().encode(codes, contexts))
    assert coded <= 1.03 * entropy_bytes(codes, contexts) < 0.7 * len(EntropyCoder().encode(codes))


def test_in_a_codec():
    """It is a leaf like any other, whose sections carry their length."""
    codec = codecs.chain(codecs.UniformQuantizer(8, stochastic=False), EntropyCoder())
    tree = {"w": np.random.default_rng(0).normal(size=(50, 60)).astype(np.float32), "b": np.zeros(3, np.float32)}
    fixed = codecs.uniform_quantization(8, stochastic=False)
    blob = codecs.encode(tree, codec)
    assert len(blob) < 0.95 * len(codecs.encode(tree, fixed))
    decoded, expected = codecs.decode(blob), codecs.decode(codecs.encode(tree, fixed))
    assert all(np.array_equal(decoded[name], expected[name]) for name in tree)
    with pytest.raises(ArgumentTypeError, match="the coder 'entropy' takes integers"):
        codecs.bind(codecs.chain(codecs.Identity(), EntropyCoder()), tree)


def test_golden():
    """The bytes of each mode, of which there is one example, do not change."""
    for values, expected in [
        (np.array([2**62, -5]), "000000000000000040fbffffffffffffff"),
        (np.arange(100, 108, dtype=np.uint16), "0103c80188c6fa"),
        (np.array([0, 1, 0, 3, 9, 0, 0, 2], np.uint8), "02011a172e"),
        (
            np.where(np.arange(300) % 3 == 0, 1, np.where(np.arange(300) % 50 == 1, 9, 0)),
            "031b0009000000fc136ecd9a0d539a40bf8416d239d5bb18a5780b252b0c51fd6637fa03016339c43500ff463c7ec4ab2214",
        ),
        (np.where(np.arange(60) % 20 == 7, 5, 0), "0403050203df0049010008"),
        (np.where(np.arange(5000) % 1000 == 7, 5, 0), "04050a020907ce9f3f7f1e5501010008"),
    ]:
        assert bytes(EntropyCoder().encode(values)).hex() == expected


@many_examples
@hypothesis.given(array=integer_arrays(max_size=60, max_magnitude=2**63), data=st.data())
def test_damage(array, data):
    """Damaged bytes, and bytes for another size, give an array or a DecodeError."""
    contexts = (np.arange(array.size) % 5).astype(np.uint8) if data.draw(st.booleans()) else None
    assert_total_when_damaged(EntropyCoder(), array, data, contexts)


def test_rejects():
    """What cannot be is named; an announced size makes nothing large unless the integers are all the same."""
    spec = spec_like(np.zeros(5, np.int8))
    for data, message in [
        (b"", "a section's mode needs 1 bytes"),
        (b"\x09", "unknown mode 9"),
        (b"\x00\x01", "must have 5 bytes, got 1"),
        (b"\x01\x3f\x00", "integers of 63 bits above 0 do not fit int8"),
        (b"\x01\x00\x80\x02", "integers of 0 bits above 128 do not fit int8"),
        (b"\x01\x08\x02\xff\xff\xff\xff\xff", "holds 256, which does not fit int8"),
        (b"\x01\x00\x02\x00", "1 bytes follow the end"),
    ]:
        with pytest.raises(DecodeError, match=message):
            EntropyCoder().decode(memoryview(data), spec)
    for codes in (quantized(100, 0.1), np.arange(100)):
        with pytest.raises(DecodeError, match="cannot hold|truncated"):
            EntropyCoder().decode(memoryview(EntropyCoder().encode(codes)), TensorSpec("", (2**40,), codes.dtype))

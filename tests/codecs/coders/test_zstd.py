"""Shuffled bytes through Zstandard: exact, bounded, and optional."""

import sys

import hypothesis
import numpy as np
import pytest
from codec_support import DTYPES, same_bits
from coder_support import assert_round_trip, assert_total_when_damaged, many_examples, spec_like
from hypothesis import strategies as st

from laconic import codecs
from laconic.codecs import TensorSpec
from laconic.codecs.coders._zstd import ShuffledZstd
from laconic.errors import ArgumentError, ArgumentTypeError, DecodeError, MissingExtraError


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_round_trips(dtype):
    """Arrays of any dtype and layout come back bit by bit."""
    for shape in ((), (0, 3), (1,), (7, 5), (1000,)):
        array = (5 * np.random.default_rng(0).normal(size=shape)).astype(dtype)
        assert_round_trip(ShuffledZstd(), array)
        assert_round_trip(ShuffledZstd(1), np.asfortranarray(array))
    assert assert_round_trip(ShuffledZstd(), np.zeros(0, dtype)) == b""


def test_shuffling_helps():
    """Numbers of like magnitude take less than they would by themselves, and zeros next to nothing."""
    values = np.random.default_rng(0).normal(size=30_000).astype(np.float32)
    assert len(assert_round_trip(ShuffledZstd(), values)) < 0.93 * values.nbytes
    assert len(assert_round_trip(ShuffledZstd(), np.zeros(10**6, np.float32))) < 500


def test_layout():
    """The frame holds all first bytes, then all second ones, and no size."""
    zstandard = pytest.importorskip("zstandard")
    coded = bytes(ShuffledZstd().encode(np.array([0x0102, 0x0304, 0x0506], np.uint16)))
    assert zstandard.frame_content_size(coded) == -1
    assert zstandard.ZstdDecompressor().decompress(coded, max_output_size=6) == bytes([2, 4, 6, 1, 3, 5])


def test_golden():
    """A frame of today is read for ever."""
    coded = bytes.fromhex("28b52ffd00009d000068000080004080a0003f40404040010006c002")
    spec = TensorSpec("", (2, 3), np.dtype(np.float32))
    expected = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert same_bits(ShuffledZstd().decode(memoryview(coded), spec), expected)


def test_in_a_codec():
    """It is a leaf for floats."""
    tree = {"w": np.linspace(0, 1, 500, dtype=np.float32)}
    blob = codecs.encode(tree, codecs.chain(codecs.Identity(), ShuffledZstd(9)))
    assert len(blob) < tree["w"].nbytes
    assert same_bits(codecs.decode(blob), tree)


@many_examples
@hypothesis.given(
    array=st.lists(st.floats(width=32), max_size=40).map(lambda values: np.array(values, np.float32)), data=st.data()
)
def test_damage(array, data):
    """Damaged bytes, and bytes for another size, give an array or a DecodeError."""
    assert_total_when_damaged(ShuffledZstd(), array, data)


def test_output_is_bounded():
    """Neither the shape nor the frame can ask for more memory than the other allows."""
    zstandard = pytest.importorskip("zstandard")
    coded = ShuffledZstd().encode(np.zeros(1000, np.float32))
    with pytest.raises(DecodeError, match="cannot hold"):
        ShuffledZstd().decode(memoryview(coded), TensorSpec("", (2**40,), np.dtype(np.float32)))
    with pytest.raises(DecodeError, match="holds 4000 bytes, not 8000"):
        ShuffledZstd().decode(memoryview(coded), TensorSpec("", (2000,), np.dtype(np.float32)))
    bomb = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(2**28))
    with pytest.raises(DecodeError, match="is damaged"):
        ShuffledZstd().decode(memoryview(bomb), spec_like(np.zeros(10, np.float32)))
    announced = zstandard.ZstdCompressor().compress(bytes(40))
    with pytest.raises(DecodeError, match="says its length"):
        ShuffledZstd().decode(memoryview(announced), spec_like(np.zeros(10, np.float32)))
    with pytest.raises(DecodeError, match="is damaged"):
        ShuffledZstd().decode(memoryview(bytes(coded) + b"x"), spec_like(np.zeros(1000, np.float32)))


def test_without_the_library(monkeypatch):
    """Where zstandard is not installed, the error says what to install; other coders work."""
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(MissingExtraError, match=r"the coder 'shuffled_zstd' needs 'zstandard', .*laconic\[zstd\]"):
        ShuffledZstd().encode(np.zeros(3, np.float32))


def test_wrong_options():
    """Wrong levels are named."""
    with pytest.raises(ArgumentError, match=r"level must lie in 1\.\.22, got 0"):
        ShuffledZstd(0)
    with pytest.raises(ArgumentTypeError, match="level must be a whole number, got True"):
        ShuffledZstd(True)

"""Alphabets hold what integers need, and no more than a section may."""

import hypothesis
import numpy as np
import pytest
from coder_support import assert_round_trip, integer_arrays, many_examples

from laconic.codecs import TensorSpec, _wire
from laconic.codecs.coders._alphabets import Alphabet, _window, fit_alphabet
from laconic.codecs.coders._histograms import BIT, histogram, information, log2
from laconic.codecs.coders._huffman import Huffman
from laconic.codecs.coders._rans import RANS
from laconic.errors import DecodeError


@many_examples
@hypothesis.given(array=integer_arrays().filter(len))
def test_histogram(array):
    """All integers are counted once, inside the window or outside; folding adds up neighbours."""
    counted = histogram(array)
    assert (counted.low, counted.high, counted.total) == (int(array.min()), int(array.max()), array.size)
    for _ in range(3):
        symbols = [(int(v) >> counted.shift) - counted.base for v in array]
        expected = np.bincount([s for s in symbols if 0 <= s < counted.counts.size], minlength=counted.counts.size)
        np.testing.assert_array_equal(counted.counts, expected)
        counted = counted.folded()


@many_examples
@hypothesis.given(array=integer_arrays().filter(len))
def test_split_and_join(array):
    """Symbols are those that were counted, and with what goes beside them give the integers back."""
    fit = fit_alphabet(histogram(array))
    symbols, rest = fit.alphabet.split(array)
    np.testing.assert_array_equal(np.bincount(symbols, minlength=fit.counts.size), fit.counts)
    assert fit.alphabet.num_symbols == fit.counts.size
    reader = _wire.Reader(memoryview(fit.alphabet.write() + rest))
    again = Alphabet.read(reader, fit.alphabet.flags, array.dtype)
    assert again == fit.alphabet
    np.testing.assert_array_equal(again.join(symbols, again.read_rest(reader, array.size), array.dtype), array)
    reader.finish()


@many_examples
@hypothesis.given(array=integer_arrays().filter(len))
def test_nothing_better_is_left_out(array):
    """The search for how many low bits to store ends early, and yet gives up next to nothing of what others give."""
    folding = histogram(array)
    fit = fit_alphabet(folding)
    while folding.counts.size > 4:
        assert fit.cost <= _window(folding).cost * (1 + 1 / 512) + 64 * BIT
        folding = folding.folded()


def test_information():
    """It is n H, whatever the machine's logarithm, to a few parts in 10,000."""
    numbers = np.array([1, 2, 3, 1000, 2**30 + 1, 2**52])
    np.testing.assert_allclose(log2(numbers) / BIT, np.log2(numbers), atol=2e-4)
    counts = np.array([0, 5, 1000, 0, 20, 1])
    shares = counts[counts > 0] / counts.sum()
    assert information(counts) / BIT == pytest.approx(-counts.sum() * (shares * np.log2(shares)).sum(), rel=1e-3)
    assert information(np.array([0, 7])) == information(np.array([], np.int64)) == 0


@pytest.mark.parametrize("spread", [1, 2, 64])
def test_many_different_integers(spread):
    """As many different integers as a window holds, in which no low bit is noise, come back all the same."""
    generator = np.random.default_rng(0)
    different = generator.permutation(2**16 + 2)[: 2**16 - 1]
    values = np.repeat(different, generator.integers(1, 9, different.size) ** 2).astype(np.int32) * spread
    for coder in (RANS(), Huffman()):
        assert_round_trip(coder, values)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.int32, np.int64])
@pytest.mark.parametrize("scale", [2.0, 4.0, 8.0])
def test_peaked_integers_escape_their_tails(dtype, scale):
    """Of many integers a few rare ones are escaped on either side, for fewer symbols, at next to no cost."""
    drawn = np.random.default_rng(1).laplace(0, scale, 2**15)
    middle = 128 if dtype == np.uint8 else 0
    values = np.clip(np.rint(drawn) + middle, *((0, 255) if middle else (-128, 127))).astype(dtype)
    fit = fit_alphabet(histogram(values))
    different = np.unique(values).size
    assert fit.alphabet.has_escapes
    assert fit.alphabet.num_symbols < different
    symbols, rest = fit.alphabet.split(values)
    counts = np.unique(values, return_counts=True)[1]
    least = information(counts) / 8 / BIT
    size = information(np.bincount(symbols)) / 8 / BIT + len(rest)
    assert size <= 1.002 * least + different / 4  # a table has as much less
    assert abs(fit.cost / 8 / BIT - size) <= 2 + 0.01 * size
    coded = RANS().encode(values)
    np.testing.assert_array_equal(RANS().decode(memoryview(coded), TensorSpec("", values.shape, values.dtype)), values)


def test_rejects():
    """A window must be within the dtype."""
    for data, flags, dtype, message in [
        (b"\x08\x00\x00", 2, np.int8, "cannot have the shift 8"),
        (b"\x00\x00\x00", 2, np.int8, "cannot have the shift 0"),
        (b"\x00\x80\x02", 0, np.uint8, "257 symbols from 0 on, times 1, is not within uint8"),
        (b"\x01\x00", 0, np.uint8, "1 symbols from -1 on, times 1, is not within uint8"),
        (b"\x00\x80\x80\x04", 0, np.int64, "65537 symbols from 0 on, times 1, is not within int64"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x00", 0, np.int64, "is not within int64"),
    ]:
        with pytest.raises(DecodeError, match=message):
            Alphabet.read(_wire.Reader(memoryview(data)), flags, np.dtype(dtype))

"""Difference coding gives back every bit; channels are quantized each in its own range."""

import jax.numpy as jnp
import numpy as np
import pytest
from codec_support import INTEGERS, few_examples, gathered, same_bits
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from unbiasedness_support import ADVERSARIAL, LARGEST_T, errors_over_seeds, t_statistics

from laconic import codecs
from laconic.codecs import Difference, PerChannelQuantizer, random
from laconic.errors import ArgumentError, ArgumentTypeError

DIFFERENCE = codecs.chain(Difference())
NARROW = [dtype for dtype in INTEGERS if dtype.itemsize <= 2]
WIDE = [np.dtype(np.int32), np.dtype(np.int64)]
MATRIX = np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32) * np.float32([1e-3, 1, 10, 1e4, 0])


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_differences_of_narrow_integers(dtype):
    """The ends of every dtype of 8 and 16 bits come back, from differences in twice as many bits."""
    info = np.iinfo(dtype)
    x = np.array([[info.max, info.min, info.max], [0, info.min, 1]], dtype)
    encoded = np.asarray(Difference().encode(random.key(0), jnp.asarray(x), {})["values"])
    assert encoded.dtype == f"int{16 * dtype.itemsize}"
    np.testing.assert_array_equal(encoded, np.diff(x.reshape(-1).astype(np.int64), prepend=0))
    assert same_bits(codecs.decode(codecs.encode(x, DIFFERENCE)), x)


@few_examples
@given(hnp.arrays(np.int16, st.integers(0, 20)))
def test_differences_are_lossless(x):
    """Any integers, none included."""
    assert same_bits(codecs.decode(codecs.encode(x, DIFFERENCE)), x)


@pytest.mark.parametrize("dtype", WIDE, ids=str)
def test_differences_of_wide_integers(dtype):
    """Those of 32 and 64 bits stay as wide, and differences that do not fit are refused, not wrapped around."""
    info = np.iinfo(dtype)
    for x in ([info.max, 5, -3, 0], [info.min], [info.max, 0, info.min + 1], []):
        assert same_bits(codecs.decode(codecs.encode(np.array(x, dtype), DIFFERENCE)), np.array(x, dtype))
    for x in ([info.max, info.min], [0, 5, info.min, 1], [-2, info.max]):
        with pytest.raises(ArgumentError, match="range"):
            codecs.encode(np.array(x, dtype), DIFFERENCE)


def test_differences_are_added():
    """Sums of encodings, which outgrow 16 bits, decode to sums."""
    xs = [np.random.default_rng(client).integers(-(2**15), 2**15, 60).astype(np.int16) for client in range(3)]
    xs = [x // 3 for x in xs]
    assert DIFFERENCE.commutes_with_sum
    np.testing.assert_array_equal(gathered(codecs.bind(DIFFERENCE, xs[0]), xs)[0], np.sum(xs, axis=0))


def test_differences_make_sorted_positions_cheap():
    """1,000 sorted positions of 100,000 take less than two bytes each, and four before."""
    positions = np.sort(np.random.default_rng(0).choice(100_000, 1000, replace=False)).astype(np.int32)
    blob = codecs.encode(positions, codecs.chain(Difference(), codecs.EntropyCoder()))
    assert len(blob) < 1200
    assert same_bits(codecs.decode(blob), positions)


def test_differences_refuse():
    """Floats, truth values, and unsigned integers whose differences have no dtype."""
    for dtype, message in [
        (np.float32, "difference takes integers; quantize floats first"),
        (np.bool_, "difference takes integers"),
        (np.uint32, "uint32.*, whose differences are signed.*use int32"),
        (np.uint64, "use int64"),
    ]:
        with pytest.raises(ArgumentTypeError, match=message):
            codecs.bind(DIFFERENCE, np.zeros(3, dtype))


@pytest.mark.parametrize("stochastic", [True, False])
@pytest.mark.parametrize("bits", [1, 5, 11])
def test_each_channel_errs_by_its_own_step(bits, stochastic):
    """No entry errs by more than a step of its channel, or half of one; a constant channel does not err."""
    codec = codecs.per_channel_quantization(bits, stochastic=stochastic)
    decoded = np.asarray(codecs.decode(codecs.encode(MATRIX, codec, seed=0)))
    step = (MATRIX.max(axis=0) - MATRIX.min(axis=0)) / (2**bits - 1)
    error = np.abs(decoded - MATRIX).max(axis=0)
    assert np.all(error <= step * (1 if stochastic else 0.5) * 1.001 + 1e-7 * np.abs(MATRIX).max(axis=0))
    assert not decoded[:, 4].any()
    # Ends are exact.
    np.testing.assert_array_equal(decoded.min(axis=0), MATRIX.min(axis=0))
    np.testing.assert_array_equal(decoded.max(axis=0), MATRIX.max(axis=0))


def test_one_channel_is_uniform_quantization():
    """A vector is one channel, and then the codes are those of `UniformQuantizer`."""
    x = MATRIX.reshape(-1)
    key = random.key(4)
    channel = PerChannelQuantizer(6).encode(key, jnp.asarray(x), {})
    whole = codecs.UniformQuantizer(6).encode(key, jnp.asarray(x), {})
    np.testing.assert_array_equal(channel["quantized"], whole["quantized"])
    np.testing.assert_array_equal(channel["ranges"].reshape(-1), whole["range"])


def test_size_counts_the_ranges():
    """Four bits for each of 200 entries, 64 bits for each of 5 channels, and the frame's 8 bytes."""
    assert codecs.bind(codecs.per_channel_quantization(4), MATRIX).static_size() == 100 + 40 + 8


@pytest.mark.parametrize("name", [name for name in ADVERSARIAL if name != "zero"])
def test_per_channel_rounding_is_unbiased(name):
    """A t-test over 400 keys on eight channels."""
    x = ADVERSARIAL[name].reshape(8, 8)
    stage = PerChannelQuantizer(2)
    assert stage.is_unbiased
    assert not PerChannelQuantizer(2, stochastic=False).is_unbiased
    errors = errors_over_seeds(stage, x).reshape(400, -1)
    assert t_statistics(errors, x.reshape(-1)).max() < LARGEST_T


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (3, 0), (1, 1), (2, 3, 4)])
def test_shapes(shape):
    """Scalars, empty arrays, no channels, several axes."""
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    decoded = np.asarray(codecs.decode(codecs.encode(x, codecs.per_channel_quantization(8), seed=0)))
    assert decoded.shape == shape
    np.testing.assert_allclose(decoded, x, atol=0.05)


def test_per_channel_refusals():
    """Bits out of range, and integers."""
    with pytest.raises(ArgumentError, match=r"bits must lie in 1\.\.16, got 17"):
        codecs.per_channel_quantization(17)
    with pytest.raises(ArgumentTypeError, match="stochastic must be True or False, got 1"):
        PerChannelQuantizer(8, 1)
    with pytest.raises(ArgumentTypeError, match="per_channel_quantizer takes floating-point"):
        codecs.bind(codecs.per_channel_quantization(8), np.zeros(3, np.int32))

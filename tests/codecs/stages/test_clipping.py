"""Clipping bounds what it says, changes nothing else, and sums stay sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from codec_support import FLOATS, few_examples, gathered, same_bits
from hypothesis import given
from hypothesis import strategies as st

from laconic import codecs
from laconic.codecs import ClipByNorm, ClipByValue
from laconic.errors import ArgumentError, ArgumentTypeError

GAUSSIAN = np.random.default_rng(0).standard_normal((8, 9)).astype(np.float32)


def clipped(stage, x):
    """Through bytes and back."""
    return np.asarray(codecs.decode(codecs.encode(x, codecs.chain(stage))))


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e3, 1e30, 1e37])
def test_norms_are_clipped_at_any_scale(scale):
    """The direction is kept, the norm becomes the bound, also where its square leaves the dtype."""
    x = GAUSSIAN * np.float32(scale)
    exact = x.astype(np.float64)
    bound = 0.5 * float(np.linalg.norm(exact))
    result = clipped(ClipByNorm(bound), x).astype(np.float64)
    assert np.linalg.norm(result) == pytest.approx(bound, rel=1e-6)
    np.testing.assert_allclose(result, exact / 2, rtol=1e-5)


@few_examples
@given(st.floats(0.1, 30), st.integers(0, 1000))
def test_norms_below_the_bound_are_left_alone(bound, seed):
    """A tensor within the bound keeps every bit; any other ends on it."""
    x = np.random.default_rng(seed).standard_normal(50).astype(np.float32)
    result = clip(jnp.float32(0) + x, bound)
    if np.linalg.norm(x.astype(np.float64)) < bound * 0.999:
        assert same_bits(result, x)
    else:
        assert np.linalg.norm(result.astype(np.float64)) <= bound * (1 + 1e-5)


def clip(x, bound):
    """What is encoded, without a codec."""
    return np.asarray(ClipByNorm(bound).encode(codecs.random.key(0), x, {})["values"])


def test_values_are_clipped():
    """Entries beyond an end become that end; others keep every bit."""
    x = np.float32([-5, -1, -0.0, 0.3, 2, 1e30])
    np.testing.assert_array_equal(clipped(ClipByValue(-1, 2), x), np.float32([-1, -1, -0.0, 0.3, 2, 2]))
    assert same_bits(clipped(ClipByValue(-1e38, 1e38), GAUSSIAN), GAUSSIAN)


@pytest.mark.parametrize("stage", [ClipByNorm(1.0), ClipByValue(-0.5, 0.5)], ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_dtypes_and_odd_shapes(stage, dtype):
    """Every float dtype, scalars and empty tensors come back as what they were; zeros stay zeros."""
    for x in (np.zeros((), dtype), np.ones((), dtype), np.zeros((0, 2), dtype), np.full(3, 2, dtype)):
        with jax.enable_x64(dtype == np.float64):
            result = clipped(stage, x)
        assert result.shape == x.shape
        assert result.dtype == x.dtype
        assert np.isfinite(result.astype(np.float64)).all()
        if not x.any():
            assert not result.any()


@pytest.mark.parametrize("stage", [ClipByNorm(3.0), ClipByValue(-0.5, 0.5)], ids=str)
def test_clipped_updates_are_added(stage):
    """The sum is of clipped updates: clipping happens at the senders."""
    xs = [GAUSSIAN * (client + 1) for client in range(5)]
    codec = codecs.chain(stage)
    assert codec.commutes_with_sum
    assert not codec.is_unbiased
    expected = np.sum([clipped(stage, x) for x in xs], axis=0)
    np.testing.assert_allclose(gathered(codecs.bind(codec, xs[0]), xs)[0], expected, rtol=1e-5, atol=1e-6)


def test_refusals():
    """Bounds that bound nothing, and integers."""
    with pytest.raises(ArgumentError, match="bound must be finite and above zero, got 0"):
        ClipByNorm(0)
    with pytest.raises(ArgumentTypeError, match="bound must be a number, got 'one'"):
        ClipByNorm("one")
    with pytest.raises(ArgumentError, match=r"low and high must be finite with low < high, got 1\.0 and 1\.0"):
        ClipByValue(1, 1)
    with pytest.raises(ArgumentTypeError, match="low must be a number, got None"):
        ClipByValue(None, 1)
    with pytest.raises(ArgumentTypeError, match="clip_by_value takes floating-point"):
        codecs.bind(codecs.chain(ClipByValue(0, 1)), np.zeros(3, np.int32))

"""Dithered and random rounding: errors, bias, sums, steps, and what is out of their range."""

import jax.numpy as jnp
import numpy as np
import pytest
from codec_support import decodings, gathered

from laconic import codecs
from laconic.codecs import Dithered, StochasticGrid
from laconic.errors import ArgumentError, ArgumentTypeError

GENERATOR = np.random.default_rng(0)
GAUSSIAN = GENERATOR.normal(size=20_000).astype(np.float32)
ADVERSARIAL = {
    "constant": np.full(64, 0.3, np.float32),
    "spike": np.eye(1, 64, 5, dtype=np.float32)[0] * 7,
    "alternating": np.where(np.arange(64) % 2, -1.0, 1.0).astype(np.float32),
    "heavy tails": np.random.default_rng(1).standard_t(1.5, 64).astype(np.float32),
    "tiny": np.random.default_rng(2).normal(size=64).astype(np.float32) * np.float32(1e-30),
    "huge": np.random.default_rng(3).normal(size=64).astype(np.float32) * np.float32(1e30),
}
STEPS = [{"nmse": 0.2}, {"nmse": 3.0}, {"step_in_rms": 0.5}, {"step_in_rms": 8.0}]


def decoded(x, codec, seed):
    """Through bytes and back."""
    return np.asarray(codecs.decode(codecs.encode(x, codec, seed=seed)))


def nmse(x, decoded_x):
    """The squared error over |x|^2."""
    x = x.astype(np.float64)
    return np.sum((decoded_x - x) ** 2) / np.sum(x**2)


@pytest.mark.parametrize("factory", [codecs.dithered, codecs.stochastic_grid])
@pytest.mark.parametrize("target", [0.01, 0.3, 1.0, 5.0, 40.0])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_error_is_as_asked(factory, target, scale):
    """The error over |x|^2 is what `nmse` asks for, at any scale."""
    x = GAUSSIAN * np.float32(scale)
    measured = np.mean([nmse(x, decoded(x, factory(nmse=target), seed)) for seed in range(4)])
    assert measured == pytest.approx(target, rel=0.05)


@pytest.mark.parametrize("stage", [Dithered, StochasticGrid])
@pytest.mark.parametrize("step", STEPS, ids=str)
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_unbiased(stage, step, name):
    """Over 1,000 keys no entry's mean error is further from zero than Bernstein's bound allows with chance 1e-9."""
    x = ADVERSARIAL[name]
    # What the step is has tests of its own; here it is read from the stage.
    x_step = float(np.asarray(stage(**step).encode(codecs.random.key(0), x, {})["step"])[0])
    errors = decodings(stage(**step), x, 1000) - x
    fraction = x.astype(np.float64) / x_step % 1
    variance = x_step**2 * (1 / 12 if stage is Dithered else fraction * (1 - fraction))
    log_chance = np.log(2 / 1e-9)
    limit = np.sqrt(2 * variance * log_chance / 1000) + x_step * log_chance / 3000
    assert np.all(np.abs(errors.mean(axis=0)) <= limit + 1e-6 * np.abs(x))
    # What rounding x / step to float32 changes in its fraction, near a whole number, is not of interest.
    np.testing.assert_allclose((errors**2).mean(), np.mean(variance * np.ones(x.size)), rtol=0.2, atol=1e-6 * x_step**2)


@pytest.mark.parametrize("factory", [codecs.dithered, codecs.stochastic_grid])
@pytest.mark.parametrize(
    ("size", "step_in_rms", "dtype"),
    [(1, 2.0, np.int8), (10_000, 1.0, np.int8), (20_000, 1.0, np.int16), (20_000, 40.0, np.int8), (9, 1e-9, np.int32)],
)
def test_codes_are_narrow_where_they_must_be_small(factory, size, step_in_rms, dtype):
    """All energy in one entry is the largest code that there can be: it fits what the size and step allow for."""
    for sign in (1, -1):
        x = np.zeros(size, np.float32)
        x[-1] = 3 * sign
        bound = codecs.bind(factory(step_in_rms=step_in_rms), x)
        payload, _ = bound.encode(x, key=codecs.random.key(0))
        assert payload.unpacked.arrays[0][0].dtype == dtype
        step = max(3 * step_in_rms / np.sqrt(size), 3 * 2.0**-22)
        assert abs(np.asarray(bound.decode(payload.blob))[-1] - x[-1]) <= step * (1 + 1e-5) + 1e-6


def test_dither_error_is_uniform_and_independent_of_the_input():
    """The error of dithered rounding is uniform over one step, whatever the input: variance step^2 / 12."""
    x = np.linspace(-1, 1, 50_000, dtype=np.float32)
    error = (decoded(x, codecs.dithered(step=0.25), 3) - x) / 0.25
    assert np.abs(error).max() <= 0.5 + 1e-5
    assert error.var() == pytest.approx(1 / 12, rel=0.02)
    assert abs(np.corrcoef(error, x)[0, 1]) < 0.02
    assert np.histogram(error, 10, (-0.5, 0.5))[0].std() < 0.03 * len(x) / 10


def test_random_rounding_follows_its_formula():
    """Each entry comes out at one of the two nearest multiples, with variance step^2 f (1 - f)."""
    x = np.repeat(np.float32([0.0, 0.1, 0.25, 0.5, 0.9, -0.3]), 20_000)
    y = decoded(x, codecs.stochastic_grid(step=1.0), 5)
    assert set(np.unique(y)) <= {-1.0, 0.0, 1.0}
    fraction = x - np.floor(x)
    for value in np.unique(x):
        chosen = x == value
        expected = fraction[chosen][0] * (1 - fraction[chosen][0])
        assert np.mean((y[chosen] - value) ** 2) == pytest.approx(expected, abs=0.012)
    assert not np.any(y[x == 0])


@pytest.mark.parametrize("factory", [codecs.dithered, codecs.stochastic_grid])
def test_a_thousand_clients_add_up_in_integers(factory):
    """With a given step the sum of 1,000 encodings decodes to the sum of the decodings, without overflow."""
    x = np.float32([0.0, 1.0, -0.9999, 2.0**19, -(2.0**19), 1e-3])
    bound = codecs.bind(factory(step=1.0), x)
    keys = [codecs.random.derive(codecs.random.key(0), i) for i in range(1000)]
    gather, expected = bound.gather(), np.zeros(x.shape)
    for key in keys:
        payload = bound.encode_contribution(x, key=key)
        gather.add(payload)
        expected += np.asarray(bound.decode(payload), np.float64)
    total, _ = gather.result()
    np.testing.assert_allclose(total, expected, rtol=1e-6, atol=2e-3)


def test_errors_of_clients_average_out_only_under_different_keys():
    """Trap: with one dither for all clients the mean's error is one client's; with their own keys it is 1/n of that."""
    x, n = GAUSSIAN, 25
    bound = codecs.bind(codecs.dithered(step=0.5), x)
    own, _ = gathered(bound, [x] * n)
    shared = bound.gather()
    for _ in range(n):
        shared.add(bound.encode_contribution(x, key=codecs.random.key(1)))
    one = 0.5**2 / 12 * x.size / np.sum(x.astype(np.float64) ** 2)
    assert nmse(x, np.asarray(own) / n) == pytest.approx(one / n, rel=0.05)
    assert nmse(x, np.asarray(shared.result()[0]) / n) == pytest.approx(one, rel=0.05)


@pytest.mark.parametrize("factory", [codecs.dithered, codecs.stochastic_grid])
@pytest.mark.parametrize("choice", [{"step": 0.1}, {"step_in_rms": 1.0}, {"nmse": 0.1}, {"bits_per_parameter": 2.0}])
@pytest.mark.parametrize("value", [0.0, -2.5])
def test_any_float_and_shape(factory, choice, value):
    """Empty, scalar and small arrays of every float dtype keep shape and dtype; zeros stay zeros."""
    dtypes = [np.dtype(jnp.dtype(name)) for name in ("float16", "bfloat16", "float32", "float64")]
    shapes = [(), (1,), (3, 0), (4, 5)]
    tree = [np.full(shape, value).astype(dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
    for x, y in zip(tree, codecs.decode(codecs.encode(tree, factory(**choice), seed=0)), strict=True):
        assert y.shape == x.shape
        assert y.dtype == x.dtype
        if value == 0 and "step" not in choice:
            assert not np.any(y)


@pytest.mark.parametrize("rate", [0.3, 1.0, 2.7, 6.0])
@pytest.mark.parametrize("factory", [codecs.dithered, codecs.stochastic_grid])
def test_promised_rate(factory, rate):
    """`bits_per_parameter` is kept within 3 %, by real bytes with headers and tables, described or not."""
    bound = codecs.bind(factory(bits_per_parameter=rate), GAUSSIAN)
    for described in (True, False):
        payload, _ = bound.encode(GAUSSIAN, key=codecs.random.key(1), described=described)
        assert len(payload.blob) == pytest.approx(rate * GAUSSIAN.size / 8, rel=0.03)


def test_a_rate_that_cannot_be_spent():
    """Few entries and many bits: the search ends where values come back to the last places, not at clipped codes."""
    x = np.zeros(20_000, np.float32)
    x[::400] = 10.0 ** np.linspace(-24, 24, 50)
    for factory in (codecs.dithered, codecs.stochastic_grid):
        y = codecs.decode(codecs.encode(x, factory(bits_per_parameter=1.0), seed=0))
        np.testing.assert_allclose(y, x, atol=1e-6 * np.abs(x).max())


def test_values_beyond_a_given_step():
    """A value of more than 2^20 steps is an error that names the tensor, not a wrong code."""
    with pytest.raises(ArgumentError, match="weights.*beyond the range.*larger step"):
        codecs.encode({"weights": np.float32([1e6])}, codecs.dithered(step=0.5), seed=0)


@pytest.mark.parametrize("factory", [codecs.dithered, codecs.stochastic_grid])
def test_wrong_arguments(factory):
    """Exactly one positive number says what the step is; integers are refused by name."""
    for arguments in ({}, {"step": 1.0, "nmse": 1.0}, {"step": 0.0}, {"nmse": -1.0}, {"nmse": float("nan")}):
        with pytest.raises(ArgumentError):
            factory(**arguments)
    with pytest.raises(ArgumentTypeError, match="step must be a number"):
        factory(step="1")
    with pytest.raises(ArgumentTypeError, match="counts is int32"):
        codecs.bind(factory(step=1.0), {"counts": np.zeros(3, np.int32)})


def test_flags():
    """Both are unbiased and draw; they commute with the sum on a given step alone, and say their error."""
    for factory in (codecs.dithered, codecs.stochastic_grid):
        assert factory(step=1.0).commutes_with_sum
        assert not factory(nmse=1.0).commutes_with_sum
        assert factory(nmse=0.5).is_unbiased
        assert factory(nmse=0.5).is_stochastic
        assert factory(nmse=0.5).expected_nmse(10) == 0.5
        assert factory(step=1.0).expected_nmse(10) is None
    assert codecs.dithered(step_in_rms=3.0).expected_nmse(10) == 0.75
    assert codecs.dithered(step=1.0).shares_randomness
    assert not codecs.stochastic_grid(step=1.0).shares_randomness

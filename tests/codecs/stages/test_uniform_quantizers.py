"""Uniform quantization keeps the promises of its mathematics: error, bias, range, rounding, sums."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from codec_support import FLOATS, few_examples, gathered, same_bits
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from laconic import codecs
from laconic.codecs import TensorSpec, UniformQuantizer, random
from laconic.errors import ArgumentError, ArgumentTypeError

BITS = range(1, 17)
SOME_BITS = (1, 2, 5, 8, 11, 16)
NORMAL = np.random.default_rng(0).standard_normal(64).astype(np.float32)

# All of one size, so that a stage is compiled once for all.
ADVERSARIAL = {
    "normal": NORMAL,
    "constant": np.full(64, 0.1, np.float32),
    "spike": np.eye(1, 64, dtype=np.float32)[0] * 1000 + np.linspace(0, 1, 64, dtype=np.float32),
    "alternating": np.tile([-1.0, 1.0, 0.3, -0.3], 16).astype(np.float32),
    "heavy tails": np.random.default_rng(1).standard_cauchy(64).astype(np.float32),
    "tiny": NORMAL * np.float32(1e-30),
    "huge": NORMAL * np.float32(1e30),
    "one-sided": np.abs(NORMAL) + 100,
}


def decoded(x, **arguments):
    """Through the codec, with a fixed seed."""
    codec = codecs.uniform_quantization(**arguments)
    return codecs.decode(codecs.encode(x, codec, seed=0))


def steps_of(x, bits):
    """The quantizer's step, in double precision."""
    x = np.asarray(x, np.float64)
    return (x.max() - x.min()) / (2**bits - 1)


def last_place(x):
    """What one rounding of its largest element may change, in double precision, where nothing overflows."""
    return float(np.abs(x).max()) * 2.0**-23


@functools.cache
def reproduction(stage):
    """What decoding gives under each of many keys, compiled."""

    def reproduce(x, key):
        encoded = stage.encode(key, x, {})
        return stage.decode(encoded, {}, num_summands=1, spec=TensorSpec("x", x.shape, x.dtype))

    return jax.jit(jax.vmap(reproduce, in_axes=(None, 0)))


def errors_over_seeds(bits, x, count, seed=0):
    """Errors of stochastic rounding, one row a seed."""
    values = reproduction(UniformQuantizer(bits))(x, random.derive_each(random.key(seed), count))
    return np.asarray(values, np.float64) - x.astype(np.float64)


@pytest.mark.parametrize("stochastic", [True, False])
@pytest.mark.parametrize("name", ["normal", "heavy tails", "tiny", "huge"])
def test_error_is_within_one_step_or_half(name, stochastic):
    """No element errs by more than a step, or half of one where rounding is to the nearest."""
    x, bits_list = ADVERSARIAL[name], SOME_BITS if stochastic else BITS
    codec = [codecs.uniform_quantization(bits, stochastic=stochastic) for bits in bits_list]
    for bits, x_hat in zip(bits_list, codecs.decode(codecs.encode([x] * len(codec), codec, seed=0)), strict=True):
        step = steps_of(x, bits)
        bound = step if stochastic else step / 2
        rounding = 4 * last_place(x)
        assert np.abs(x_hat.astype(np.float64) - x).max() <= bound * 1.001 + rounding, bits


@few_examples
@hypothesis.given(
    x=hnp.arrays(np.float32, 12, elements=st.floats(width=32, allow_nan=False, allow_infinity=False)),
    stochastic=st.booleans(),
)
def test_error_for_any_finite_floats(x, stochastic):
    """Whatever the numbers, decoding stays within their range, and within a step of them."""
    x_hat = decoded(x, bits=8, stochastic=stochastic)
    assert (x_hat >= x.min()).all()
    assert (x_hat <= x.max()).all()
    tolerance = 4 * last_place(x) + np.finfo(np.float32).tiny
    bound = steps_of(x, 8) * (1 if stochastic else 0.5) * 1.001
    assert np.abs(x_hat.astype(np.float64) - x).max() <= bound + tolerance


@pytest.mark.parametrize("bits", [1, 3, 12])
def test_deterministic_codes_are_the_formula(bits):
    """Codes are (x - lo) / (hi - lo) * (2^b - 1) rounded half to even, computed in double precision."""
    stage = UniformQuantizer(bits, stochastic=False)
    x = NORMAL.astype(np.float64)
    with jax.enable_x64(True):
        quantized = stage.encode(random.key(0), jnp.asarray(x), {})["quantized"]
    y = (x - x.min()) / (x.max() - x.min()) * (2**bits - 1)
    np.testing.assert_array_equal(quantized, np.round(y))
    assert quantized.dtype == (np.uint8 if bits <= 8 else np.uint16)


@pytest.mark.parametrize("bits", BITS)
def test_exact_ties_round_to_even(bits):
    """The middle of the range lies between two codes, and goes to the even one."""
    stage = UniformQuantizer(bits, value_range=(-1.0, 1.0), stochastic=False)
    code = stage.encode(random.key(0), jnp.zeros(1), {})["quantized"][0]
    assert code == (0 if bits == 1 else 2 ** (bits - 1))


def test_ties_between_all_pairs_of_codes():
    """With as many steps as the range is wide, k + 1/2 goes to the even neighbour, as in TFF."""
    halves = np.arange(3, dtype=np.float64) + 0.5
    with jax.enable_x64(True):
        stage = UniformQuantizer(2, value_range=(0.0, 3.0), stochastic=False)
        quantized = stage.encode(random.key(0), jnp.asarray(halves), {})["quantized"]
    np.testing.assert_array_equal(quantized, [0, 2, 2])


def test_stochastic_rounding_uses_floor_and_fraction():
    """The code is floor(y) + [u < y - floor(y)] with the specified uniform numbers."""
    x, key = np.linspace(0, 1, 101), random.key(3)
    with jax.enable_x64(True):
        quantized = UniformQuantizer(3).encode(key, jnp.asarray(x), {})["quantized"]
    y, u = x * 7, np.concatenate(random.uniform_quarters(key, x.size)).astype(np.float64)
    np.testing.assert_array_equal(quantized, np.floor(y) + (u < y - np.floor(y)))


def deviation_of(x, bits):
    """The standard deviation of each element's error, step sqrt(f (1 - f))."""
    y = (x.astype(np.float64) - x.min()) / steps_of(x, bits)
    return np.sqrt((y - np.floor(y)) * (np.ceil(y) - y)) * steps_of(x, bits)


@pytest.mark.parametrize("bits", [1, 4])
@pytest.mark.parametrize("name", [name for name in ADVERSARIAL if name != "constant"])
def test_stochastic_rounding_is_unbiased(name, bits):
    """Over 400 seeds no element's mean error, and not all elements' together, exceeds what chance explains."""
    x, count = ADVERSARIAL[name], 400
    errors, step, deviation = errors_over_seeds(bits, x, count), steps_of(x, bits), deviation_of(x, bits)
    rounding = 1e-4 * step + 2 * last_place(x)
    rare = 4 * step / count  # a fraction of 1e-4 rounds up once or never, far from normally distributed
    assert (np.abs(errors.mean(axis=0)) <= 5.5 * deviation / np.sqrt(count) + rare + rounding).all()
    of_all = np.sqrt((deviation**2).sum() / count) / x.size
    assert abs(errors.mean()) <= 5 * of_all + rare / x.size + rounding


def test_constants_never_err():
    """An array of equal elements decodes to itself under every seed."""
    assert not errors_over_seeds(4, ADVERSARIAL["constant"], 400).any()


def test_variance_is_that_of_the_formula():
    """The error's variance is f (1 - f) step^2, and averaging 400 independent errors divides it by 400."""
    errors = errors_over_seeds(4, NORMAL, 400)
    expected = (deviation_of(NORMAL, 4) ** 2).mean()
    assert (errors**2).mean() == pytest.approx(expected, rel=0.05)
    assert (errors.mean(axis=0) ** 2).mean() == pytest.approx(expected / 400, rel=0.5)


def test_errors_of_two_tensors_do_not_correlate():
    """Equal tensors of one payload are rounded by different numbers."""
    x = np.random.default_rng(3).standard_normal(2000).astype(np.float32)
    first, second = codecs.decode(codecs.encode([x, x], codecs.uniform_quantization(4), seed=0))
    assert abs(np.corrcoef(first - x, second - x)[0, 1]) < 5 / np.sqrt(x.size)


def test_deterministic_rounding_is_not_called_unbiased():
    """What rounds to the nearest, or clips, does not claim to be unbiased."""
    assert codecs.uniform_quantization(8).is_unbiased
    assert not codecs.uniform_quantization(8, stochastic=False).is_unbiased
    assert not codecs.uniform_quantization(8, value_range=(-1, 1)).is_unbiased
    assert codecs.uniform_quantization(8).is_stochastic
    assert not codecs.uniform_quantization(8, stochastic=False).is_stochastic


def test_constants_decode_exactly():
    """Equal elements come back bit for bit in every dtype, whatever their number and size."""
    tree = [
        np.full(shape, value, dtype)
        for dtype in FLOATS
        for shape in [(), (5,)]
        for value in (0.1, -3.7, -0.0, float(jnp.finfo(dtype).max))
    ]
    assert same_bits(decoded(tree, bits=3, stochastic=False), tree)


def test_ends_of_the_range_are_exact():
    """The smallest and the largest element come back bit for bit, in every precision, and all finite."""
    xs = [np.array([0.1, -7.3, 0.6, 11.9, 2.2]).astype(dtype) for dtype in FLOATS]
    xs += [np.array([float(jnp.finfo(dtype).min), 0.1, float(jnp.finfo(dtype).max)]).astype(dtype) for dtype in FLOATS]
    for x, x_hat in zip(xs, decoded(xs, bits=5), strict=True):
        assert x_hat.dtype == x.dtype
        assert x_hat[x.argmin()] == x.min()
        assert x_hat[x.argmax()] == x.max()
        assert np.isfinite(x_hat).all()


def test_range_wider_than_the_largest_number():
    """A range from -3e38 to 3e38, whose width float32 cannot hold, is quantized like any other."""
    x = np.array([-3e38, -1e38, 0.0, 2e38, 3e38], np.float32)
    x_hat = decoded(x, bits=16, stochastic=False)
    np.testing.assert_allclose(x_hat.astype(np.float64), x.astype(np.float64), rtol=0, atol=6e38 / 65535)
    assert (x_hat[0], x_hat[-1]) == (x[0], x[-1])


def test_range_of_two_neighbouring_numbers():
    """A range without a number between its ends decodes to one of the two."""
    for low in (np.float32(1.0), np.finfo(np.float32).max * np.float32(0.99), np.float32(-1e-30)):
        x = np.array([low, np.nextafter(low, np.float32(np.inf))] * 8, np.float32)
        assert np.isin(decoded(x, bits=16), x).all()


def test_precisions():
    """At 16 bits half-precision arrays come back to their own last place, and doubles to 16 bits."""
    xs = [np.linspace(-1, 1, 33).astype(dtype) for dtype in FLOATS]
    for x, x_hat in zip(xs, decoded(xs, bits=16, stochastic=False), strict=True):
        tolerance = 1 / 65535 + float(jnp.finfo(x.dtype).eps)
        assert np.abs(x_hat.astype(np.float64) - x.astype(np.float64)).max() <= tolerance


def test_shapes():
    """Scalars, empty and many-dimensional arrays keep their shape."""
    shapes = [(), (0,), (0, 3), (1, 1), (2, 3, 4)]
    xs = [np.random.default_rng(2).standard_normal(shape).astype(np.float32) for shape in shapes]
    for value_range in (None, (-1, 1)):
        assert [x_hat.shape for x_hat in decoded(xs, bits=7, value_range=value_range)] == shapes


def test_given_range_clips():
    """Values outside a given range decode to its ends, those at its ends exactly."""
    x = np.array([-1e30, -2.5, -2.0, 0.1, 3.0, 3.5, 1e30], np.float32)
    x_hat = decoded(x, bits=4, value_range=(-2, 3))
    np.testing.assert_array_equal(x_hat[[0, 1, 2, 4, 5, 6]], np.float32([-2, -2, -2, 3, 3, 3]))
    assert abs(x_hat[3] - x[3]) <= 5 / 15


def test_nothing_travels_for_a_given_range():
    """A given range is part of the codec; the tensor's own range is 8 bytes of side information."""
    x = np.zeros(100, np.float32)
    for value_range, side_information in (((-1, 1), 0), (None, 8)):
        codec = codecs.uniform_quantization(8, value_range=value_range)
        payload, _ = codecs.bind(codec, x).encode(x, key=random.key(0))
        assert payload.tensors[0].payload == 100
        assert payload.tensors[0].side_information == side_information
        assert len(payload.blob) == 108 + side_information


@pytest.mark.parametrize(("bits", "stochastic"), [(1, True), (8, False), (16, True)])
def test_given_range_commutes_with_the_sum(bits, stochastic):
    """Decoding the sum of 20 clients' codes gives the sum of their decodings at 1e-5."""
    codec = codecs.uniform_quantization(bits, value_range=(-1.5, 2.5), stochastic=stochastic)
    assert codec.commutes_with_sum
    xs = [np.random.default_rng(client).normal(0, 1, (4, 5)).astype(np.float32) for client in range(20)]
    bound = codecs.bind(codec, xs[0])
    summed, _ = gathered(bound, xs)
    keys = [random.derive(random.key(0), client) for client in range(20)]
    separate = [bound.decode(bound.encode(x, key=key)[0].blob) for x, key in zip(xs, keys, strict=True)]
    np.testing.assert_allclose(summed, np.sum(separate, axis=0), rtol=1e-5, atol=1e-5 * 20)


def test_own_range_does_not_commute():
    """Codes on different grids may not be added, so they are decoded before the sum."""
    codec = codecs.uniform_quantization(8)
    assert not codec.commutes_with_sum
    xs = [np.linspace(-scale, scale, 9, dtype=np.float32) for scale in (1, 10, 100)]
    summed, _ = gathered(codecs.bind(codec, xs[0]), xs)
    np.testing.assert_allclose(summed, np.sum(xs, axis=0), atol=222 / 255)


def test_codes_do_not_depend_on_other_tensors():
    """A float32 tensor gets the same codes beside a float64 tensor, where JAX computes in 64 bits, as alone."""
    codec = codecs.uniform_quantization(8)
    alone = codecs.decode(codecs.encode([NORMAL], codec, seed=5))
    beside = codecs.decode(codecs.encode([NORMAL, NORMAL.astype(np.float64)], codec, seed=5))
    assert same_bits(alone[0], beside[0])


def test_jax_configuration_changes_nothing():
    """The bytes are the same where a program has switched JAX to 64 bits for all it does."""
    codec = codecs.uniform_quantization(8)
    here = codecs.encode([NORMAL, np.int32(3)], codecs.identity()), codecs.encode(NORMAL, codec, seed=5)
    with jax.enable_x64(True):
        assert codecs.encode([NORMAL, np.int32(3)], codecs.identity()) == here[0]
        assert codecs.encode(NORMAL, codec, seed=5) == here[1]
        assert codecs.decode(here[1]).dtype == np.float32


@pytest.mark.parametrize("bits", [0, 17, -1, 2**70])
def test_bits_out_of_range(bits):
    """Bits are 1 to 16."""
    with pytest.raises(ArgumentError, match=rf"bits must lie in 1\.\.16, got {bits}"):
        codecs.uniform_quantization(bits)


@pytest.mark.parametrize("bits", [1.5, True, "8", None, 8.0])
def test_bits_of_the_wrong_kind(bits):
    """Bits are a whole number."""
    with pytest.raises(ArgumentTypeError, match="bits must be a whole number from 1 to 16, got"):
        UniformQuantizer(bits)


@pytest.mark.parametrize(
    "value_range", [(1, 1), (2, 1), (float("nan"), 1), (0, float("inf")), (float("-inf"), float("inf"))]
)
def test_value_ranges_that_are_none(value_range):
    """A range is finite, and its low below its high."""
    with pytest.raises(ArgumentError, match="value_range must be finite with low < high, got"):
        codecs.uniform_quantization(8, value_range=value_range)


@pytest.mark.parametrize("value_range", [3, (1,), (1, 2, 3), "12", ("0", "1"), (None, 1), (1j, 2)])
def test_value_ranges_of_the_wrong_kind(value_range):
    """A range is a pair of numbers."""
    with pytest.raises(ArgumentTypeError, match=r"value_range must be a pair of numbers \(low, high\), got"):
        codecs.uniform_quantization(8, value_range=value_range)


@pytest.mark.parametrize("value_range", [(0, 1e300), (1, 1 + 1e-12), (-1e39, 0)])
def test_value_ranges_beyond_the_precision(value_range):
    """A range that float32 cannot tell from infinity or from a point is refused for float32, not for float64."""
    codec = codecs.uniform_quantization(8, value_range=value_range)
    with pytest.raises(ArgumentError, match=r"in the precision of w, float32\[3\]; it must be finite with low < high"):
        codecs.bind(codec, {"w": np.zeros(3, np.float32)})
    codecs.bind(codec, {"w": np.zeros(3, np.float64)})


@pytest.mark.parametrize("stochastic", [1, "yes", None])
def test_stochastic_of_the_wrong_kind(stochastic):
    """Rounding is stochastic or it is not."""
    with pytest.raises(ArgumentTypeError, match="stochastic must be True or False, got"):
        UniformQuantizer(stochastic=stochastic)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.bool_])
def test_integers_are_refused(dtype):
    """Integers are not quantized; the error names the tensor."""
    with pytest.raises(ArgumentTypeError, match=r"^steps is .*, but uniform quantization takes floating-point arrays"):
        codecs.encode({"steps": np.zeros(3, dtype)}, codecs.uniform_quantization(8), seed=0)

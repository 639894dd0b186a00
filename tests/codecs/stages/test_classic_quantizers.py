"""QSGD, TernGrad, signs, natural compression and casts keep the promises of their papers."""

import math

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from unbiasedness_support import (
    ADVERSARIAL,
    LARGEST_T,
    SIZE,
    encoded,
    errors_over_seeds,
    mean_squared_error,
    reproduced,
    t_statistics,
)

from laconic.codecs import TensorSpec
from laconic.codecs.stages._classic_quantizers import Cast, Natural, Qsgd, Sign, Ternary
from laconic.codecs.stages._gaussian import stochastic_rounding_nmse, ternary_nmse
from laconic.errors import ArgumentError, ArgumentTypeError
from laconic.testing import check_stage

UNBIASED = (Cast("bfloat16", stochastic=True), Qsgd(1, 24), Qsgd(127, None), Ternary(), Natural())
FEW_INPUTS = {name: ADVERSARIAL[name][:27] for name in ("normal", "spike", "alternating", "zero")}


@pytest.mark.parametrize("stage", [UNBIASED[0], Qsgd(4, 10), Ternary(2.5), Sign(), Natural()], ids=str)
def test_stages_keep_the_interface(stage):
    """The test kit finds nothing: purity, sizes, flags, bias over 1,024 keys, sums, wire."""
    check_stage(stage, inputs=FEW_INPUTS, seeds=1024, other_process=False)


@pytest.mark.parametrize("name", ADVERSARIAL)
@pytest.mark.parametrize("stage", UNBIASED, ids=str)
def test_unbiased_stages_are(stage, name):
    """Over 400 keys no t statistic of the error exceeds what one unbiased stage in a million shows."""
    assert stage.is_unbiased
    x = ADVERSARIAL[name]
    errors = errors_over_seeds(stage, x)
    assert np.isfinite(errors).all()
    assert t_statistics(errors, x).max() < LARGEST_T


@pytest.mark.parametrize("stage", [Ternary(1.0), Sign()], ids=str)
def test_the_t_test_sees_a_bias(stage):
    """Clipping and deterministic signs are not called unbiased, and are not."""
    assert not stage.is_unbiased
    x = ADVERSARIAL["normal"]
    assert t_statistics(errors_over_seeds(stage, x), x).max() > 10


# QSGD.


def test_qsgd_is_the_papers_formula():
    """Codes are the floor of levels |x_i| / norm or one more, of x_i's sign, and norms are those of the buckets."""
    x, stage = ADVERSARIAL["normal"], Qsgd(5, 24)
    codes, norms = encoded(stage, x).values()
    expected = [np.linalg.norm(x[start : start + 24].astype(np.float64)) for start in (0, 24, 48)]
    np.testing.assert_allclose(norms, expected, rtol=1e-6)
    y = 5 * np.abs(x) / np.repeat(expected, 24)[:SIZE]
    assert set(np.abs(codes) - np.floor(y)) == {0, 1}
    assert (codes * x >= 0).all()
    np.testing.assert_allclose(reproduced(stage, x), codes * np.repeat(norms, 24)[:SIZE] / 5, rtol=1e-6)


@pytest.mark.parametrize(("levels", "bucket"), [(1, 16), (4, None), (127, 64)])
def test_qsgd_error_is_that_of_rounding(levels, bucket):
    """The expected squared error is the sum of f (1 - f) (norm / levels)^2."""
    x = ADVERSARIAL["heavy tails"]
    buckets = x.reshape(-1, bucket or SIZE).astype(np.float64)
    step = np.linalg.norm(buckets, axis=1, keepdims=True) / levels
    fraction = np.abs(buckets) / step % 1
    expected = (fraction * (1 - fraction) * step**2).sum() / (buckets**2).sum()
    assert mean_squared_error(Qsgd(levels, bucket), x) == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("scale", [1e-36, 1e-30, 1e18, 1e30, 3.4e38])
def test_qsgd_norms_neither_overflow_nor_underflow(scale):
    """Norms of entries of any scale are right, or the largest float where that is what they exceed."""
    x = np.full(30, scale, np.float32)
    norms = encoded(Qsgd(3, 10), x)["norms"].astype(np.float64)
    expected = np.minimum(float(x[0]) * math.sqrt(10), float(np.finfo(np.float32).max))
    np.testing.assert_allclose(norms, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_qsgd_at_the_end_of_other_dtypes(dtype):
    """Entries as large as the dtype has them come back finite, and exact where they are all of a bucket."""
    largest = float(jnp.finfo(dtype).max)
    with jax.enable_x64(True):
        x = np.array([largest, -largest, largest / 3, 0.0] * 4).astype(dtype)
        assert np.isfinite(reproduced(Qsgd(3, 4), x).astype(np.float64)).all()
        alone = reproduced(Qsgd(7, 1), x)
    np.testing.assert_array_equal(alone, x)


def test_buckets_are_no_larger_than_the_tensor():
    """A bucket of 2^31 - 1 entries takes no room for those that are not there."""
    x = ADVERSARIAL["normal"]
    for large, whole in zip(encoded(Qsgd(4, 2**31 - 1), x).values(), encoded(Qsgd(4, None), x).values(), strict=True):
        np.testing.assert_array_equal(large, whole)


def test_qsgd_codes_fit():
    """Codes reach the number of levels where one entry is all of the norm, in 8 bits up to 127 levels, else in 16."""
    spike = np.eye(1, 8, 2, dtype=np.float32)[0] * -5
    for levels, dtype in ((127, np.int8), (128, np.int16), (32767, np.int16)):
        codes = encoded(Qsgd(levels, None), spike)["codes"]
        assert codes.dtype == dtype
        assert codes.tolist() == [0, 0, -levels, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(("levels", "nmse"), [(1, 8.03), (7, 0.435), (15, 0.0948), (127, 0.00132)])
def test_qsgd_expected_error_of_gaussian_buckets(levels, nmse):
    """Theory's figures for buckets of 128."""
    assert Qsgd(levels).expected_nmse(2**20) == pytest.approx(nmse, rel=0.005)


@pytest.mark.parametrize(("size", "levels"), [(2, 1), (5, 3), (300, 4)])
def test_expected_rounding_error_on_the_sphere(size, levels):
    """The integral over one coordinate is the average over random directions."""
    x = np.random.default_rng(5).standard_normal((200_000 // size, size))
    y = levels * np.abs(x) / np.linalg.norm(x, axis=1, keepdims=True) % 1
    simulated = (y * (1 - y)).sum(axis=1).mean() / levels**2
    assert stochastic_rounding_nmse(size, levels) == pytest.approx(simulated, rel=0.03)


def test_expected_error_of_uneven_buckets():
    """A last, shorter bucket counts for its share, and one of a single entry has no error."""
    whole, stage = stochastic_rounding_nmse(10, 4), Qsgd(4, 10)
    assert stage.expected_nmse(31) == pytest.approx(whole * 30 / 31)
    assert [stage.expected_nmse(size) for size in (0, 1, 11)] == [0, 0, pytest.approx(whole * 10 / 11)]
    assert stage.expected_nmse(7) == stochastic_rounding_nmse(7, 4)


# TernGrad.


def test_ternary_is_the_papers_formula():
    """Codes are zero or x_i's sign, the scale is the largest magnitude, which always gets its sign."""
    x = ADVERSARIAL["normal"]
    codes, scale = encoded(Ternary(), x).values()
    assert scale == np.abs(x).max()
    assert np.isin(codes * np.sign(x), (0, 1)).all()
    assert codes[np.abs(x).argmax()] == np.sign(x[np.abs(x).argmax()])
    assert mean_squared_error(Ternary(), x) == pytest.approx(
        np.abs(x).max() * np.abs(x).sum() / (x**2).sum() - 1, rel=0.1
    )


def test_ternary_clips_at_root_mean_squares():
    """With clip=1.5 the scale is 1.5 root mean squares, what lies beyond always gets its sign, and nothing grows."""
    x = ADVERSARIAL["normal"] * np.float32(1e-30)
    codes, scale = encoded(Ternary(1.5), x).values()
    bound = 1.5 * np.sqrt(((x / 1e-30) ** 2).mean())
    assert scale / np.float32(1e-30) == pytest.approx(bound, rel=1e-5)
    beyond = np.abs(x / 1e-30) >= bound * 1.001
    assert beyond.any()
    np.testing.assert_array_equal(codes[beyond], np.sign(x[beyond]))
    assert encoded(Ternary(100.0), x)["scale"] == np.abs(x).max()


def test_ternary_does_not_clip_a_constant():
    """Equal entries, which have no standard deviation, come back as they are."""
    x = np.full(9, -0.3, np.float32)
    np.testing.assert_allclose(reproduced(Ternary(2.5), x), x, rtol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 10, 1000])
def test_expected_ternary_error(size):
    """The integral over the largest magnitude is the average over Gaussian vectors."""
    x = np.abs(np.random.default_rng(2).standard_normal((1_000_000 // size // 4 + 1, size)))
    simulated = (x.max(axis=1) * x.sum(axis=1) / (x**2).sum(axis=1)).mean() - 1
    assert ternary_nmse(size) == pytest.approx(simulated, rel=0.03, abs=1e-6)


def test_expected_clipped_ternary_error():
    """With clipping theory speaks for long vectors only."""
    assert Ternary(2.5).expected_nmse(2**20) == pytest.approx(1.01, abs=0.01)
    assert Ternary(2.5).expected_nmse(10) is None
    assert Ternary().expected_nmse(0) == 0


# Signs.


def test_sign_error_is_the_least_of_all_scales():
    """The scale is the mean magnitude, and the error |x|^2 - |x|_1^2 / n, zeros included."""
    x = np.concatenate([ADVERSARIAL["heavy tails"], np.zeros(5, np.float32)])
    codes, scale = encoded(Sign(), x).values()
    np.testing.assert_array_equal(codes, x >= 0)
    assert scale[0] == pytest.approx(np.abs(x).mean(), rel=1e-6)
    error = ((reproduced(Sign(), x).astype(np.float64) - x) ** 2).sum()
    assert error == pytest.approx((x.astype(np.float64) ** 2).sum() - np.abs(x).sum() ** 2 / x.size, rel=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e30, 3e38])
def test_sign_scale_does_not_overflow(scale):
    """The mean magnitude of a million huge entries is finite, that of tiny ones not zero."""
    x = np.full(10**6, scale, np.float32)
    np.testing.assert_allclose(encoded(Sign(), x)["scale"], x[:1], rtol=1e-5)


def test_expected_sign_error():
    """1 - 2 / pi for long vectors, times (n - 1) / n for all."""
    assert Sign().expected_nmse(2**20) == pytest.approx(1 - 2 / math.pi, rel=1e-5)
    x = np.random.default_rng(0).standard_normal((20_000, 4))
    simulated = 1 - (np.abs(x).sum(axis=1) ** 2 / 4 / (x**2).sum(axis=1)).mean()
    assert Sign().expected_nmse(4) == pytest.approx(simulated, rel=0.02)
    assert [Sign().expected_nmse(size) for size in (0, 1)] == [0, 0]


# Natural compression.


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_natural_rounds_to_the_powers_around(dtype):
    """Each entry becomes one of the two powers of two around it; powers of two and zeros stay."""
    with jax.enable_x64(True):
        x = np.array([0.0, -0.0, 1.0, -2.0, 1.3, -0.7, 3.99, 1e-4, -6e-6, 1000.0, 2.0**-14]).astype(dtype)
        decoded = reproduced(Natural(), x).astype(np.float64)
    wide = x.astype(np.float64)
    low = np.where(wide == 0, 0, 2.0 ** np.floor(np.log2(np.where(wide == 0, 1, np.abs(wide)))))
    assert (np.sign(decoded) == np.sign(wide)).all()
    assert np.isin(np.abs(decoded) / np.where(low > 0, low, 1), (0, 1, 2)).all()
    exact = np.array([0, 1, 2, 3, 10])
    np.testing.assert_array_equal(decoded[exact], wide[exact])


def test_natural_probabilities():
    """2^e (1 + m) is rounded up with probability m."""
    x = np.array([1.0, 1.125, 1.5, 1.875], np.float32) * np.float32(2.0**-90)
    up = (errors_over_seeds(Natural(), x, 4000) > 0).mean(axis=0)
    np.testing.assert_allclose(up, [0, 0.125, 0.5, 0.875], atol=0.03)


def test_natural_error_bound():
    """At most an eighth of |x|^2 for every input, reached at 4/3 of a power of two; 0.082 on average over scales."""
    x = np.full(SIZE, 4 / 3, np.float32)
    assert mean_squared_error(Natural(), x) == pytest.approx(1 / 8, rel=0.05)
    for name in ("normal", "spike", "heavy tails"):
        assert mean_squared_error(Natural(), ADVERSARIAL[name]) < 1 / 8
    s = 2 ** ((np.arange(10**5) + 0.5) / 10**5)
    assert Natural().expected_nmse(100) == pytest.approx(((s - 1) * (2 - s) / s**2).mean(), rel=1e-6)


def test_natural_codes_count_down_from_the_largest_exponent():
    """Powers of two: the largest has the codes 1 and -1, the next 2 and -2, zero has 0."""
    codes, exponent = encoded(Natural(), np.float32([8, -8, 4, -2, 0, -0.0, 2.0**-126])).values()
    assert codes.tolist() == [1, -1, 2, -3, 0, 0, 130]
    assert exponent.tolist() == [127 + 3]


def test_natural_subnormal_numbers_are_unbiased():
    """Below 2^-126 a float32 becomes that or zero, with the right expectation."""
    x = np.full(SIZE, 2.0**-128, np.float32)
    codes = np.stack([encoded(Natural(), x, seed)["codes"] for seed in range(100)])
    assert (codes > 0).mean() == pytest.approx(1 / 4, abs=0.03)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_natural_range_ends_at_the_largest_power(dtype):
    """What could be rounded up beyond the dtype's end is out of range; the largest power of two is not."""
    power = 2.0 ** (jnp.finfo(dtype).maxexp - 1)
    at, above = (np.array([value]).astype(dtype) for value in (power, power * 1.5))
    assert Natural().is_in_range(jnp.asarray(at), {})
    assert not Natural().is_in_range(jnp.asarray(above), {})
    np.testing.assert_array_equal(reproduced(Natural(), at), at)


def test_natural_decodes_anything_to_finite_numbers():
    """Codes and exponents that no encoder sends stand for finite numbers."""
    codes = jnp.array([-32768, 32767, 1, -1, 0], jnp.int16)
    for exponent in (-32768, -1, 0, 254, 255, 32767):
        arrays = {"codes": codes, "exponent": jnp.array([exponent], jnp.int16)}
        x = Natural().decode(arrays, {}, num_summands=1, spec=TensorSpec("x", (5,), np.dtype(np.float32)))
        assert np.isfinite(x).all()


# Casts.


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_cast_is_numpys(dtype):
    """Rounding is to the nearest, half to even, as NumPy and ml_dtypes round."""
    x = np.concatenate([ADVERSARIAL["normal"], np.float32([1 + 2.0**-8, 1 + 3 * 2.0**-8, 0, -0.0])])
    values = encoded(Cast(dtype), x)["values"]
    assert values.dtype == np.dtype(getattr(ml_dtypes, dtype, dtype))
    np.testing.assert_array_equal(values, x.astype(values.dtype))


def test_cast_leaves_narrow_floats_alone():
    """A 16-bit float is not cast to another 16-bit one, nor to a wider one."""
    x = ADVERSARIAL["normal"].astype(np.float16)
    for stage in (Cast("bfloat16"), Cast("float32"), Cast("bfloat16", stochastic=True)):
        assert encoded(stage, x)["values"].dtype == np.float16
        np.testing.assert_array_equal(reproduced(stage, x), x)


def test_cast_expected_error():
    """For inputs of all scales, measured and expected error agree at 3 %."""
    x = np.exp(np.random.default_rng(0).uniform(-3, 3, 30_000)).astype(np.float32)
    x *= np.float32(2) ** -np.floor(np.log2(x))  # of one power of two, log-uniform within
    x = np.concatenate([x * 2**k for k in range(-3, 4)])
    for stage in (Cast("float16"), Cast("bfloat16"), Cast("bfloat16", stochastic=True)):
        relative = (reproduced(stage, x).astype(np.float64) - x) / x
        assert (relative**2).mean() == pytest.approx(stage.expected_nmse(1), rel=0.03)


def test_cast_range():
    """What would become infinite is out of range, by rounding to the nearest and at random."""
    assert Cast("float16").is_in_range(jnp.float32([65504, -65519]), {})
    assert not Cast("float16").is_in_range(jnp.float32([1, 65520]), {})
    end = float(jnp.finfo(jnp.bfloat16).max)
    beyond = np.nextafter(np.float32(end), np.float32(np.inf))
    assert Cast("bfloat16", stochastic=True).is_in_range(jnp.float32([end, -end]), {})
    assert not Cast("bfloat16", stochastic=True).is_in_range(jnp.asarray([beyond]), {})


def test_stochastic_cast_takes_a_neighbour():
    """It is x's neighbour below or above in bfloat16; x itself if it is one."""
    x = ADVERSARIAL["heavy tails"]
    bits = x.view(np.uint32)
    low = (bits & 0xFFFF0000).view(np.float32)
    high = ((bits & 0xFFFF0000) + 0x10000).view(np.float32)
    decoded = reproduced(Cast("bfloat16", stochastic=True), x)
    assert ((decoded == low) | (decoded == high)).all()
    np.testing.assert_array_equal(reproduced(Cast("bfloat16", stochastic=True), low), low)


# Arguments.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Qsgd(0), r"levels must lie in 1\.\.32767, got 0"),
        (lambda: Qsgd(32768), r"levels must lie in 1\.\.32767, got 32768"),
        (lambda: Qsgd(3, 0), r"bucket_size must lie in 1\.\."),
        (lambda: Ternary(0.0), "clip must be finite and above zero, got 0"),
        (lambda: Ternary(float("nan")), "clip must be finite and above zero"),
        (lambda: Cast("float8"), "dtype must be one of 'float16', 'bfloat16', 'float32', got 'float8'"),
        (lambda: Cast("float16", stochastic=True), "a stochastic cast is to 'bfloat16'"),
    ],
)
def test_arguments_out_of_range(make, message):
    """Values outside their range are refused by name."""
    with pytest.raises(ArgumentError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Qsgd(3.0), "levels must be a whole number, got 3.0"),
        (lambda: Qsgd(True), "levels must be a whole number, got True"),
        (lambda: Qsgd(3, "all"), "bucket_size must be a whole number, got 'all'"),
        (lambda: Ternary("2.5"), "clip must be a number, got '2.5'"),
        (lambda: Cast("bfloat16", stochastic=1), "stochastic must be True or False, got 1"),
    ],
)
def test_arguments_of_the_wrong_kind(make, message):
    """Arguments of another type are refused by name."""
    with pytest.raises(ArgumentTypeError, match=message):
        make()


@pytest.mark.parametrize("stage", [Cast("float16"), Qsgd(), Ternary(), Sign(), Natural()], ids=str)
def test_integers_are_refused(stage):
    """Integers are not quantized; the error names the tensor."""
    with pytest.raises(ArgumentTypeError, match=r"^steps is int32\[3\], but \w+ takes floating-point arrays"):
        stage.check(TensorSpec("steps", (3,), np.dtype(np.int32)))


def test_stochastic_cast_refuses_doubles():
    """A double would have to be rounded twice."""
    with pytest.raises(ArgumentTypeError, match="but a stochastic cast takes up to 32 bits"):
        Cast("bfloat16", stochastic=True).check(TensorSpec("w", (3,), np.dtype(np.float64)))

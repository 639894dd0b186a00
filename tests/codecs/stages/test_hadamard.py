"""The block Hadamard transform: its matrix, its signs, its sums, and what comes after it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from codec_support import gathered
from unbiasedness_support import ADVERSARIAL, LARGEST_T, t_statistics

from laconic import codecs
from laconic.codecs import Hadamard, RandomHadamard, TensorSpec, random
from laconic.codecs.stages._hadamard import MAX_BLOCK, negate, num_sign_words, rotate, rotate_back, sylvester, transform
from laconic.errors import ArgumentError, ArgumentTypeError

STAGES = [Hadamard(seed=5, max_block=32), RandomHadamard()]


def blocks_of(size, max_block):
    """The binary expansion of a length, the largest power repeated."""
    blocks = [max_block] * (size // max_block)
    rest = size % max_block
    return blocks + [1 << bit for bit in reversed(range(rest.bit_length())) if rest >> bit & 1]


def dense(size, max_block):
    """The transform as a matrix: Sylvester's H_2m = [[H_m, H_m], [H_m, -H_m]] in each block."""
    matrix = np.zeros((size, size))
    start = 0
    for block in blocks_of(size, max_block):
        h = np.ones((1, 1))
        while len(h) < block:
            h = np.kron([[1, 1], [1, -1]], h)
        matrix[start : start + block, start : start + block] = h / np.sqrt(block)
        start += block
    return matrix


@functools.cache
def compiled(stage, shape, dtype):
    """Encoding and decoding of arrays of one shape."""
    spec = TensorSpec("x", shape, dtype)

    def encode_and_decode(key, x):
        encoded = stage.encode(key, x, {})
        arrays = encoded | stage.regenerate(key, spec)
        return encoded["values"], stage.decode(arrays, {}, num_summands=1, spec=spec)

    return jax.jit(encode_and_decode)


def through(stage, x, seed=3):
    """The coefficients of one encoding, and what they decode to."""
    return tuple(map(np.asarray, compiled(stage, x.shape, np.dtype(x.dtype))(random.key(seed), x)))


@functools.cache
def quantized():
    """Hadamard and 2-bit stochastic rounding of vectors under many keys, compiled."""
    rounding = codecs.UniformQuantizer(2)

    def decoded(key, x):
        y = Hadamard().encode(key, x, {})["values"]
        codes = rounding.encode(key, y, {})
        spec = TensorSpec("y", y.shape, np.dtype(np.float32))
        y = rounding.decode(codes, {}, num_summands=1, spec=spec)
        return Hadamard().decode({"values": y}, {}, num_summands=1, spec=spec)

    return jax.jit(jax.vmap(decoded, (0, None)))


@pytest.mark.parametrize("size", [0, 1, 31, 32, 127, 1000])
@pytest.mark.parametrize("max_block", [32, 256])
def test_the_transform_is_sylvesters_matrix_in_each_block(size, max_block):
    """Every length, cut into powers of two, gives what the dense matrix gives, without padding."""
    x = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    y = jax.jit(transform, static_argnums=1)(x, max_block)
    assert y.shape == x.shape
    np.testing.assert_allclose(y, dense(size, max_block) @ x, atol=2e-6)


def test_the_matrix_product_is_sylvesters_too():
    """The 32 x 32 matrix is symmetric and orthonormal."""
    matrix = sylvester(32)
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_allclose(matrix @ matrix, np.eye(32), atol=1e-12)


@pytest.mark.parametrize(("size", "max_block"), [(0, 32), (1, 32), (77, 32), (3000, 512), (40_000, 2**15)])
def test_it_is_orthonormal_and_undone(size, max_block):
    """Norms are kept, and turning back gives the vector up to rounding."""
    x = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    words = random.bits(random.key(0), num_sign_words(size))
    y = jax.jit(rotate, static_argnums=2)(x, words, max_block)
    assert np.linalg.norm(y) == pytest.approx(np.linalg.norm(x), rel=1e-5)
    np.testing.assert_allclose(jax.jit(rotate_back, static_argnums=2)(y, words, max_block), x, atol=3e-6)


def test_the_tutorials_dense_layer_is_not_padded():
    """1,605,632 entries are 49 blocks of 2^15, and stay as many; a power of two would be 31 % more."""
    x = jax.ShapeDtypeStruct((3136, 512), np.float32)
    encoded = jax.eval_shape(lambda x: Hadamard().encode(random.key(0), x, {})["values"], x)
    assert encoded.shape == (49 * MAX_BLOCK,) == (1_605_632,)


@pytest.mark.parametrize("size", [1, 32, 1000])
def test_signs_are_bits_as_documented(size):
    """Entry i < 32 w has bit i // w of word i % w with w = n // 32, and entry 32 w + j bit j of word w."""
    words = np.asarray(random.bits(random.key(9), num_sign_words(size)))
    width = size // 32
    bits = [
        words[i % width] >> (i // width) if i < 32 * width else words[width] >> (i - 32 * width) for i in range(size)
    ]
    expected = np.where(np.array(bits) & 1, -1.0, 1.0)
    np.testing.assert_array_equal(negate(jnp.ones(size), jnp.asarray(words)), expected)


@pytest.mark.parametrize("stage", STAGES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (2, 3, 20)])
def test_shapes_come_back(stage, shape):
    """Any shape goes to one dimension and back."""
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    values, decoded = through(stage, x)
    assert values.shape == (x.size,)
    assert decoded.shape == shape
    np.testing.assert_allclose(decoded, x, atol=2e-6)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float64], ids=["float16", "bfloat16", "float64"])
def test_dtypes(dtype):
    """Half precisions are computed in float32 and come back bit for bit; float64 in its own precision."""
    x = np.random.default_rng(0).standard_normal(300).astype(dtype)
    with jax.enable_x64(dtype == np.float64):
        values, decoded = through(Hadamard(), x)
    assert decoded.dtype == x.dtype
    if dtype == np.float64:
        np.testing.assert_allclose(decoded, x, atol=1e-14)
    else:
        assert values.dtype == np.float32
        np.testing.assert_array_equal(decoded, x)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scales(scale):
    """Tiny and huge values neither vanish nor overflow."""
    x = np.random.default_rng(0).standard_normal(1000) * scale
    _, decoded = through(Hadamard(), x.astype(np.float32))
    np.testing.assert_allclose(decoded / scale, x / scale, atol=3e-6)


def test_a_spike_is_spread_evenly():
    """One entry becomes a block of entries of one magnitude: nothing is left for outliers to stretch."""
    values, _ = through(Hadamard(), np.eye(1, 1024, 17, dtype=np.float32)[0] * 32)
    np.testing.assert_allclose(np.abs(values), 1, rtol=1e-6)


def test_signs_come_from_the_seed_or_from_the_key():
    """A seed gives everyone the same signs, another seed others; drawn signs differ from key to key."""
    x = np.ones(100, np.float32)
    first, again, other = (
        through(stage, x, key)[0] for stage, key in [(Hadamard(), 1), (Hadamard(), 2), (Hadamard(1), 1)]
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    drawn, redrawn = (through(RandomHadamard(), x, key)[0] for key in (1, 2))
    assert not np.array_equal(drawn, redrawn)
    assert len(codecs.encode(x, codecs.chain(RandomHadamard()), seed=0)) > len(
        codecs.encode(x, codecs.chain(Hadamard()))
    )


def test_encodings_of_one_seed_are_added():
    """The sum of 20 clients' codes, never decoded one by one, decodes to the sum of what each decodes to."""
    xs = [np.random.default_rng(client).uniform(-0.1, 0.1, 333).astype(np.float32) for client in range(20)]
    codec = codecs.chain(Hadamard(), codecs.UniformQuantizer(8, value_range=(-1.0, 1.0), stochastic=False))
    assert codec.commutes_with_sum
    assert not codecs.chain(RandomHadamard()).commutes_with_sum
    bound = codecs.bind(codec, xs[0])
    contribution = bound.read_contribution(bound.encode_contribution(xs[0]).blob)
    assert contribution.summands[0].dtype == np.uint8
    one_by_one = sum(np.asarray(bound.decode(bound.encode(x)[0]), np.float64) for x in xs)
    np.testing.assert_allclose(gathered(bound, xs)[0], one_by_one, atol=2e-5)


@pytest.mark.parametrize("name", [name for name in ADVERSARIAL if name not in ("zero", "near the end")])
def test_quantized_coefficients_stay_unbiased(name):
    """Stochastic rounding between a transform and its inverse is unbiased for the vector: a t-test over 400 keys."""
    x = ADVERSARIAL[name]
    codec = codecs.hadamard_quantization(2)
    assert codec.is_unbiased
    assert not codecs.hadamard_quantization(2, stochastic=False).is_unbiased

    values = quantized()(random.derive_each(random.key(0), 400), x)
    scale = np.abs(x).max()
    errors = np.asarray(values, np.float64) / scale - x.astype(np.float64) / scale
    assert t_statistics(errors, x).max() < LARGEST_T


@pytest.mark.parametrize("bits", [1, 4])
def test_error_of_hadamard_quantization(bits):
    """For any input the error is that of Gaussian blocks: step^2 E f (1 - f), here of one heavy-tailed vector."""
    x = np.random.default_rng(0).standard_t(4, 2**17).astype(np.float32)
    codec = codecs.hadamard_quantization(bits)
    blob = codecs.encode(x, codec, seed=0)
    nmse = np.sum((codecs.decode(blob) - x) ** 2) / np.sum(x**2)
    # Of 2^13 entries the range is +-3.8 standard deviations, give or take 0.4; high rates have step^2 / 6.
    expected = {1: 13.0, 4: 0.0425}[bits]
    assert nmse == pytest.approx(expected, rel=0.15)
    assert len(blob) < x.size * bits / 8 + 400


def test_refusals():
    """Integers, blocks that are no power of two, bad seeds, and values whose coefficients would overflow."""
    with pytest.raises(ArgumentTypeError, match="hadamard takes floating-point"):
        codecs.bind(codecs.chain(Hadamard()), np.zeros(3, np.int32))
    for bad in (0, 16, 48, 2**25):
        with pytest.raises(ArgumentError, match=rf"max_block must be a power of two in 32\.\.16777216, got {bad}"):
            Hadamard(max_block=bad)
    with pytest.raises(ArgumentTypeError, match=r"max_block must be an integer, got 64\.0"):
        RandomHadamard(max_block=64.0)
    with pytest.raises(ArgumentError, match=r"seed must lie in 0\.\.2\*\*63-1, got -1"):
        Hadamard(-1)
    with pytest.raises(ArgumentTypeError, match="seed must be an integer, got None"):
        codecs.hadamard_quantization(8, seed=None)
    with pytest.raises(ArgumentError, match="range"):
        codecs.encode(np.full(1000, 3e38, np.float32), codecs.hadamard_quantization(8), seed=0)


def test_codecs_say_what_they_are():
    """The transform is linear and errs by rounding alone, so that a codec is as unbiased as what comes after it."""
    codec = codecs.chain(Hadamard(), codecs.Dithered(nmse=0.1))
    assert codec.is_unbiased
    assert not codec.is_lossless
    assert codec.expected_nmse(1000) == pytest.approx(0.1)
    assert not codecs.chain(Hadamard(), codecs.LloydMax(2)).is_unbiased

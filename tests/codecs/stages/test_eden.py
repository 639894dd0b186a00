"""EDEN at any rate: error, bias and what averages out; Lloyd-Max and DRIVE beside it."""

import functools
import math
import zlib

import jax
import numpy as np
import pytest
from codec_support import gathered
from unbiasedness_support import ADVERSARIAL, LARGEST_T, encoded, errors_over_seeds, reproduced, t_statistics

from laconic import codecs
from laconic.codecs import Eden, EdenUniform, LloydMax, TensorSpec, random
from laconic.codecs.stages._codebooks import centroids, distortion, uniform_step
from laconic.codecs.stages._hadamard import sylvester
from laconic.codecs.stages._rotation import Rotation
from laconic.errors import ArgumentError, ArgumentTypeError, DecodeError

GAUSSIAN = np.random.default_rng(0).standard_normal(2**15).astype(np.float32)
HARD = {name: x for name, x in ADVERSARIAL.items() if name not in ("zero", "near the end")}
HARD["two"] = np.eye(1, 64, 3, dtype=np.float32)[0] * 3 + np.eye(1, 64, 40, dtype=np.float32)[0]


@functools.cache
def bound(codec, size):
    """The codec compiled for vectors of one size."""
    return codecs.bind(codec, np.zeros(size, np.float32))


def decoded(x, codec, seed=0):
    """Through bytes and back; also the number of bytes."""
    payload, _ = bound(codec, x.size).encode(x, key=random.key(seed))
    return np.asarray(bound(codec, x.size).decode(payload.blob)), len(payload.blob)


def outputs(stage, size):
    """Shapes and dtypes of what a vector is encoded to."""
    x = jax.ShapeDtypeStruct((size,), np.float32)
    return jax.eval_shape(lambda x: stage.encode(random.key(0), x, {}), x)


def nmse(x, y):
    """|y - x|^2 / |x|^2."""
    x = x.astype(np.float64)
    return np.sum((y - x) ** 2) / np.sum(x**2)


@pytest.mark.parametrize(("bits", "expected"), [(0.1, 14.708), (0.5, 2.1416), (1.5, 0.31654), (3, 0.035784)])
def test_error_and_size(bits, expected):
    """The error is D / (1 - D), and a payload has `bits` per entry, a scale, a key and the frame."""
    codec = codecs.eden(bits)
    y, nbytes = decoded(GAUSSIAN, codec)
    # A fraction's count of codes is rounded to whole codes, and bits to whole bytes.
    assert nbytes == pytest.approx(GAUSSIAN.size * bits / 8 + 4 + 8 + 8, abs=2)
    assert nmse(GAUSSIAN, y) == pytest.approx(expected, rel=0.04 if bits >= 0.5 else 0.1)
    assert codec.expected_nmse(GAUSSIAN.size) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("bits", "expected"), [(0.1, 9.931), (1, 0.5345), (4, 0.0055908)])
def test_error_and_size_of_entropy_coding(bits, expected):
    """With an entropy coder the rate is the entropy of uniform cells, within 2 % and a hundred bytes."""
    codec = codecs.eden(bits, entropy_coded=True)
    y, nbytes = decoded(GAUSSIAN, codec)
    assert nbytes <= GAUSSIAN.size * bits / 8 * 1.02 + 100
    assert nmse(GAUSSIAN, y) == pytest.approx(expected, rel=0.08)
    assert codec.expected_nmse(GAUSSIAN.size) == pytest.approx(expected, rel=1e-3)
    # It beats the fixed width at equal rate.
    assert codec.expected_nmse(GAUSSIAN.size) < codecs.eden(bits).expected_nmse(GAUSSIAN.size)


@pytest.mark.parametrize("bits", [0.25, 2])
def test_the_closest_scale_has_less_error_and_a_bias(bits):
    """Not unbiased, the error is D, and what is decoded is too short by that share."""
    codec = codecs.eden(bits, unbiased=False)
    assert not codec.is_unbiased
    expected = codec.expected_nmse(GAUSSIAN.size)
    y, _ = decoded(GAUSSIAN, codec)
    assert nmse(GAUSSIAN, y) == pytest.approx(expected, rel=0.04)
    assert y @ GAUSSIAN / (GAUSSIAN @ GAUSSIAN) == pytest.approx(1 - expected, rel=0.02)
    assert expected == pytest.approx(1 - 1 / (1 + codecs.eden(bits).expected_nmse(GAUSSIAN.size)))


@pytest.mark.parametrize("stage", [Eden(1), Eden(0.3), Eden(2.5), EdenUniform(1.0), EdenUniform(5.0)], ids=str)
@pytest.mark.parametrize("name", HARD)
def test_it_is_unbiased(stage, name):
    """A t-test over 400 keys finds no bias on any input; two entries and a spike defeat a single rotation."""
    assert stage.is_unbiased
    errors = errors_over_seeds(stage, HARD[name])
    assert t_statistics(errors, HARD[name]).max() < LARGEST_T


@pytest.mark.parametrize("size", [1, 2, 5, 1024 + 5])
def test_it_is_unbiased_at_other_sizes(size):
    """Single entries, pairs, and a Hadamard block with a rest: the same t-test."""
    for x in (np.eye(1, size, size - 1)[0] * 100 + np.linspace(0, 1, size), np.full(size, -0.3)):
        errors = errors_over_seeds(Eden(1), x.astype(np.float32))
        assert t_statistics(errors, x.astype(np.float32)).max() < LARGEST_T


def test_one_hadamard_round_would_be_biased():
    """Why there are more: signs of one randomized Hadamard transform of (3, 1, 0, ...) never show the smaller entry."""
    x = np.zeros(64)
    x[3], x[40] = 3, 1
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (2000, 64))
    y = (signs * x) @ sylvester(64)
    scale = (x @ x) / np.abs(y).sum(axis=1, keepdims=True)
    estimates = scale * np.sign(y) @ sylvester(64) * signs
    bias = estimates.mean(axis=0) - x
    assert np.linalg.norm(bias) > 0.3 * np.linalg.norm(x)
    estimates = errors_over_seeds(Eden(1), HARD["two"], 2000)
    assert np.linalg.norm(estimates.mean(axis=0)) * 3 < 0.06 * np.linalg.norm(x)


def test_rotations_of_their_own_make_clients_average_out():
    """With a key for each of 64 clients the mean of equal vectors errs by 1 / 64; with one for all, by all of it."""
    x, spec = GAUSSIAN[:2048], TensorSpec("x", (2048,), np.dtype(np.float32))
    stage = Eden(1)

    def reproduce(key):
        encoded = stage.encode(key, x, {})
        return stage.decode(encoded | stage.regenerate(key, spec), {}, num_summands=1, spec=spec)

    reproduce = jax.jit(jax.vmap(reproduce))
    own = np.asarray(reproduce(random.derive_each(random.key(0), 64)))
    shared = np.asarray(reproduce(np.tile(random.key(0), (64, 1))))
    assert nmse(x, own.mean(axis=0)) == pytest.approx(0.5708 / 64, rel=0.1)
    assert nmse(x, shared.mean(axis=0)) == pytest.approx(0.5708, rel=0.1)


def test_a_server_averages_contributions():
    """Through bytes, each with its own key: the mean of 30 clients errs by a thirtieth of what one does."""
    xs = [np.random.default_rng(client).standard_normal(3000).astype(np.float32) for client in range(30)]
    codec = codecs.drive()
    assert not codec.commutes_with_sum
    total, _ = gathered(bound(codec, 3000), xs)
    error = np.sum((np.asarray(total) - np.sum(xs, axis=0)) ** 2) / np.sum([x @ x for x in xs])
    assert error == pytest.approx(0.5708, rel=0.05)


def test_drive_is_signs_with_a_scale():
    """The decoded vector, rotated, has entries of one magnitude, |y|^2 / |y|_1, and the signs of the rotated input."""
    x, key = GAUSSIAN[:4096], random.key(5)
    spec = TensorSpec("x", x.shape, np.dtype(np.float32))
    stage = Eden(1)
    arrays = stage.encode(key, x, {}) | stage.regenerate(key, spec)
    rotation = Rotation(4096)
    rotate = jax.jit(rotation.rotate)
    y = np.asarray(rotate(jax.numpy.asarray(x), arrays["words"]), np.float64)
    y_hat = np.asarray(rotate(stage.decode(arrays, {}, num_summands=1, spec=spec), arrays["words"]), np.float64)
    np.testing.assert_allclose(y_hat, np.sign(y) * (y @ y) / np.abs(y).sum(), atol=2e-5)
    assert str(codecs.drive()) == str(codecs.eden(1))


@pytest.mark.parametrize("codec", [codecs.eden(0.3), codecs.eden(2, entropy_coded=True)], ids=str)
def test_scales(codec):
    """Tiny and huge vectors are decoded like others, zeros to zeros, also where a zero block lies beside others."""
    x = GAUSSIAN[:1500].copy()
    expected, _ = decoded(x, codec)
    for scale in (2.0**-100, 2.0**100):
        y, _ = decoded(x * np.float32(scale), codec)
        np.testing.assert_allclose(y / scale, expected, rtol=1e-4, atol=1e-5)
    assert not decoded(np.zeros(1500, np.float32), codec)[0].any()
    x[:1024] = 0
    y, _ = decoded(x, codec)
    assert not y[:1024].any()
    assert y[1024:].any()


def test_few_codes_of_a_block_are_not_too_few():
    """However low the rate, a block has 16 codes, or the estimate of its size would vary without bound."""
    shapes = {name: output.shape for name, output in outputs(Eden(0.01), 1100).items()}
    assert shapes == {"codes": (16 + 16,), "rest": (0,), "scales": (2,)}
    assert outputs(Eden(0.01), 3)["codes"].shape == (3,)


def test_a_block_of_zero_codes_is_avoided():
    """With cells far wider than any entry the largest one of a block is sent, so that nothing decodes to zero."""
    codes = encoded(EdenUniform(8.0), GAUSSIAN[:1030])["codes"]
    assert np.count_nonzero(codes[:1024]) == np.count_nonzero(codes[1024:]) == 1


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_lloyd_max(bits):
    """Codes are of the centroids next to x sqrt(d) / |x|, the error is D, and the scale is of least squares."""
    y, nbytes = decoded(GAUSSIAN, codecs.lloyd_max(bits))
    assert nbytes == GAUSSIAN.size * bits // 8 + 4 + 8
    assert nmse(GAUSSIAN, y) == pytest.approx(distortion(bits), rel=0.05)
    assert codecs.lloyd_max(bits).expected_nmse(GAUSSIAN.size) == distortion(bits)
    z = GAUSSIAN.astype(np.float64) * np.sqrt(GAUSSIAN.size) / np.linalg.norm(GAUSSIAN.astype(np.float64))
    levels = centroids(bits).astype(np.float64)
    nearest = levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, z)]
    scale = GAUSSIAN @ nearest / (nearest @ nearest)
    assert np.mean(np.abs(y - scale * nearest) > 1e-4) < 1e-4
    assert not codecs.lloyd_max(bits).is_unbiased


@pytest.mark.parametrize("stage", [LloydMax(1), Eden(0.3), EdenUniform(5.0)], ids=str)
def test_one_entry_is_exact(stage):
    """A single number has nothing to lose but rounding, at any rate."""
    assert reproduced(stage, np.float32([-1.5])) == pytest.approx(-1.5, rel=1e-6)


def test_hostile_bytes():
    """Any codes and scales decode to an array, or are refused; here codes beyond the codebook, and no number."""
    codec, stage, x = codecs.branch(Eden(1.5)), Eden(1.5), GAUSSIAN[:100]
    spec = TensorSpec("x", x.shape, x.dtype)
    arrays = encoded(stage, x) | {"codes": np.full(50, 255, np.uint8), "rest": np.full(50, 77, np.uint8)}
    wild = jax.jit(lambda own: stage.decode(own | stage.regenerate(random.key(3), spec), {}, num_summands=1, spec=spec))
    assert np.isfinite(wild(arrays)).all()
    payload, _ = bound(codec, 100).encode(x, key=random.key(0))
    blob = bytearray(payload.blob)
    blob[-8:-4] = np.float32(np.nan).tobytes()
    blob[-4:] = recomputed_checksum(codec, x, blob)
    with pytest.raises(DecodeError, match="NaN or infinity"):
        bound(codec, 100).decode(bytes(blob))


def recomputed_checksum(codec, x, blob):
    """The checksum that a forger would write: of a payload with its description, which is simpler to make."""
    described = bound(codec, 100).encode(x, key=random.key(0), described=True)[0].blob
    length = len(described) - len(blob)
    covered = described[:4].replace(b"\x81", b"\x01") + described[4 : 4 + length] + bytes(blob[4:-4])
    return zlib.crc32(covered).to_bytes(4, "little")


def test_refusals():
    """Rates and steps outside their range, what is no number, integers, and values without room for estimates."""
    for bits in (0, 0.001, 8.5, math.nan):
        with pytest.raises(ArgumentError, match=r"bits must lie in 0\.01\.\.8"):
            codecs.eden(bits)
        with pytest.raises(ArgumentError, match=r"bits must lie in 0\.01\.\.8"):
            codecs.eden(bits, entropy_coded=True)
    with pytest.raises(ArgumentTypeError, match="bits must be a number, got 'two'"):
        Eden("two")
    with pytest.raises(ArgumentError, match=r"step must lie in 0\.0078125\.\.8\.0, got 9"):
        EdenUniform(9)
    with pytest.raises(ArgumentTypeError, match="unbiased must be True or False, got None"):
        Eden(1, None)
    with pytest.raises(ArgumentError, match=r"bits must lie in 1\.\.8, got 9"):
        LloydMax(9)
    with pytest.raises(ArgumentTypeError, match=r"bits must be a whole number from 1 to 8, got 1\.5"):
        LloydMax(1.5)
    for codec in (codecs.eden(1), codecs.lloyd_max(1)):
        with pytest.raises(ArgumentTypeError, match="takes floating-point"):
            codecs.bind(codec, np.zeros(3, np.int32))
        with pytest.raises(ArgumentError, match="range"):
            codecs.encode(np.full(4, 3e38, np.float32), codec, seed=0)


def test_a_rate_between_two_is_a_share_of_each():
    """At 1.25 bits a quarter of each block has two bits, so the error lies on the line between the two."""
    found = outputs(Eden(1.25), 2000)
    assert found["codes"].shape == (500,)
    assert found["rest"].shape == (1500,)
    assert Eden(1.25).distortion == pytest.approx(0.25 * distortion(2) + 0.75 * distortion(1))
    assert codecs.eden(1, entropy_coded=True).stage == EdenUniform(uniform_step(1))

"""Kashin's representation: exact unless clipped, small coefficients, honest sizes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from codec_support import gathered
from unbiasedness_support import ADVERSARIAL, LARGEST_T, t_statistics

from laconic import codecs
from laconic.codecs import Kashin, TensorSpec, random
from laconic.codecs.stages._hadamard import constant_sign_words, negate
from laconic.errors import ArgumentError, ArgumentTypeError

TFF = Kashin(3, 0.9, 1.0, rounds=1)
GAUSSIAN = np.random.default_rng(0).standard_normal(800).astype(np.float32)


@functools.cache
def compiled(stage):
    """Encoding, and decoding to a vector of float32 of a given size."""

    def decode(coefficients, size):
        spec = TensorSpec("x", (size,), np.dtype(np.float32))
        return stage.decode({"values": coefficients}, {}, num_summands=1, spec=spec)

    return jax.jit(lambda key, x: stage.encode(key, x, {})["values"]), jax.jit(decode, static_argnums=1)


def through(stage, x):
    """The coefficients, and what they decode to."""
    encode, decode = compiled(stage)
    coefficients = encode(random.key(0), x)
    return np.asarray(coefficients), np.asarray(decode(coefficients, x.size))


@functools.cache
def quantized():
    """The default representation, rounded at random to one bit under many keys."""
    rounding = codecs.UniformQuantizer(1)

    def decoded(key, x):
        y = Kashin().encode(key, x, {})["values"]
        y_spec, x_spec = (TensorSpec("", each.shape, np.dtype(np.float32)) for each in (y, x))
        y = rounding.decode(rounding.encode(key, y, {}), {}, num_summands=1, spec=y_spec)
        return Kashin().decode({"values": y}, {}, num_summands=1, spec=x_spec)

    return jax.jit(jax.vmap(decoded, (0, None)))


def peak(coefficients):
    """The largest coefficient over their root mean square."""
    return np.abs(coefficients).max() / np.sqrt(np.mean(coefficients.astype(np.float64) ** 2))


@pytest.mark.parametrize("stage", [Kashin(), TFF, Kashin(num_iters=1)], ids=["default", "tff", "one turn"])
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_representations_are_exact(stage, name):
    """Without clipping in the last turn the coefficients decode to the vector, for tensor_encoding's default too."""
    x = ADVERSARIAL[name]
    if name == "near the end":
        x = x * np.float32(0.01)
    _, decoded = through(stage, x)
    np.testing.assert_allclose(decoded, x, atol=2e-6 * np.abs(x).max(), rtol=0)
    assert stage.is_unbiased


def test_clipping_in_the_last_turn_is_a_bias():
    """What three turns of clipping leave is lost: the same error under every key, of which no mean gets rid."""
    clipped = Kashin(3, 0.9, 1.0, last_iter_clip=True, rounds=1)
    assert not clipped.is_unbiased
    coefficients, decoded = through(clipped, GAUSSIAN)
    assert 1e-3 < np.linalg.norm(decoded - GAUSSIAN) / np.linalg.norm(GAUSSIAN) < 0.2
    # They are scaled to the vector's norm.
    assert np.linalg.norm(coefficients) == pytest.approx(np.linalg.norm(GAUSSIAN), rel=1e-5)
    # Turns enough leave nothing to lose.
    _, converged = through(Kashin(100, 0.85, 3.0, last_iter_clip=True), GAUSSIAN[:520])
    assert np.linalg.norm(converged - GAUSSIAN[:520]) < 0.05 * np.linalg.norm(GAUSSIAN[:520])


def test_tensor_encodings_parameters_give_its_algorithm():
    """With one round the coefficients are those of the published loop, in double precision, with a dense matrix."""
    n, padded = 100, 128
    x = GAUSSIAN[:n].astype(np.float64)
    frame = np.ones((1, 1))
    while len(frame) < padded:
        frame = np.kron([[1, 1], [1, -1]], frame)
    signs = np.asarray(negate(jnp.ones(padded), constant_sign_words(0, padded // 32)))[:n]
    frame = frame[:, :n] / np.sqrt(padded) * signs
    rest, coefficients, level = x, np.zeros(padded), np.linalg.norm(x) / np.sqrt(n)
    for _ in range(2):
        clipped = np.clip(frame @ rest, -level, level)
        coefficients, rest, level = coefficients + clipped, rest - frame.T @ clipped, level * 0.9
    coefficients = coefficients + frame @ rest
    np.testing.assert_allclose(through(TFF, GAUSSIAN[:n])[0], coefficients, atol=1e-5)


@pytest.mark.parametrize(("size", "coefficients"), [(0, 0), (1, 2), (2, 4), (3, 4), (8, 16), (850, 1024), (900, 2048)])
def test_coefficients_are_a_power_of_two(size, coefficients):
    """The next power of two, twice that if the vector would fill more than 0.85 of it: as in tensor_encoding."""
    x = jax.ShapeDtypeStruct((size,), np.float32)
    values = jax.eval_shape(lambda x: Kashin().encode(random.key(0), x, {})["values"], x)
    assert values.shape == (coefficients,)
    if size:
        assert codecs.payload_size(x, codecs.kashin_quantization(8)) >= coefficients


def test_two_rounds_and_twelve_turns_leave_no_large_coefficients():
    """The largest is near two root mean squares, where tensor_encoding's default leaves three and a Hadamard four."""
    x = np.random.default_rng(1).standard_normal(1300).astype(np.float32)
    assert peak(through(Kashin(), x)[0]) < 2.4
    assert peak(through(TFF, x)[0]) > 2.7
    spike = np.eye(1, 1300, 3, dtype=np.float32)[0]
    assert peak(through(Kashin(), spike)[0]) < 2.4


def test_twice_the_entries_in_one_round_are_the_same_twice():
    """A frame of one round of twice the size is a repetition, so tensor_encoding's padding gains nothing there."""
    coefficients, _ = through(TFF, GAUSSIAN[:512])
    np.testing.assert_allclose(coefficients[:512], coefficients[512:], atol=1e-5)


@pytest.mark.parametrize("name", [name for name in ADVERSARIAL if name not in ("zero", "near the end")])
def test_quantized_coefficients_stay_unbiased(name):
    """With stochastic rounding below, a t-test over 300 seeds finds no bias."""
    x = ADVERSARIAL[name]
    assert codecs.kashin_quantization(1).is_unbiased
    values = np.asarray(quantized()(random.derive_each(random.key(1), 300), x), np.float64)
    scale = float(np.abs(x).max())
    assert t_statistics(values / scale - x.astype(np.float64) / scale, x).max() < LARGEST_T


def test_encodings_are_added():
    """The frame is the same for all, so sums of codes decode to sums."""
    xs = [np.random.default_rng(client).uniform(-0.1, 0.1, 50).astype(np.float32) for client in range(10)]
    codec = codecs.chain(Kashin(), codecs.UniformQuantizer(12, value_range=(-1.0, 1.0), stochastic=False))
    assert codec.commutes_with_sum
    np.testing.assert_allclose(gathered(codecs.bind(codec, xs[0]), xs)[0], np.sum(xs, axis=0), atol=1e-2)


def test_refusals():
    """Parameters outside their range, and integers."""
    for arguments, message in [
        ({"num_iters": 0}, r"num_iters must lie in 1\.\.1000, got 0"),
        ({"rounds": 9}, r"rounds must lie in 1\.\.8, got 9"),
        ({"eta": 1.0}, r"eta must be below 1, got 1\.0"),
        ({"delta": 0}, "delta must be finite and above zero, got 0"),
        ({"pad_extra_level_threshold": 1.5}, r"pad_extra_level_threshold must be at most 1, got 1\.5"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            Kashin(**arguments)
    with pytest.raises(ArgumentTypeError, match="num_iters must be an integer, got True"):
        Kashin(num_iters=True)
    with pytest.raises(ArgumentTypeError, match="last_iter_clip must be True or False, got 1"):
        Kashin(last_iter_clip=1)
    with pytest.raises(ArgumentTypeError, match="kashin takes floating-point"):
        codecs.bind(codecs.kashin_quantization(4), np.zeros(3, np.int8))

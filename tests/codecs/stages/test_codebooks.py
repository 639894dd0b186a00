"""The quantizers for Gaussian variables are the optimal ones, and err as theory says."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from laconic.codecs.stages._codebooks import (
    MAX_BITS,
    centroids,
    distortion,
    quantize,
    uniform_centroids,
    uniform_distortion,
    uniform_entropy,
    uniform_step,
    uniform_values,
    values,
)

BITS = range(1, MAX_BITS + 1)
SAMPLE = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
density = np.vectorize(lambda z: math.exp(-z * z / 2) / math.sqrt(2 * math.pi))
tail = np.vectorize(lambda z: math.erfc(z / math.sqrt(2)) / 2)


def derived(bits):
    """The positive centroids, solved anew: each is the mean of z between the midpoints to its neighbours.

    Newton's method in double precision, from the constants; the equations have one solution only, the density being
    log-concave.
    """
    c = centroids(bits)[2 ** (bits - 1) :].astype(np.float64)
    for _ in range(4):
        edges = np.array([0, *((c[1:] + c[:-1]) / 2), np.inf])
        left, right = density(edges[:-1]), density(edges[1:])
        mass = tail(edges[:-1]) - tail(edges[1:])
        mean = (left - right) / mass
        by_left = left * (mean - edges[:-1]) / mass / 2
        by_right = right * (np.where(np.isinf(edges[1:]), 0, edges[1:]) - mean) / mass / 2
        by_left[0] = by_right[-1] = 0
        slopes = np.diag(by_left + by_right) + np.diag(by_left[1:], -1) + np.diag(by_right[:-1], 1)
        c = c - np.linalg.solve(np.eye(c.size) - slopes, c - mean)
    return c


@pytest.mark.parametrize("bits", BITS)
def test_constants_are_the_lloyd_max_centroids(bits):
    """They solve Lloyd's and Max's conditions to the last place of float32."""
    constants = centroids(bits)
    assert constants.dtype == np.float32
    assert constants.shape == (2**bits,)
    np.testing.assert_array_equal(constants, -constants[::-1])
    expected = derived(bits)
    np.testing.assert_array_equal(constants[2 ** (bits - 1) :], expected.astype(np.float32))


@pytest.mark.parametrize(
    ("bits", "expected"),
    [(0, 1.0), (1, 0.36338), (2, 0.11748), (3, 0.034548), (4, 0.009501), (5, 0.002505), (6, 0.000644), (8, 4.12e-5)],
)
def test_distortion_is_the_literatures(bits, expected):
    """Max's table, 4.40, 9.30, 14.62, 20.22, 26.01 and 31.91 dB, and on."""
    assert distortion(bits) == pytest.approx(expected, rel=2e-3, abs=5e-7)
    codes = quantize(jnp.asarray(SAMPLE), bits)
    error = np.asarray(values(codes, bits, jnp.dtype(np.float32)), np.float64) - SAMPLE
    assert np.mean(error**2) == pytest.approx(distortion(bits), rel=0.02)


@pytest.mark.parametrize("bits", BITS)
def test_codes_are_of_the_nearest_centroid(bits):
    """The tables find the nearest centroid of every number, however large; ties and zeros go upwards from zero."""
    z = np.concatenate([SAMPLE[:3000], np.linspace(-6, 6, 3001), [1e30, -1e30, np.inf, 0.0, -0.0]]).astype(np.float32)
    codes = np.asarray(quantize(jnp.asarray(z), bits))
    distances = np.abs(np.clip(z, -1e3, 1e3).astype(np.float64)[:, None] - centroids(bits))
    chosen = np.take_along_axis(distances, codes[:, None].astype(np.int64), axis=1)[:, 0]
    np.testing.assert_allclose(chosen, distances.min(axis=1), atol=2e-6)
    half = 2 ** (bits - 1)
    np.testing.assert_array_equal(codes[-5:], [2**bits - 1, 0, 2**bits - 1, half, half])


def test_codes_from_elsewhere_have_values():
    """An index beyond the last centroid stands for the last one, whatever the bytes that it came from."""
    found = values(jnp.asarray([0, 3, 4, 255], jnp.uint8), 2, jnp.dtype(np.float32))
    np.testing.assert_array_equal(found, centroids(2)[[0, 3, 3, 3]])


@pytest.mark.parametrize(
    ("bits", "step", "error"),
    [
        *((0.05, 5.620, None), (0.1, 5.071, 0.9085), (0.25, 4.232, 0.7894), (0.5, 3.456, 0.6173)),
        *((0.75, 2.899, None), (1, 2.4216, 0.34834), (1.5, 1.6101, 0.17770), (2, 1.0824, 0.08894)),
        *((3, 0.5224, 0.022239), (4, 0.2590, 0.0055597), (6, None, 0.00034748), (8, None, 2.172e-5)),
    ],
)
def test_uniform_cells_have_the_entropy_and_error_of_theory(bits, step, error):
    """The width for a rate, and the error there, of entropy-coded scalar quantization with centroids."""
    found = uniform_step(bits)
    assert uniform_entropy(found) == pytest.approx(bits, rel=1e-5)
    if step is not None:
        assert found == pytest.approx(step, abs=6e-4)
    if error is not None:
        assert uniform_distortion(found) == pytest.approx(error, rel=2e-4)


@pytest.mark.parametrize("step", [0.02, 0.5, 2.4216, 5.62])
def test_uniform_values_are_centroids(step):
    """Each code stands for the mean of the numbers that have it; far out, for the middle of its cell."""
    codes = np.round(SAMPLE / step).astype(np.int16)
    found = np.asarray(uniform_values(jnp.asarray(codes), step, jnp.dtype(np.float32)), np.float64)
    assert np.mean((found - SAMPLE) ** 2) == pytest.approx(uniform_distortion(step), rel=0.03)
    for k in (-1, 0, 1):
        chosen = SAMPLE[codes == k].astype(np.float64)
        margin = 5 * min(step, 1) / np.sqrt(max(chosen.size, 1))
        np.testing.assert_allclose(chosen.mean(), found[codes == k][0], atol=margin)
    far = len(uniform_centroids(step)) + 5
    np.testing.assert_allclose(
        uniform_values(jnp.asarray([far, -far], jnp.int16), step, jnp.dtype(np.float32)),
        [far * step, -far * step],
        rtol=1e-6,
    )

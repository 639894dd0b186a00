"""Random rotations keep norms, can be undone, and make entries of any vector Gaussian."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laconic.codecs import random
from laconic.codecs.stages._rotation import MAX_BLOCK, MIN_BLOCK, Rotation

SIZES = [0, 1, 2, 27, 1024, 1300, MAX_BLOCK + 3 * MIN_BLOCK + 5]


@functools.cache
def compiled(size):
    """A rotation and its inverse, of vectors of one size."""
    rotation = Rotation(size)
    return jax.jit(rotation.rotate), jax.jit(rotation.rotate_back)


@functools.cache
def over_keys(size):
    """The rotation of one vector for each of many keys."""
    rotation = Rotation(size)
    return jax.jit(jax.vmap(lambda key, x: rotation.rotate(x, random.bits(key, rotation.num_words)), (0, None)))


def words_of(size, seed=0):
    """Random words for one rotation."""
    return random.bits(random.key(seed), Rotation(size).num_words)


@pytest.mark.parametrize("size", SIZES)
def test_rotations_keep_norms_and_are_undone(size):
    """Every length, from none to several blocks of the largest size."""
    x = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    rotate, rotate_back = compiled(size)
    y = rotate(x, words_of(size))
    assert y.shape == (size,)
    assert np.linalg.norm(y) == pytest.approx(np.linalg.norm(x), rel=1e-5)
    np.testing.assert_allclose(rotate_back(y, words_of(size)), x, atol=5e-6)


@pytest.mark.parametrize("size", SIZES)
def test_blocks_make_up_the_vector(size):
    """Blocks are powers of two but for a last one below 1,024; sums, largest entries and spreading go by them."""
    rotation = Rotation(size)
    assert sum(rotation.blocks) == size
    assert all(MIN_BLOCK <= block <= MAX_BLOCK and not block & (block - 1) for block in rotation.blocks[:-1])
    if size:
        assert rotation.blocks[-1] < MIN_BLOCK or not rotation.blocks[-1] & (rotation.blocks[-1] - 1)
    numbers = np.repeat(np.arange(len(rotation.blocks), dtype=np.float32), rotation.blocks)
    x = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    np.testing.assert_array_equal(rotation.spread(jnp.arange(len(rotation.blocks), dtype=np.float32)), numbers)
    for i, total in enumerate(rotation.sums(jnp.asarray(x))):
        assert total == pytest.approx(x[numbers == i].astype(np.float64).sum(), abs=1e-3)
    for i, largest in enumerate(rotation.magnitudes(jnp.asarray(x))):
        assert largest == np.abs(x[numbers == i]).max()


@pytest.mark.parametrize("size", [2, 27, 1300])
def test_rotations_are_linear_and_orthonormal(size):
    """Two vectors keep their product, and a sum of vectors becomes the sum of what they become."""
    a, b = np.random.default_rng(0).standard_normal((2, size)).astype(np.float32)
    rotate, _ = compiled(size)
    first, second, both = (np.asarray(rotate(x, words_of(size))) for x in (a, b, a + b))
    assert first @ second == pytest.approx(a @ b, abs=1e-3 * size**0.5)
    np.testing.assert_allclose(both, first + second, atol=1e-5)


@pytest.mark.parametrize("size", [3, 12, 1024])
@pytest.mark.parametrize("vector", ["spike", "two", "constant"])
def test_entries_become_gaussian(size, vector):
    """Over keys, an entry of any rotated vector has the moments of one of a random point of the sphere.

    E y^2 = 1 and E y^4 = 3 d / (d + 2) for |x|^2 = d. One round of signs and Hadamard transform would give the spike
    entries of one magnitude, with E y^4 = 1.
    """
    x = {"spike": np.eye(1, size)[0], "two": np.eye(1, size)[0] * 3 + np.eye(1, size, 1)[0], "constant": np.ones(size)}
    x = jnp.asarray(x[vector] * np.sqrt(size) / np.linalg.norm(x[vector]), jnp.float32)
    y = over_keys(size)(random.derive_each(random.key(2), 4000), x)
    y = np.asarray(y, np.float64)[:, [0, size // 2, size - 1]]
    np.testing.assert_allclose((y**2).mean(axis=0), 1, atol=0.12)
    np.testing.assert_allclose((y**4).mean(), 3 * size / (size + 2), rtol=0.12)
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=0.08)


def test_keys_differ():
    """Another key, another rotation, in each kind of block."""
    size = SIZES[-1]
    x = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    rotate, _ = compiled(size)
    first, second = (np.asarray(rotate(x, words_of(size, seed))) for seed in (1, 2))
    for part in (slice(0, MAX_BLOCK), slice(MAX_BLOCK, -5), slice(-5, None)):
        assert not np.allclose(first[part], second[part], atol=0.01)

"""Dithered quantization to E8: nearest points, the dither, errors, bias, sums, steps, and the rate by real bytes."""

import hashlib
import itertools
from fractions import Fraction

import jax
import numpy as np
import pytest
from codec_support import FLOATS, gathered
from unbiasedness_support import ADVERSARIAL, LARGEST_T, encoded, errors_over_seeds, t_statistics

from laconic import codecs
from laconic.codecs import DitheredLattice, TensorSpec
from laconic.codecs.stages._e8 import SECOND_MOMENT, nearest_points
from laconic.errors import ArgumentError, ArgumentTypeError

GENERATOR = np.random.default_rng(0)
GAUSSIAN = GENERATOR.normal(size=20_004).astype(np.float32)


def minimal_vectors():
    """The 240 shortest vectors of E8: two entries of +-1, or all +-1/2 with an even number of minus signs."""
    units = [sign * row for row in np.eye(8) for sign in (-1, 1)]
    pairs = [first + second for first, second in itertools.combinations(units, 2) if not first @ second]
    halves = [np.array(signs) for signs in itertools.product((-0.5, 0.5), repeat=8) if np.prod(signs) > 0]
    return np.array(pairs + halves)


NEIGHBOURS = minimal_vectors()


def in_lattice(doubled):
    """Whether each column is twice a point of E8."""
    even = (doubled % 2 == 0).all(axis=0) | (doubled % 2 == 1).all(axis=0)
    return even & ((doubled // 2).sum(axis=0) % 2 == 0)


compiled_nearest_points = jax.jit(nearest_points, static_argnums=2)


def nearest(y):
    """Twice the nearest points to columns of floats."""
    whole = np.floor(y)
    return np.asarray(compiled_nearest_points(whole.astype(np.int32), (y - whole).astype(np.float32), 1))


def dither_of(key, size):
    """The dither, one block a column."""
    spec = TensorSpec("", (size,), np.dtype(np.float32))
    arrays = jax.jit(lambda key: DitheredLattice(step=1.0).regenerate(key, spec))(key)
    return np.asarray(arrays["dither"], np.float64).reshape(8, -1)


def assert_in_cell(errors):
    """Checks that no point of the lattice is nearer to the errors, one a column, than the origin.

    A Voronoi cell of a root lattice has no other faces than those towards its shortest vectors, of squared length 2.
    """
    assert (NEIGHBOURS @ errors).max() <= 1 + 1e-5


def nmse(x, decoded_x):
    """The squared error over |x|^2."""
    x = x.astype(np.float64)
    return np.sum((decoded_x - x) ** 2) / np.sum(x**2)


def decoded(x, codec, seed):
    """Through bytes and back."""
    return codecs.decode(codecs.encode(x, codec, seed=seed))


def test_minimal_vectors():
    """There are 240, and they are points of the lattice."""
    assert len(NEIGHBOURS) == 240
    assert np.all((NEIGHBOURS**2).sum(axis=1) == 2)
    assert in_lattice((2 * NEIGHBOURS).T.astype(int)).all()


@pytest.mark.parametrize("scale", [0.3, 2.0, 500.0])
def test_nearest_point(scale):
    """What comes out is in the lattice, and no neighbour of it is nearer."""
    y = GENERATOR.normal(size=(8, 4000)) * scale
    points = nearest(y)
    assert in_lattice(points).all()
    error = np.float32(y) - points / 2
    distances = ((error[:, :, None] - NEIGHBOURS.T[:, None, :]) ** 2).sum(axis=0)
    assert np.all((error**2).sum(axis=0) <= distances.min(axis=1) + 1e-4 * scale)


def test_nearest_point_where_several_are():
    """Points, deep holes and all other multiples of 1/4 give a nearest point, and a whole one in any arithmetic."""
    y = GENERATOR.integers(-12, 13, (8, 20_000)) / 4
    points = nearest(y)
    assert in_lattice(points).all()
    assert_in_cell(y - points / 2)
    whole = np.floor(y)
    in_integers = compiled_nearest_points(whole.astype(np.int32), ((y - whole) * 2**23).astype(np.int32), 2**23)
    np.testing.assert_array_equal(in_integers, points)
    lattice = points / 2
    np.testing.assert_array_equal(nearest(lattice), points)


def test_dither_is_uniform_over_the_cell():
    """It is in the Voronoi cell, with the mean, the covariance and the second moment of E8's, and no pattern mod 2."""
    dither = dither_of(codecs.random.key(3), 2**18)
    assert_in_cell(dither)
    count = dither.shape[1]
    assert np.abs(dither.mean(axis=1)).max() < 5 * np.sqrt(SECOND_MOMENT / count)
    covariance = dither @ dither.T / count
    np.testing.assert_allclose(covariance, SECOND_MOMENT * np.eye(8), atol=5 * SECOND_MOMENT * np.sqrt(2 / count))
    np.testing.assert_allclose((dither**2).mean(), SECOND_MOMENT, rtol=0.003)
    # The cell's share of any set that the lattice tiles is the set's: the cubes of side 1/2 about 0, moved by it.
    for moved in (0.0, 0.3, 0.45):
        share = np.mean(np.all(np.abs(nearest_remainder(dither + moved)) < 0.25, axis=0))
        assert share == pytest.approx(2.0**-8, rel=5 * np.sqrt(2.0**8 / count))


def nearest_remainder(y):
    """Columns less their nearest points."""
    return y - nearest(y) / 2


def test_dither_follows_the_wire_format():
    """The dither is what the specification says, in exact fractions, and its bytes do not change."""
    key, size = codecs.random.key(7), 37
    words = np.asarray(codecs.random.bits(key, 40))
    expected = np.zeros(40)
    for j in range(5):
        z = [Fraction(int(word) >> 8, 2**23) for word in words[j::5]]
        f = [each // 1 for each in z]
        b = [int(each - each // 1 > Fraction(1, 2)) for each in z]
        e = [min(each % 1, 1 - each % 1) for each in z]
        odd_floors, odd_sum = sum(f) % 2, (sum(f) + sum(b)) % 2
        if 2 - sum(e) + 2 * odd_floors * min(e) < odd_sum * (1 - 2 * max(e)):
            q = [each + Fraction(1, 2) for each in f]
            if odd_floors:
                q[e.index(min(e))] += 1 if b[e.index(min(e))] else -1
        else:
            q = [each + up for each, up in zip(f, b, strict=True)]
            if odd_sum:
                q[e.index(max(e))] += -1 if b[e.index(max(e))] else 1
        expected[j::5] = [float(each - point) for each, point in zip(z, q, strict=True)]
    np.testing.assert_array_equal(dither_of(key, size).reshape(-1), expected)
    large = dither_of(key, 4096).astype(np.float32)
    assert hashlib.sha256(large.tobytes()).hexdigest()[:16] == "d659d6ad01beccca"


@pytest.mark.parametrize("enabled", [False, True])
def test_arithmetic_does_not_depend_on_jax_settings(enabled):
    """With 64-bit types in JAX and without: the same dtypes, contexts and points."""
    stage, spec = DitheredLattice(step=0.5), TensorSpec("", (100,), np.dtype(np.float32))
    x = np.float32(np.arange(100) * 37 % 101 - 50) / 16

    def made(key, x):
        arrays = stage.regenerate(key, spec)
        return arrays, stage.contexts(arrays)["points"], stage.encode(key, x, {})["points"]

    with jax.enable_x64(enabled):
        arrays, contexts, points = jax.tree.map(np.asarray, jax.jit(made)(codecs.random.key(1), x))
    assert arrays["dither"].dtype == np.float32
    assert contexts.dtype == np.uint8
    assert points.dtype == np.int32
    assert in_lattice(points.reshape(8, -1)).all()
    u = np.asarray(arrays["dither"], np.float64)
    np.testing.assert_array_equal(contexts, np.minimum(np.floor(128 * (u + 1)), 255))
    assert hashlib.sha256(contexts.tobytes() + points.tobytes()).hexdigest()[:16] == "acb5701d3f2d1985"


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_error_is_as_asked(scale):
    """The error over |x|^2 is what `nmse` asks for, at any scale."""
    x = GAUSSIAN * np.float32(scale)
    codec = codecs.dithered(nmse=5.0, lattice="E8")
    assert np.mean([nmse(x, decoded(x, codec, seed)) for seed in range(3)]) == pytest.approx(5, rel=0.02)


@pytest.mark.parametrize("step", [{"nmse": 0.05}, {"step_in_rms": 1.0}], ids=str)
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_unbiased(step, name):
    """Over 1,000 keys no entry's mean error is further from zero than Bernstein's bound allows with chance 1e-9."""
    x, stage = ADVERSARIAL[name], DitheredLattice(**step)
    x_step = float(encoded(stage, x)["step"][0] / (np.abs(x).max() or 1))
    errors = errors_over_seeds(stage, x, 1000)
    log_chance = np.log(2 / 1e-9)
    limit = np.sqrt(2 * x_step**2 * SECOND_MOMENT * log_chance / 1000) + x_step * log_chance / 3000
    assert np.all(np.abs(errors.mean(axis=0)) <= limit + 1e-6)
    assert np.all(t_statistics(errors, x) < LARGEST_T)
    np.testing.assert_allclose((errors**2).mean(), x_step**2 * SECOND_MOMENT, rtol=0.02)


def test_error_is_uniform_over_the_cell_and_independent_of_the_input():
    """The errors of a block are in the Voronoi cell, distributed like the dither, whatever the input."""
    x = np.linspace(-1, 1, 2**17, dtype=np.float32)
    errors = ((decoded(x, codecs.dithered(step=0.25, lattice="E8"), 3) - x) / 0.25).reshape(8, -1).astype(np.float64)
    assert_in_cell(errors)
    np.testing.assert_allclose((errors**2).mean(), SECOND_MOMENT, rtol=0.01)
    edges = np.linspace(-1, 1, 41)
    expected = np.histogram(dither_of(codecs.random.key(9), x.size), edges)[0]
    assert np.abs(np.histogram(errors, edges)[0] - expected).max() < 5 * np.sqrt(2 * expected.max())
    assert abs(np.corrcoef(errors.reshape(-1), x)[0, 1]) < 0.01


def test_clients_add_up_in_integers():
    """With a given step the sum of 100 encodings decodes to the sum of the decodings, without overflow."""
    x = np.float32([0.0, 1.0, -0.9999, 2.0**18, -(2.0**18), 1e-3, 7.0, 0.5, 0.25, -3.0])
    bound = codecs.bind(codecs.dithered(step=1.0, lattice="E8"), x)
    gather, expected = bound.gather(), np.zeros(x.shape)
    for client in range(100):
        payload = bound.encode_contribution(x, key=codecs.random.derive(codecs.random.key(0), client))
        gather.add(payload)
        expected += np.asarray(bound.decode(payload), np.float64)
    total, _ = gather.result()
    np.testing.assert_allclose(total, expected, rtol=1e-6, atol=2e-3)


def test_errors_of_clients_average_out():
    """Of n clients with keys of their own the mean has an n-th of one's error."""
    x, n = GAUSSIAN, 16
    total, _ = gathered(codecs.bind(codecs.dithered(step=0.5, lattice="E8"), x), [x] * n)
    one = 0.5**2 * SECOND_MOMENT * x.size / np.sum(x.astype(np.float64) ** 2)
    assert nmse(x, np.asarray(total) / n) == pytest.approx(one / n, rel=0.03)


def test_any_float_and_shape():
    """Empty, scalar and small arrays of every float dtype keep shape and dtype; zeros stay zeros."""
    shapes = [(), (1,), (3, 0), (4, 5)]
    specs = [TensorSpec("", shape, dtype) for shape, dtype in zip(shapes, FLOATS, strict=True)]
    bound = codecs.bind(codecs.dithered(bits_per_parameter=2.0, lattice="E8"), specs)
    for value in (0.0, -2.5):
        tree = [np.full(spec.shape, value).astype(spec.dtype) for spec in specs]
        for x, y in zip(tree, bound.decode(bound.encode(tree, key=codecs.random.key(0))[0]), strict=True):
            assert y.shape == x.shape
            assert y.dtype == x.dtype
            assert bool(np.any(y)) == bool(np.any(x))


def test_sizes():
    """Sizes that are no multiples of eight have the same error, and no entry has another's."""
    tree = [np.arange(1, size + 1, dtype=np.float32) for size in (9, 1001)]
    for x, y in zip(tree, decoded(tree, codecs.dithered(step=0.01, lattice="E8"), 1), strict=True):
        assert np.abs(y - x).max() <= 0.01 * 1.01


def test_double_precision():
    """The arithmetic for float64 is float64's."""
    x = GENERATOR.normal(size=1000)
    assert nmse(x, decoded(x, codecs.dithered(nmse=1e-11, lattice="E8"), 1)) == pytest.approx(1e-11, rel=0.1)


def test_finest():
    """No choice leads to steps beyond what the dtype tells apart: what comes back is nearly what was sent."""
    tree = [(GENERATOR.normal(size=100) * 10).astype(dtype) for dtype in FLOATS[:2]]
    for x, y in zip(tree, decoded(tree, codecs.dithered(nmse=1e-30, lattice="E8"), 1), strict=True):
        np.testing.assert_allclose(np.float64(y), np.float64(x), rtol=0.01, atol=1e-5)


@pytest.mark.parametrize("rate", [0.3])
def test_promised_rate(rate):
    """`bits_per_parameter` is kept within 3 %, by real bytes with headers and tables, described or not."""
    x = np.random.default_rng(4).normal(size=50_000).astype(np.float32)
    bound = codecs.bind(codecs.dithered(bits_per_parameter=rate, lattice="E8"), x)
    for described in (True, False):
        payload, _ = bound.encode(x, key=codecs.random.key(1), described=described)
        assert len(payload.blob) == pytest.approx(rate * x.size / 8, rel=0.03)


@pytest.mark.parametrize("target", [0.55, 0.0227])
def test_rate(target):
    """On Gaussian data real bytes are within 0.17 bit of what any unbiased codec needs; one entry at a time, 0.25."""
    x = np.random.default_rng(5).normal(size=2**16).astype(np.float32)
    bound = codecs.bind(codecs.dithered(nmse=target, lattice="E8"), x)
    payload, _ = bound.encode(x, key=codecs.random.key(1))
    error = nmse(x, np.asarray(bound.decode(payload)))
    assert 8 * len(payload.blob) / x.size - 0.5 * np.log2(1 + 1 / error) < 0.17


def test_values_beyond_a_given_step():
    """A value of more than 2^19 steps is an error that names the tensor, not a wrong point."""
    with pytest.raises(ArgumentError, match=r"weights.*beyond the range.*larger step"):
        codecs.encode({"weights": np.float32([3e5])}, codecs.dithered(step=0.5, lattice="E8"), seed=0)


def test_wrong_arguments():
    """Exactly one positive number says what the step is; integers and other lattices are refused by name."""
    for arguments in ({}, {"step": 1.0, "nmse": 1.0}, {"step": 0.0}, {"nmse": -1.0}, {"nmse": float("nan")}):
        with pytest.raises(ArgumentError):
            codecs.dithered(**arguments, lattice="E8")
    with pytest.raises(ArgumentError, match="lattice must be 'cubic' or 'E8', got 'A2'"):
        codecs.dithered(step=1.0, lattice="A2")
    with pytest.raises(ArgumentTypeError, match="counts is int32"):
        codecs.bind(codecs.dithered(step=1.0, lattice="E8"), {"counts": np.zeros(3, np.int32)})


def test_flags():
    """It is unbiased and shares its draw; it commutes with the sum on a given step alone, and says its error."""
    assert codecs.dithered(step=1.0, lattice="E8").commutes_with_sum
    codec = codecs.dithered(nmse=0.5, lattice="E8")
    assert not codec.commutes_with_sum
    assert codec.is_unbiased
    assert codec.shares_randomness
    assert codec.expected_nmse(10) == 0.5
    assert codecs.dithered(step_in_rms=2.0, lattice="E8").expected_nmse(10) == pytest.approx(4 * 929 / 12960)
    assert codecs.dithered(step=1.0, lattice="E8").expected_nmse(10) is None

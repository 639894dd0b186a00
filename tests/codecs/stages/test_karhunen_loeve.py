"""Principal directions: they come back, save what theory says, and do no harm where there are none."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from unbiasedness_support import encoded, errors_over_seeds, reproduced

from laconic import codecs
from laconic.codecs import Dithered, KarhunenLoeve, RowColumn, TensorSpec, chain, random
from laconic.codecs.stages._karhunen_loeve import _orthonormal
from laconic.errors import ArgumentError, ArgumentTypeError, DecodeError
from laconic.testing import check_stage

GENERATOR = np.random.default_rng(0)


def plainly_dithered(step):
    """Without directions."""
    return chain(Dithered(step), RowColumn())


def with_directions(scales, shape=(64, 200), noise=1.0, dtype=np.float32):
    """Gaussian noise, and directions along which entries have so many times its size, over all rows."""
    rows, columns = shape
    axes = np.linalg.qr(GENERATOR.standard_normal((rows, len(scales))))[0]
    found = axes * np.asarray(scales, np.float64) @ GENERATOR.standard_normal((len(scales), columns))
    return (found + noise * GENERATOR.standard_normal(shape)).astype(dtype)


def test_the_stage_keeps_the_interface():
    """The test kit finds nothing, for matrices both ways round and for arrays that are none."""
    inputs = [with_directions([9.0], (8, 12)), with_directions([9.0], (12, 8)), np.ones(3, np.float32)]
    check_stage(KarhunenLoeve(2, 0.1), inputs=inputs, seeds=200, other_process=False)


@pytest.mark.parametrize("shape", [(64, 200), (200, 64), (5, 8, 40), (4, 4), (8, 1000)])
def test_nothing_is_lost(shape):
    """Up to rounding, whatever the shape: dimensions but the last are rows."""
    rows = int(np.prod(shape[:-1]))
    x = with_directions([30.0], (rows, shape[-1])).reshape(shape)
    stage = KarhunenLoeve(8, 0.1)
    values, basis = (encoded(stage, x)[name] for name in stage.outputs)
    rank = min(8, min(rows, shape[-1]) // 4)
    assert values.shape == (rank + min(rows, shape[-1]), max(rows, shape[-1]))
    assert basis.shape == (min(rows, shape[-1]), rank)
    np.testing.assert_allclose(reproduced(stage, x), x, rtol=0, atol=1e-5 * float(np.abs(x).max()))


def test_the_first_rows_hold_the_energy():
    """Of three strong directions, all but what their integers' rounding leaves; what is left is of the noise's size."""
    x = with_directions([30.0, 20.0, 10.0])
    stage = KarhunenLoeve(8, 1.0)
    values, basis = (encoded(stage, x)[name] for name in stage.outputs)
    kept = np.abs(basis).sum(axis=0) > 0
    assert kept.tolist() == [True] * 3 + [False] * 5
    spectrum = np.linalg.svd(x, compute_uv=False) ** 2
    assert (values[:3] ** 2).sum() > 0.95 * spectrum[:3].sum()
    assert (values[3:8] == 0).all()


@pytest.mark.parametrize("shape", [(64, 200), (64, 64), (200, 64)])
@pytest.mark.parametrize(("scale", "is_worth_it"), [(0.5, False), (1.0, False), (8.0, True), (30.0, True)])
def test_directions_that_do_not_pay_are_not_sent(scale, is_worth_it, shape):
    """One saves what its energy costs in all entries, and takes its coordinates and itself."""
    x = with_directions([scale], shape)
    assert encoded(KarhunenLoeve(4, 1.0), x)["basis"].any() == is_worth_it


def test_errors_are_those_of_the_quantizer():
    """A dither's, step**2 / 12 for each entry, unbiased, in every direction: those beside the matrix are left out."""
    x = with_directions([30.0, 10.0], (16, 40))
    step, count = 2.0, 400
    stage = KarhunenLoeve(4, step**2 / 12)
    values = jax.tree.map(jnp.asarray, encoded(stage, x))

    def error(key):
        below = Dithered(step)
        spec = TensorSpec("x", values["values"].shape, np.dtype(np.float32))
        rounded = below.encode(key, values["values"], {}) | below.regenerate(key, spec)
        decoded = below.decode(rounded, {}, num_summands=1, spec=spec)
        own = TensorSpec("x", x.shape, np.dtype(np.float32))
        return stage.decode({"values": decoded, "basis": values["basis"]}, {}, num_summands=1, spec=own) - x

    errors = np.asarray(jax.jit(jax.vmap(error))(random.derive_each(random.key(0), count)), np.float64)
    variance = step**2 / 12
    assert (errors**2).mean() == pytest.approx(variance, rel=0.02)
    t = errors.mean(axis=0) / np.sqrt(variance / count)
    assert np.abs(t).max() < 5


def test_it_is_deterministic():
    """It draws nothing: the start of its search is the same for all."""
    x = with_directions([9.0], (8, 12))
    assert not KarhunenLoeve(2, 0.1).is_stochastic
    assert np.abs(errors_over_seeds(KarhunenLoeve(2, 0.1), x, 3)).max() < 1e-5


def test_it_saves_what_theory_says():
    """Against the same dither by rows and columns, on four directions: about what the variances' logarithms differ."""
    rows, columns, step = 256, 1024, 4.0
    x = with_directions([40.0] * 4, (rows, columns))

    def bits(variance):
        return np.log2(1 + variance / (step**2 / 12)) / 2

    expected = columns * (rows * bits(4 * 40**2 / rows + 1) - 4 * bits(40**2 + 1) - (rows - 4) * bits(1.0))
    plain, own = (codecs.encode(x, each, seed=1) for each in (plainly_dithered(step), codecs.karhunen_loeve(step)))
    assert 8 * (len(plain) - len(own)) > 0.8 * expected
    decoded = np.asarray(codecs.decode(own))
    assert ((decoded - x) ** 2).mean() == pytest.approx(step**2 / 12, rel=0.02)


def test_matrices_without_structure_take_as_many_bytes():
    """Directions that are not sent cost next to nothing."""
    x = GENERATOR.standard_normal((256, 1024)).astype(np.float32)
    plain = len(codecs.encode(x, plainly_dithered(1.3), seed=1))
    assert len(codecs.encode(x, codecs.karhunen_loeve(1.3), seed=1)) < 1.01 * plain


@pytest.mark.parametrize("spread", [1.0, 3.0])
def test_what_rows_and_columns_tell_is_left_to_them(spread):
    """Where only these differ, directions are those of the largest rows: none is sent, and zero rows take little."""
    scales = [np.exp(spread * GENERATOR.standard_normal(size)) for size in (256, 512)]
    x = (np.outer(*scales) * GENERATOR.standard_normal((256, 512))).astype(np.float32)
    x /= np.sqrt((x**2).mean())
    assert not encoded(KarhunenLoeve(32, 1.25**2 / 12), x)["basis"].any()
    plain, own = (codecs.encode(x, each, seed=1) for each in (plainly_dithered(1.25), codecs.karhunen_loeve(1.25)))
    assert len(own) < 1.1 * len(plain) + 100  # of a longer description


@pytest.mark.parametrize("shape", [(40,), (), (3, 900), (0, 9), (900, 3)])
def test_small_arrays_travel_as_they_are(shape):
    """Those of fewer than two dimensions, or with a side of fewer than four entries."""
    x = GENERATOR.standard_normal(shape).astype(np.float32)
    stage = KarhunenLoeve(3, 1.0)
    assert encoded(stage, x)["basis"].size == 0
    np.testing.assert_array_equal(reproduced(stage, x), x)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_scales(scale):
    """Tiny and huge matrices, and zeros, come back like others."""
    x = (with_directions([9.0], (20, 30)) * scale).astype(np.float32)
    x_hat = reproduced(KarhunenLoeve(4, max(scale, 1e-15) ** 2 * 0.1 if scale < 1e15 else 1.0), x)
    np.testing.assert_allclose(x_hat, x, rtol=0, atol=1e-5 * float(np.abs(x).max()))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_precisions(dtype):
    """Halves are computed in float32, doubles in float64."""
    with jax.enable_x64(True):
        x = with_directions([9.0], (20, 30), dtype=np.float64).astype(dtype)
        found = reproduced(KarhunenLoeve(4, 0.1), x)
        assert found.dtype == dtype
        allowed = 4 * float(jnp.finfo(dtype).eps) + (0 if dtype == np.float64 else 1e-6)
        difference = np.abs(found.astype(np.float64) - x.astype(np.float64)).max()
        assert difference < 4 * allowed * float(np.abs(x.astype(np.float64)).max())


@settings(deadline=None, derandomize=True, database=None)  # the first call compiles
@given(hnp.arrays(np.int8, (12, 5)), st.data())
def test_any_integers_make_directions(basis, data):
    """Also zeros, and columns that lie in others: what both ends make of them is orthonormal, or zero."""
    if data.draw(st.booleans()):
        basis[:, 3] = basis[:, 1]
    directions = np.asarray(_orthonormal(jnp.asarray(basis), np.dtype(np.float32)), np.float64)
    product = directions.T @ directions
    is_there = np.diag(product) > 0.5
    np.testing.assert_allclose(product, np.diag(is_there.astype(float)), atol=1e-3)


def test_degenerate_matrices():
    """Equal singular values, a single entry, one direction only: no NaN, and nothing lost."""
    for x in (np.eye(40, 48), np.eye(40, 1) * np.eye(1, 48), np.ones((40, 48))):
        x = x.astype(np.float32)
        np.testing.assert_allclose(reproduced(KarhunenLoeve(6, 1e-3), x), x, atol=1e-5)


def test_through_bytes():
    """A model's tree, each tensor its own way; a payload that was cut is refused."""
    codec = codecs.karhunen_loeve(0.5, rank=4)
    assert codec.is_unbiased
    assert not codec.commutes_with_sum
    tree = {"kernel": with_directions([30.0], (40, 60)), "bias": np.ones(7, np.float32)}
    blob = codecs.encode(tree, codec, seed=3)
    for name, found in codecs.decode(blob).items():
        assert np.abs(np.asarray(found) - tree[name]).max() < 1.5
    with pytest.raises(DecodeError):
        codecs.decode(blob[:-5])


@pytest.mark.parametrize(
    ("arguments", "kind", "match"),
    [
        ((0, 1.0), ArgumentError, "rank must"),
        ((300, 1.0), ArgumentError, "rank must"),
        ((2.5, 1.0), ArgumentTypeError, "rank must be"),
        ((2, 0.0), ArgumentError, "distortion must be"),
        ((2, "1"), ArgumentTypeError, "distortion must be"),
    ],
)
def test_wrong_arguments(arguments, kind, match):
    """Each is named."""
    with pytest.raises(kind, match=match):
        KarhunenLoeve(*arguments)
    with pytest.raises(ArgumentError, match="step must be"):
        codecs.karhunen_loeve(-1.0)


def test_integers_are_refused():
    """They have another codec."""
    with pytest.raises(ArgumentTypeError, match="karhunen_loeve takes floating-point arrays"):
        codecs.encode(np.ones((8, 8), np.int32), codecs.karhunen_loeve(1.0), seed=0)

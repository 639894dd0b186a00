"""Low-rank factors: exact where the rank suffices, near the best approximation elsewhere, harmless on anything."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from unbiasedness_support import encoded, reproduced

from laconic import codecs
from laconic.codecs import TensorSpec, random
from laconic.codecs.stages._low_rank import LowRank
from laconic.errors import ArgumentError, ArgumentTypeError
from laconic.testing import check_stage

GENERATOR = np.random.default_rng(0)
DECAYING = (
    np.linalg.qr(GENERATOR.standard_normal((20, 12)))[0]
    @ np.diag(2.0 ** -np.arange(12))
    @ np.linalg.qr(GENERATOR.standard_normal((12, 12)))[0]
).astype(np.float32)
"""Singular values 1, 1/2, 1/4 ..."""


def of_rank(rank, shape=(20, 12), dtype=np.float32):
    """A matrix of this rank."""
    factors = GENERATOR.standard_normal((shape[0], rank)), GENERATOR.standard_normal((rank, shape[1]))
    return (factors[0] @ factors[1]).astype(dtype)


def error(x, x_hat):
    """Squared error over squared norm, in double precision."""
    x = x.astype(np.float64)
    return ((x_hat - x) ** 2).sum() / (x**2).sum()


@pytest.mark.parametrize("warm_start", [False, True])
def test_the_stage_keeps_the_interface(warm_start):
    """The test kit finds nothing, for a matrix that is factorised and an array that is not."""
    stage = LowRank(1, warm_start=warm_start)
    check_stage(stage, inputs=[DECAYING[:5, :4], np.ones(3, np.float32)], seeds=200, other_process=False)


@pytest.mark.parametrize("rank", [1, 3])
def test_low_ranks_are_exact(rank):
    """A matrix of the rank itself, or a lower one, comes back."""
    for of in (1, rank):
        x = of_rank(of)
        assert error(x, reproduced(LowRank(rank), x)) < 1e-11


def test_columns_are_orthonormal_and_the_error_is_what_they_leave():
    """P^T P is the identity, Q = M^T P, and so the error is |M|^2 - |Q|^2."""
    left, right, values = encoded(LowRank(3), DECAYING).values()
    np.testing.assert_allclose(left.T @ left, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(right, DECAYING.T @ left, atol=1e-6)
    assert values.shape == (0,)
    energy = (DECAYING**2).sum()
    assert error(DECAYING, reproduced(LowRank(3), DECAYING)) == pytest.approx(1 - (right**2).sum() / energy, rel=1e-3)


def test_iterations_tend_to_the_best_approximation():
    """One iteration comes near the singular value decomposition, ten reach it."""
    spectrum = np.linalg.svd(DECAYING, compute_uv=False) ** 2
    best = spectrum[2:].sum() / spectrum.sum()
    errors = [error(DECAYING, reproduced(LowRank(2, iterations), DECAYING)) for iterations in (1, 3, 10)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[0] < 4 * best
    assert errors[2] == pytest.approx(best, rel=1e-3)


@pytest.mark.parametrize(
    ("shape", "is_factorised"),
    [
        ((20, 12), True),
        ((4, 5, 12), True),
        ((3, 3), False),
        ((5, 4), False),
        ((40,), False),
        ((), False),
        ((0, 9), False),
    ],
)
def test_small_arrays_travel_as_they_are(shape, is_factorised):
    """Factors are sent only of arrays with at least two dimensions that have more entries than they."""
    x = GENERATOR.standard_normal(shape).astype(np.float32)
    left, right, values = encoded(LowRank(3), x).values()
    assert LowRank(3).factorises(shape) == is_factorised
    if is_factorised:
        assert left.shape == (20, 3)
        assert right.shape == (12, 3)
        assert values.size == 0
    else:
        assert left.size == right.size == 0
        np.testing.assert_array_equal(reproduced(LowRank(3), x), x)


def test_last_dimension_is_kept_apart():
    """A convolution's kernel is a matrix with a column for each output channel."""
    x = of_rank(1, (27, 8)).reshape(3, 3, 3, 8)
    assert error(x, reproduced(LowRank(1), x)) < 1e-11


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30, 5e37])
def test_scales(scale):
    """Tiny and huge matrices, and zeros, come back like others."""
    x = (of_rank(2) * scale / 10).astype(np.float32)
    x_hat = reproduced(LowRank(2), x)
    np.testing.assert_allclose(x_hat, x, atol=1e-5 * float(np.abs(x).max()))


def test_degenerate_matrices():
    """Equal columns, a single entry, zero columns: no NaN, and exact."""
    for x in (np.ones((9, 8)), np.eye(9, 8)[:, :1] * np.eye(1, 8), np.eye(9, 8) * (np.arange(8) < 2)):
        x = x.astype(np.float32)
        np.testing.assert_allclose(reproduced(LowRank(3), x), x, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_precisions(dtype):
    """Halves are factorised in float32, doubles in float64, and nothing becomes infinite."""
    with jax.enable_x64(True):
        x = of_rank(2, dtype=np.float64).astype(dtype)
        assert encoded(LowRank(4), x)["left"].dtype == (np.float64 if dtype == np.float64 else np.float32)
        allowed = 10 * float(jnp.finfo(dtype).eps) ** 2 + (0 if dtype == np.float64 else 1e-4)
        assert error(x, reproduced(LowRank(4), x).astype(np.float64)) < allowed
        largest = np.full((9, 8), float(jnp.finfo(dtype).max) / (1 if dtype == np.float16 else 10)).astype(dtype)
        assert np.isfinite(reproduced(LowRank(1), largest).astype(np.float64)).all()


def test_range():
    """A column whose norm the dtype cannot hold is refused."""
    codec = codecs.chain(LowRank(1))
    codecs.encode(np.full((16, 4), 4e37, np.float32), codec, seed=0)
    with pytest.raises(ArgumentError, match="holds values beyond the range of its codec"):
        codecs.encode(np.full((16, 4), 1e38, np.float32), codec, seed=0)


# Warm start.


def test_warm_start_is_a_memory_of_the_sender():
    """A stage with warm start needs a memory and no key; each sender's first Q is the same."""
    codec = codecs.chain(LowRank(2, warm_start=True))
    assert codec.needs_client_state
    assert not codec.is_stochastic
    assert not codecs.chain(LowRank(2)).needs_client_state
    bound = codecs.bind(codec, DECAYING)
    blobs = [bound.contribute(DECAYING, bound.initial_memory())[0].blob for _ in range(2)]
    assert blobs[0] == blobs[1]


def test_warm_start_iterates_from_round_to_round():
    """Encoding the same matrix ten times is as good as ten iterations in one."""
    bound = codecs.bind(codecs.chain(LowRank(2, warm_start=True)), DECAYING)
    memory, errors = bound.initial_memory(), []
    for _ in range(10):
        payload, memory = bound.contribute(DECAYING, memory)
        gather = bound.gather()
        gather.add(payload.blob)
        errors.append(error(DECAYING, np.asarray(gather.result()[0])))
    spectrum = np.linalg.svd(DECAYING, compute_uv=False) ** 2
    assert errors[0] > errors[1] > errors[-1]
    assert errors[-1] == pytest.approx(spectrum[2:].sum() / spectrum.sum(), rel=1e-3)


def test_warm_start_survives_zeros():
    """After an update of zeros the memory is as before it."""
    bound = codecs.bind(codecs.chain(LowRank(2, warm_start=True)), DECAYING)
    _, memory = bound.contribute(DECAYING, bound.initial_memory())
    _, after = bound.contribute(np.zeros_like(DECAYING), memory)
    for before, now in zip(jax.tree.leaves(memory), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(before, now)


def test_warm_start_remembers_nothing_of_small_arrays():
    """What travels as it is needs no memory."""
    bound = codecs.bind(codecs.chain(LowRank(2, warm_start=True)), np.zeros(5, np.float32))
    assert not jax.tree.leaves(bound.initial_memory())
    payload, _ = bound.contribute(np.arange(5, dtype=np.float32), bound.initial_memory())
    assert bound.read_contribution(payload.blob).summands[0].tolist() == [0, 1, 2, 3, 4]


# Arguments.


@pytest.mark.parametrize("arguments", [{"rank": 0}, {"iterations": 0}, {"iterations": 1001}])
def test_arguments_out_of_range(arguments):
    """Ranks and iterations are one or more."""
    [name] = arguments
    with pytest.raises(ArgumentError, match=rf"{name} must lie in 1\.\."):
        LowRank(**arguments)


@pytest.mark.parametrize("arguments", [{"rank": 2.0}, {"iterations": "3"}, {"warm_start": 1}])
def test_arguments_of_the_wrong_kind(arguments):
    """Arguments of another type are refused by name."""
    [name] = arguments
    with pytest.raises(ArgumentTypeError, match=f"{name} must be"):
        LowRank(**arguments)


def test_integers_are_refused():
    """Integers are not factorised; the error names the tensor."""
    with pytest.raises(ArgumentTypeError, match=r"^steps is int32\[3,4\], but low_rank takes floating-point arrays"):
        LowRank().check(TensorSpec("steps", (3, 4), np.dtype(np.int32)))


def test_no_dimension_of_the_subspace_is_preferred():
    """Q begins at random: other keys, other factors."""
    x = of_rank(4)
    stage = LowRank(2)
    lefts = [np.asarray(stage.encode(random.key(seed), jnp.asarray(x), {})["left"]) for seed in (0, 1)]
    assert np.abs(lefts[0] - lefts[1]).max() > 1e-3

"""Sparsifiers keep what they say, and only that; random ones are unbiased, shared ones commute."""

import hypothesis
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from codec_support import few_examples, gathered
from hypothesis import strategies as st
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

from laconic import codecs
from laconic.codecs import TensorSpec, random
from laconic.codecs.stages._gaussian import largest_entries
from laconic.codecs.stages._sparsifiers import (
    RandomK,
    SharedRandomK,
    SparseTernary,
    Threshold,
    TopK,
    below,
    kept,
    largest_mask,
    random_positions,
)
from laconic.errors import ArgumentError, ArgumentTypeError
from laconic.testing import check_stage

FEW_INPUTS = {name: ADVERSARIAL[name][:27] for name in ("normal", "zero")}
mask_of = jax.jit(largest_mask, static_argnums=1)
positions_of = jax.jit(random_positions, static_argnums=(1, 2))


def sorted_mask(x, count):
    """The same as `largest_mask`, by a stable sort."""
    mask = np.zeros(x.size, bool)
    mask[np.argsort(-np.abs(x), kind="stable")[:count]] = True
    return mask


@pytest.mark.parametrize(
    "stage", [TopK(0.2), Threshold(0.5), SparseTernary(0.3), RandomK(0.3), SharedRandomK(0.3)], ids=str
)
def test_stages_keep_the_interface(stage):
    """The test kit finds nothing: purity, sizes, flags, sums, state, wire."""
    check_stage(stage, inputs=FEW_INPUTS, clients=2, seeds=200, other_process=False)


# Which entries are the largest.


@few_examples
@hypothesis.given(
    values=st.lists(st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.5, -1e-38, 3e38]), min_size=12, max_size=12),
    count=st.sampled_from([1, 5, 12]),
)
def test_the_largest_entries_of_any_vector(values, count):
    """They are those of a stable sort: of equal magnitudes the first."""
    x = np.array(values, np.float32)
    np.testing.assert_array_equal(mask_of(x, count), sorted_mask(x, count))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_the_largest_entries_in_every_precision(dtype):
    """Ties, of which half precision has many, and values that only doubles tell apart."""
    x = np.random.default_rng(0).standard_normal(500).astype(dtype)
    x[100:110] = x[0]
    with jax.enable_x64(True):
        np.testing.assert_array_equal(mask_of(x, 37), sorted_mask(x.astype(np.float64), 37))


@pytest.mark.parametrize(
    ("fraction", "size", "count"),
    [(0.01, 0, 0), (0.01, 1, 1), (0.01, 49, 1), (0.01, 150, 2), (0.01, 250, 2), (0.5, 3, 2), (1, 7, 7), (0.999, 3, 3)],
)
def test_how_many_are_kept(fraction, size, count):
    """round(fraction n), half to even, but one at least; none of none."""
    assert kept(fraction, size) == count


# Top-k.


def test_top_k_keeps_the_largest():
    """Values are bit for bit those of the largest entries, in order, gaps the entries between; the others are zero."""
    x = ADVERSARIAL["heavy tails"]
    mask = sorted_mask(x, 13)
    gaps, values = encoded(TopK(0.2), x).values()
    positions = np.flatnonzero(mask)
    np.testing.assert_array_equal(values, x[positions])
    np.testing.assert_array_equal(gaps, np.diff(positions, prepend=-1) - 1)
    assert gaps.dtype == np.uint32
    np.testing.assert_array_equal(reproduced(TopK(0.2), x), np.where(mask, x, 0))


def test_top_k_contracts():
    """The error is at most (1 - k / n) |x|^2, and that for equal magnitudes."""
    for name, x in ADVERSARIAL.items():
        scale = np.float64(np.abs(x).max()) or 1.0
        x_hat = reproduced(TopK(0.25), x)
        error = ((x_hat / scale - x / scale) ** 2).sum()
        assert error <= 0.75 * ((x / scale) ** 2).sum() * (1 + 1e-6), name
    x = ADVERSARIAL["constant"]
    np.testing.assert_array_equal(reproduced(TopK(0.25), x), np.where(np.arange(SIZE) < 16, x, 0))


def test_top_k_of_everything_is_lossless():
    """With fraction 1 every entry comes back, with gaps of zero."""
    x = ADVERSARIAL["normal"]
    np.testing.assert_array_equal(reproduced(TopK(1.0), x), x)
    assert not encoded(TopK(1.0), x)["gaps"].any()


def test_top_k_ignores_positions_beyond_the_end():
    """Gaps that no encoder sends decode to an array all the same."""
    spec = TensorSpec("x", (5,), np.dtype(np.float32))
    for gaps in ([3, 1000], [2**32 - 1, 0], [2**32 - 1, 2**32 - 1], [2**31, 2**31 - 2]):
        arrays = {"gaps": jnp.array(gaps, jnp.uint32), "values": jnp.float32([1, 2])}
        x = TopK(0.4).decode(arrays, {}, num_summands=1, spec=spec)
        assert x.shape == (5,)
        assert np.isin(x, [0, 1, 2]).all()


@pytest.mark.parametrize(
    ("fraction", "top_k", "ternary"), [(0.1, 0.561, 0.575), (0.01, 0.916, 0.916), (0.001, 0.987, 0.987)]
)
def test_expected_errors_of_gaussian_vectors(fraction, top_k, ternary):
    """Theory's figures, and what is measured."""
    assert TopK(fraction).expected_nmse(10**6) == pytest.approx(top_k, abs=0.001)
    assert SparseTernary(fraction).expected_nmse(10**6) == pytest.approx(ternary, abs=0.001)
    x = np.sort(np.abs(np.random.default_rng(0).standard_normal(400_000)))[::-1]
    energy, mean = largest_entries(fraction)
    largest = x[: round(fraction * x.size)]
    assert energy == pytest.approx((largest**2).sum() / (x**2).sum(), rel=0.02)
    assert mean == pytest.approx(largest.mean(), rel=0.01)


def test_expected_errors_at_the_ends():
    """All entries: no error for top-k, that of signs for ternary; none: no error."""
    assert TopK(1.0).expected_nmse(10) == 0
    assert SparseTernary(1.0).expected_nmse(10) == pytest.approx(1 - 2 / np.pi)
    for stage in (TopK(), SparseTernary(), RandomK()):
        assert stage.expected_nmse(0) == 0


# Threshold.


def test_threshold_keeps_what_is_above():
    """Strictly above; the others become positive zeros."""
    x = np.float32([0.5, -0.5, 0.51, -3, 0, -0.0, 2e-38])
    x_hat = reproduced(Threshold(0.5), x)
    assert x_hat.tobytes() == np.float32([0, 0, 0.51, -3, 0, 0, 0]).tobytes()
    assert reproduced(Threshold(0), x).tobytes() == np.float32([0.5, -0.5, 0.51, -3, 0, 0, 2e-38]).tobytes()


def test_threshold_in_other_precisions():
    """The comparison is in float32 for halves, in float64 for doubles."""
    with jax.enable_x64(True):
        x = np.array([0.1, 0.1 + 1e-12])
        np.testing.assert_array_equal(reproduced(Threshold(0.1), x), [0, x[1]])
    half = np.array([0.1, 0.2], np.float16)  # float16's 0.1 is 0.09998
    np.testing.assert_array_equal(reproduced(Threshold(0.1), half), np.array([0, 0.2], np.float16))


# Sparse ternary.


def test_sparse_ternary_is_the_papers_algorithm():
    """Signs of the largest entries, and their mean magnitude; the error is |x|^2 - k mu^2."""
    x = ADVERSARIAL["heavy tails"]
    mask = sorted_mask(x, 19)
    codes, scale = encoded(SparseTernary(0.3), x).values()
    np.testing.assert_array_equal(codes, np.where(mask, np.sign(x), 0))
    assert scale[0] == pytest.approx(np.abs(x[mask]).mean(), rel=1e-6)
    error = ((reproduced(SparseTernary(0.3), x).astype(np.float64) - x) ** 2).sum()
    assert error == pytest.approx((x.astype(np.float64) ** 2).sum() - 19 * np.float64(scale[0]) ** 2, rel=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e30, 3e38])
def test_sparse_ternary_scale_does_not_overflow(scale):
    """The mean magnitude of entries of any scale; zeros among the largest do not lower it."""
    x = np.where(np.arange(SIZE) < 5, -scale, 0).astype(np.float32)
    codes, mean = encoded(SparseTernary(0.5), x).values()
    assert np.abs(codes).sum() == 5
    np.testing.assert_allclose(mean, [scale], rtol=1e-5)


# Random-k.


@pytest.mark.parametrize(("size", "count"), [(1, 1), (10, 10), (11, 4)])
def test_each_position_is_as_likely(size, count):
    """Positions are different, below the size, and each comes up with probability count / size."""
    keys = random.derive_each(random.key(1), 4000)
    drawn = np.asarray(jax.jit(jax.vmap(lambda key: random_positions(key, size, count)))(keys))
    assert drawn.max() < size
    ordered = np.sort(drawn, axis=1)
    assert (np.diff(ordered, axis=1) > 0).all()
    share = count / size
    deviation = np.sqrt(share * (1 - share) / len(keys))
    np.testing.assert_allclose(np.bincount(drawn.reshape(-1), minlength=size) / len(keys), share, atol=5 * deviation)


def test_positions_are_as_the_page_says():
    """Arcs of nearly equal lengths, a position in each, all turned; written out in integers of any width."""
    words = np.asarray(random.bits(random.key(9), 8)).astype(object)
    starts, lengths = [0, 15, 30, 44, 58, 72, 86], [15, 15, 14, 14, 14, 14, 14]
    turn = words[7] * 100 // 2**32
    expected = [
        (start + word * length // 2**32 + turn) % 100
        for start, word, length in zip(starts, words, lengths, strict=False)
    ]
    assert positions_of(random.key(9), 100, 7).tolist() == expected


def test_golden_positions():
    """The same positions for ever, on all machines."""
    assert positions_of(random.key(0), 1_000_000, 4).tolist() == [858005, 82061, 351681, 653515]


@few_examples
@hypothesis.given(word=st.integers(0, 2**32 - 1), bound=st.integers(1, 2**32 - 1))
def test_numbers_below_a_bound(word, bound):
    """floor(word bound / 2**32), though only 32 bits are computed with."""
    number = below(jnp.array([word], jnp.uint32), jnp.array([bound], jnp.uint32))
    assert number.tolist() == [word * bound >> 32]


@pytest.mark.parametrize("name", [name for name in ADVERSARIAL if name != "near the end"])
def test_random_k_is_unbiased(name):
    """Over 400 keys no t statistic of the error exceeds what one unbiased stage in a million shows."""
    x = ADVERSARIAL[name]
    assert t_statistics(errors_over_seeds(RandomK(0.3), x), x).max() < LARGEST_T


@pytest.mark.parametrize("name", ["normal", "heavy tails", "alternating"])
def test_random_k_error(name):
    """The expected squared error is (n / k - 1) |x|^2 for every x, as expected_nmse says."""
    stage = RandomK(0.3)
    assert stage.expected_nmse(SIZE) == pytest.approx(SIZE / 19 - 1)
    assert mean_squared_error(stage, ADVERSARIAL[name], 2000) == pytest.approx(SIZE / 19 - 1, rel=0.1)


def test_random_k_sends_values_alone():
    """A payload holds k values, and 8 bytes for the key from which positions are made again."""
    x = np.arange(1, 1001, dtype=np.float32)
    payload, _ = codecs.bind(codecs.chain(RandomK(0.02)), x).encode(x, key=random.key(4))
    assert len(payload.blob) == 8 + 8 + 20 * 4
    x_hat = np.asarray(codecs.decode(codecs.encode(x, codecs.chain(RandomK(0.02)), seed=4)))
    assert np.count_nonzero(x_hat) == 20
    np.testing.assert_allclose(x_hat[x_hat != 0], 50 * x[x_hat != 0], rtol=1e-6)


def test_random_k_of_all_is_lossless():
    """With fraction 1 every entry comes back."""
    x = ADVERSARIAL["normal"]
    np.testing.assert_array_equal(reproduced(RandomK(1.0), x), x)


def test_random_k_range():
    """Entries that would overflow times n / k are refused."""
    codec = codecs.chain(RandomK(0.5))
    codecs.encode(np.full(4, 1.6e38, np.float32), codec, seed=0)
    with pytest.raises(ArgumentError, match="holds values beyond the range of its codec"):
        codecs.encode(np.full(4, 1.8e38, np.float32), codec, seed=0)


# Random-k with common positions.


def test_shared_positions_commute_with_the_sum():
    """Values are summed while encoded, and the decoded sum is that of the decodings."""
    codec = codecs.chain(SharedRandomK(0.25, seed=3))
    assert codec.commutes_with_sum
    assert not codec.is_unbiased
    assert not codec.is_stochastic
    xs = [np.random.default_rng(client).standard_normal((4, 6)).astype(np.float32) for client in range(5)]
    bound = codecs.bind(codec, xs[0])
    assert [a.shape for a in bound.read_contribution(bound.encode_contribution(xs[0]).blob).summands] == [(6,)]
    summed, _ = gathered(bound, xs)
    is_kept = np.asarray(summed) != 0
    assert is_kept.sum() == 6
    np.testing.assert_allclose(np.asarray(summed)[is_kept], 4 * np.sum(xs, axis=0)[is_kept], rtol=1e-5)


def test_shared_positions_change_with_the_round_and_average_out():
    """Over 400 rounds each entry comes up with probability k / n, so that the mean of the decodings is the input."""
    stage = SharedRandomK(0.25, seed=3)
    x = ADVERSARIAL["normal"]
    spec = TensorSpec("x", x.shape, x.dtype)

    def reproduce(number):
        told = {"round": number}
        return stage.decode(stage.encode(random.key(0), jnp.asarray(x), told), told, num_summands=1, spec=spec)

    decoded = np.asarray(jax.jit(jax.vmap(reproduce))(jnp.arange(400, dtype=jnp.uint32)), np.float64)
    assert t_statistics(decoded - x, x).max() < LARGEST_T
    assert (np.count_nonzero(decoded, axis=0) > 60).all()


def test_the_server_tells_the_round():
    """Its state counts rounds; a sender that is told another round draws other positions."""
    x = np.arange(1, 101, dtype=np.float32)
    bound = codecs.bind(codecs.chain(SharedRandomK(0.1)), x)
    first, state = gathered(bound, [x, x])
    second, state = gathered(bound, [x, x], state=state)
    assert (np.flatnonzero(first) != np.flatnonzero(second)).any()
    [told] = jax.tree.leaves(bound.encode_parameters(state))
    assert (told, told.dtype) == (2, np.uint32)


def test_broadcasts_carry_the_round():
    """One to many: the number travels, 4 bytes, and decoding needs nothing else."""
    x = np.arange(1, 101, dtype=np.float32)
    bound = codecs.bind(codecs.chain(SharedRandomK(0.1, 5)), x)
    _, state = bound.encode(x)
    payload, _ = bound.encode(x, state=state, described=True)
    np.testing.assert_array_equal(codecs.decode(payload.blob), bound.decode(payload.blob))
    assert np.count_nonzero(codecs.decode(payload.blob)) == 10
    assert len(bound.encode(x)[0]) == 8 + 10 * 4 + 4


# Arguments.


@pytest.mark.parametrize("kind", [TopK, SparseTernary, RandomK, SharedRandomK])
@pytest.mark.parametrize("fraction", [0, -0.5, 1.5, float("nan")])
def test_fractions_out_of_range(kind, fraction):
    """A fraction is above zero, and one at most."""
    with pytest.raises(ArgumentError, match="fraction must be"):
        kind(fraction)


@pytest.mark.parametrize("kind", [TopK, SparseTernary, RandomK, SharedRandomK])
@pytest.mark.parametrize("fraction", ["0.1", None, True])
def test_fractions_of_the_wrong_kind(kind, fraction):
    """A fraction is a number."""
    with pytest.raises(ArgumentTypeError, match="fraction must be a number, got"):
        kind(fraction)


@pytest.mark.parametrize("value", [-1, float("inf"), float("nan")])
def test_thresholds_out_of_range(value):
    """A threshold is zero or more, and finite."""
    with pytest.raises(ArgumentError, match="value must be finite and above zero, got"):
        Threshold(value)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seeds_out_of_range(seed):
    """A seed is of 63 bits."""
    with pytest.raises(ArgumentError, match="seed must lie in"):
        SharedRandomK(0.1, seed)


@pytest.mark.parametrize("stage", [TopK(), Threshold(1.0), SparseTernary(), RandomK(), SharedRandomK()], ids=str)
def test_integers_are_refused(stage):
    """Integers are not sparsified; the error names the tensor."""
    with pytest.raises(ArgumentTypeError, match=r"^steps is uint8\[3\], but \w+ takes floating-point arrays"):
        stage.check(TensorSpec("steps", (3,), np.dtype(np.uint8)))


def test_sizes_that_positions_cannot_count():
    """2^31 entries and more are refused."""
    with pytest.raises(ArgumentError, match="top_k takes fewer than 2147483648; split it"):
        TopK().check(TensorSpec("w", (2**16, 2**15), np.dtype(np.float32)))

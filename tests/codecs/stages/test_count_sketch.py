"""Count sketches are linear, find large entries, and the receiver loses nothing of what it does not yet take out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from codec_support import gathered
from unbiasedness_support import encoded, reproduced

from laconic import codecs
from laconic.codecs import TensorSpec, random
from laconic.codecs.stages._count_sketch import CountSketch, _median
from laconic.errors import ArgumentError, ArgumentTypeError
from laconic.testing import check_stage

SIZE = 2000
STAGE = CountSketch(rows=5, columns=300, keep=0.005)
GENERATOR = np.random.default_rng(0)


def with_spikes(seed=0, noise=0.01):
    """Noise, and ten large entries."""
    generator = np.random.default_rng(seed)
    x = noise * generator.standard_normal(SIZE)
    x[np.random.default_rng(9).choice(SIZE, 10, replace=False)] += generator.choice([-5, 5], 10) + x[:10]
    return x.astype(np.float32)


def sketch_of(x, stage=STAGE):
    """A vector's sketch, as a table."""
    return encoded(stage, x)["sketch"].reshape(stage.rows, -1)


def test_the_stage_keeps_the_interface():
    """The test kit finds nothing: purity, flags, and a state that keeps its shapes over cohorts of several sizes."""
    stage = CountSketch(rows=3, fraction=0.5, keep=0.2, momentum=0.5)
    check_stage(stage, inputs=with_spikes()[:27], clients=2, seeds=200, other_process=False)


def test_sketch_is_the_definition():
    """Row j adds sign times entry to column floor(w columns / 2^32), of words of the key that the page names."""
    x = GENERATOR.standard_normal(40).astype(np.float32)
    stage = CountSketch(rows=3, columns=7, seed=11)
    expected = np.zeros((3, 7))
    for row in range(3):
        words = np.asarray(random.bits(random.derive(random.key(11), "count_sketch", row), 40)).astype(object)
        for word, value in zip(words, x, strict=True):
            expected[row, word * 7 >> 32] += float(value) * (1 - 2 * (word % 2))
    np.testing.assert_allclose(sketch_of(x, stage), expected, atol=1e-5)


def test_sketches_add():
    """The sketch of a sum is the sum of the sketches."""
    xs = [with_spikes(seed) for seed in range(3)]
    np.testing.assert_allclose(sketch_of(np.sum(xs, axis=0)), np.sum([sketch_of(x) for x in xs], axis=0), atol=1e-4)


def test_estimates_are_unbiased_over_seeds():
    """Over 4 x 63 rows the mean estimate is the input (t-test), and its variance |x|^2 / columns or less."""
    x = with_spikes()[:100]
    errors = []
    for seed in range(4):
        stage = CountSketch(rows=63, columns=20, seed=seed)
        hashes = jax.vmap(stage._hashes, in_axes=(0, None))(stage._keys(), 100)
        for signs, places in zip(*map(np.asarray, hashes), strict=True):
            errors.append(signs * np.bincount(places, signs * x, minlength=20)[places] - x)
    errors = np.stack(errors)
    t = errors.mean(axis=0) / (errors.std(axis=0, ddof=1) / np.sqrt(len(errors)))
    assert np.abs(t).max() < 5.5
    assert (errors**2).mean() == pytest.approx((x**2).sum() / 20, rel=0.15)


def test_large_entries_are_found():
    """The ten spikes, at their positions, within the bound that the median keeps."""
    x = with_spikes()
    x_hat = reproduced(STAGE, x)
    np.testing.assert_array_equal(np.flatnonzero(x_hat), np.sort(np.argsort(-np.abs(x))[:10]))
    assert np.abs(x_hat - x)[x_hat != 0].max() < 2 * np.linalg.norm(x) / np.sqrt(300)


def test_a_sum_is_taken_in_sketches():
    """Contributions stay sketches until they are added, and the sum's spikes are found though no client has them."""
    codec = codecs.chain(STAGE)
    assert codec.commutes_with_sum
    assert codec.has_receiver_memory
    assert not codec.needs_client_state
    whole = with_spikes(noise=0)
    hidden = [GENERATOR.standard_normal(SIZE).astype(np.float32) for _ in range(3)]
    xs = [whole / 4 + x for x in hidden] + [(whole / 4 - np.sum(hidden, axis=0)).astype(np.float32)]
    bound = codecs.bind(codec, whole)
    contribution = bound.read_contribution(bound.encode_contribution(xs[0]).blob)
    assert [array.shape for array in contribution.summands] == [(1500,)]
    summed, _ = gathered(bound, xs)
    np.testing.assert_allclose(summed, np.where(whole != 0, whole, 0), atol=1e-3)


def test_what_is_left_out_stays():
    """What the receiver gave out and what it remembers add up, as sketches, to all that was sent."""
    bound = codecs.bind(codecs.chain(STAGE), np.zeros(SIZE, np.float32))
    state, given, sent = bound.initial_state(), np.zeros(SIZE), np.zeros(SIZE)
    for round_number, cohort in enumerate((2, 3, 1)):
        xs = [with_spikes(10 * round_number + client, noise=1.0) for client in range(cohort)]
        summed, state = gathered(bound, xs, state=state)
        given += np.asarray(summed) / cohort
        sent += np.mean(xs, axis=0)
    [error] = [leaf for leaf in jax.tree.leaves(state) if leaf.size]
    left = sketch_of(sent.astype(np.float32)) - sketch_of(given.astype(np.float32))
    np.testing.assert_allclose(error.reshape(5, 300), left, atol=1e-3)


def test_smaller_entries_come_in_their_turn():
    """Of an update 1, 1/2, 1/3 ... ten entries are taken out a round; their mean over rounds tends to the update."""
    x = (np.where(np.arange(SIZE) % 2, 1, -1) / np.arange(1, SIZE + 1)).astype(np.float32)
    bound = codecs.bind(codecs.chain(STAGE), x)
    state, given, errors = bound.initial_state(), np.zeros(SIZE), []
    for rounds in range(1, 21):
        summed, state = gathered(bound, [x], state=state)
        given += np.asarray(summed)
        errors.append(((given / rounds - x) ** 2).sum() / (x**2).sum())
    assert np.count_nonzero(given) > 20
    assert errors[0] > 2 * errors[-1]


def test_momentum_is_the_receivers():
    """With momentum 1/2 a spike goes on coming after it was sent: 1, 1/2, 1/4 ... of it."""
    stage = CountSketch(rows=3, columns=50, keep=0.001, momentum=0.5)
    bound = codecs.bind(codecs.chain(stage), np.zeros(1000, np.float32))
    spike = np.float32(8) * np.eye(1, 1000, 123, dtype=np.float32)[0]
    state, values = bound.initial_state(), []
    for x in (spike, *[np.zeros(1000, np.float32)] * 3):
        summed, state = gathered(bound, [x], state=state)
        values.append(float(summed[123]))
    np.testing.assert_allclose(values, [8, 4, 2, 1], rtol=1e-4)


def test_broadcasts_are_refused():
    """Decoding depends on what one receiver remembers."""
    with pytest.raises(ArgumentError, match="serves contributions to one receiver only"):
        codecs.encode(np.zeros(100, np.float32), codecs.chain(STAGE))


def test_shapes_and_precisions():
    """Small and empty tensors come back in their shape and dtype, a single entry exactly."""
    shapes = [((), np.float32), ((1,), np.float64), ((0,), np.float32), ((2, 3), np.float16)]
    xs = [np.ones(shape, dtype) for shape, dtype in shapes]
    bound = codecs.bind(codecs.chain(CountSketch(rows=3, fraction=0.5, keep=1.0, momentum=0.9)), xs)
    summed, _ = gathered(bound, [xs, xs])
    for x, decoded in zip(xs, summed, strict=True):
        assert (decoded.shape, decoded.dtype) == (x.shape, x.dtype)
        assert np.isfinite(decoded).all()
        if x.size == 1:
            np.testing.assert_array_equal(decoded, 2 * x)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scales(scale):
    """Sketches of tiny and huge entries are like those of others."""
    x = with_spikes()
    scaled = reproduced(STAGE, x * np.float32(scale)) / np.float32(scale)
    np.testing.assert_allclose(scaled, reproduced(STAGE, x), rtol=1e-4, atol=1e-5)


def test_range():
    """What could overflow when it is added up is refused."""
    bound = codecs.bind(codecs.chain(STAGE), np.zeros(SIZE, np.float32))
    bound.encode_contribution(np.full(SIZE, 1e30, np.float32))
    with pytest.raises(ArgumentError, match="holds values beyond the range of its codec"):
        bound.encode_contribution(np.full(SIZE, 1e34, np.float32))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 9])
def test_median_network(count):
    """Entry by entry it is NumPy's median."""
    rows = GENERATOR.standard_normal((count, 50)).astype(np.float32)
    np.testing.assert_allclose(_median(list(jnp.asarray(rows))), np.median(rows, axis=0), rtol=1e-6)


@pytest.mark.parametrize(
    ("stage", "columns"),
    [(CountSketch(fraction=0.1), 40), (CountSketch(columns=7), 7), (CountSketch(columns=10**9), SIZE)],
)
def test_number_of_columns(stage, columns):
    """Given, or the share of the tensor's size that falls to each row; at least one, at most as many as entries."""
    assert stage.num_columns(SIZE) == columns
    assert stage.num_columns(0) == 0
    assert CountSketch().num_columns(1) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        *({"rows": 0}, {"rows": 64}, {"columns": 0}, {"fraction": 0}, {"fraction": 2}, {"keep": 0}, {"keep": 1.1}),
        *({"momentum": 1.0}, {"momentum": -0.1}, {"momentum": float("nan")}, {"seed": -1}),
    ],
)
def test_arguments_out_of_range(arguments):
    """Values outside their range are refused by name."""
    [name] = arguments
    with pytest.raises(ArgumentError, match=f"{name} must"):
        CountSketch(**arguments)


@pytest.mark.parametrize(
    "arguments", [{"rows": 2.0}, {"columns": "3"}, {"keep": None}, {"momentum": "0"}, {"seed": 0.5}]
)
def test_arguments_of_the_wrong_kind(arguments):
    """Arguments of another type are refused by name."""
    [name] = arguments
    with pytest.raises(ArgumentTypeError, match=f"{name} must be a"):
        CountSketch(**arguments)


def test_integers_are_refused():
    """Integers are not sketched; the error names the tensor."""
    with pytest.raises(ArgumentTypeError, match=r"^steps is int32\[3\], but count_sketch takes floating-point arrays"):
        STAGE.check(TensorSpec("steps", (3,), np.dtype(np.int32)))

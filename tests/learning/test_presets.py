"""Presets: both directions' codecs as one choice."""

import jax
import numpy as np
import optax
import pytest

from laconic import codecs, engines, learning
from laconic.errors import ArgumentError, ArgumentTypeError
from laconic.learning import presets

from .conftest import make_clients

ROUNDS = 3


@pytest.fixture(scope="module")
def wide():
    """A model large enough for its codes to outweigh headers, and clients."""
    return learning.models.perceptron(6, (64, 64), 3), make_clients([20, 30, 25])


def trained(compression, wide, count=ROUNDS, workers=1, server=None, client=None):
    """The last state, and each round's bytes down and up."""
    model, clients = wide
    client = optax.sgd(0.1) if client is None else client
    process = learning.fed_avg(model, client, server, compression=compression, engine=engines.local(workers))
    state, traffic = process.initialize(seed=1), []
    for number in range(count):
        state, result = process.next(state, clients.batched(5).sample(3, seed=2, round_number=number))
        traffic.append((result.traffic.broadcast_bytes, result.traffic.aggregate_bytes))
    return process, state, np.array(traffic)


def test_lossless_trains_the_same_bits(wide):
    """Nothing differs from the uncompressed training but the bytes."""
    _, plain, full = trained(None, wide)
    _, compressed, fewer = trained(presets.lossless(), wide)
    jax.tree.map(np.testing.assert_array_equal, plain.weights, compressed.weights)
    assert fewer.sum() < 0.95 * full.sum()


def test_grids(wide):
    """Both directions take a fraction, each preset less than the one before; clients keep nothing."""
    _, _, full = trained(None, wide, 1)
    totals = []
    for preset, ratio in ((presets.careful, 6), (presets.balanced, 8), (presets.frugal, 12)):
        process, state, fewer = trained(preset(), wide, 8)
        assert np.all(fewer.mean(axis=0) < full[0] / ratio)
        assert not state.memories
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(process.broadcast_weights(state)))
        totals.append(fewer.sum())
    assert totals[2] < 0.9 * totals[1]
    assert totals[1] < 0.8 * totals[0]


def test_balanced_goes_by_the_models_size(wide):
    """The same preset is coarser for large models, whose clients' own model is then the one to use."""
    model, clients = wide
    assert sum(leaf.size for leaf in jax.tree.leaves(model.init(codecs.random.key(0)))) < presets._LARGE
    process, state, small = trained(presets.balanced(), wide, 4)
    jax.tree.map(np.testing.assert_array_equal, process.broadcast_weights(state), state.weights)
    many = learning.models.perceptron(6, (512, 512), 3)
    process, state, large = trained(presets.balanced(), (many, clients), 4)
    assert any(
        np.any(received != own)
        for received, own in zip(*map(jax.tree.leaves, (process.broadcast_weights(state), state.weights)), strict=True)
    )
    weights = [sum(leaf.size for leaf in jax.tree.leaves(each.init(codecs.random.key(0)))) for each in (model, many)]
    assert np.all(large.mean(axis=0) / weights[1] < small.mean(axis=0) / weights[0] / 2)


@pytest.mark.parametrize(
    "optimizers",
    [
        {"server": optax.adam(1e-3)},
        {"client": optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1))},
    ],
    ids=["adam at the server", "clipped clients"],
)
def test_balanced_goes_by_the_optimizers(wide, optimizers):
    """Where errors do not shrink with gradients, grids are finer and dithered, and the server's own model is to use."""
    many = learning.models.perceptron(6, (512, 512), 3), wide[1]
    totals = []
    for own in ({}, optimizers, optimizers):
        process, state, traffic = trained(presets.balanced(), many, 3, **own)
        totals.append(traffic.sum())
    jax.tree.map(np.testing.assert_array_equal, process.broadcast_weights(state), state.weights)
    assert totals[1] > 1.3 * totals[0]
    assert totals[1] == totals[2]


CLIPPED = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1))


def test_large_models_whose_clients_clip_travel_along_directions(wide):
    """Whatever the server's optimizer, updates take as many bits; and a difference of low rank takes few bytes."""
    many = learning.models.perceptron(6, (512, 512), 3), wide[1]
    _, _, clipped = trained(presets.balanced(), many, 3, client=CLIPPED)
    _, _, both = trained(presets.balanced(), many, 3, client=CLIPPED, server=optax.adam(1e-3))
    assert both[0, 0] == clipped[0, 0]
    np.testing.assert_allclose(both[:, 1], clipped[:, 1], rtol=0.02)
    codec = presets._principal(1.25)(codecs.TensorSpec("kernel", (512, 512), np.dtype(np.float32)))
    factors = np.random.default_rng(0).standard_normal((2, 512)).astype(np.float32)
    plain = codecs.chain(codecs.Dithered(1.25), codecs.RowColumn())
    sizes = [len(codecs.encode(np.outer(*factors), each, seed=0)) for each in (codec, plain)]
    assert sizes[0] < 0.2 * sizes[1]


def test_small_models_whose_clients_clip_are_careful(wide):
    """All their weights count, unless they convolve images; without clipping they are coarser."""
    same = [trained(each(), wide, 2, client=CLIPPED)[1].weights for each in (presets.balanced, presets.careful)]
    jax.tree.map(np.testing.assert_array_equal, *same)
    _, _, clipped = trained(presets.balanced(), wide, 2, client=CLIPPED)
    _, _, plain = trained(presets.balanced(), wide, 2)
    assert np.all(clipped[1] > 1.5 * plain[1])
    optimizers = CLIPPED, optax.sgd(1.0)
    for shape, is_fine in (((3, 3, 1, 8), False), ((4, 2, 8), True)):
        balanced = presets.balanced().for_optimizers(*optimizers)
        kernel = {"kernel": np.zeros(shape, np.float32)}
        state = balanced.aggregator.initialize(kernel)
        assert state == presets.careful().aggregator.initialize(kernel)
        assert presets._convolves_images(kernel) != is_fine


def test_others_are_the_same_with_all_optimizers(wide):
    """Only `balanced` asks."""
    assert presets.balanced().for_optimizers is not None
    for preset in (presets.lossless, presets.careful, presets.frugal):
        assert preset().for_optimizers is None


def test_any_number_of_workers_gives_the_same_bits(wide):
    """As everywhere."""
    _, first, _ = trained(presets.balanced(), wide)
    _, second, _ = trained(presets.balanced(), wide, workers=2)
    jax.tree.map(np.testing.assert_array_equal, first.weights, second.weights)


def test_rejects(wide):
    """Something else as compression, or a distributor beside it."""
    model, _ = wide
    with pytest.raises(ArgumentTypeError, match=r"such as learning.presets.balanced\(\)"):
        learning.fed_avg(model, optax.sgd(0.1), compression="balanced")
    with pytest.raises(ArgumentError, match="compression stands for distributor and aggregator"):
        learning.fed_avg(
            model, optax.sgd(0.1), compression=presets.balanced(), distributor=learning.encoded_broadcast()
        )

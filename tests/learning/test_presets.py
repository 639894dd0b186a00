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


ADAM = optax.adam(1e-3)
CLIPPED = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1))


@pytest.mark.parametrize("server", [optax.sgd(1.0), ADAM], ids=["sgd", "adam"])
def test_large_models_whose_clients_clip_travel_along_directions(wide, server):
    """Whatever the server's optimizer. With plain averaging, even a first round's change takes fewer bytes so."""
    many = learning.models.perceptron(6, (512, 512), 3), wide[1]
    optimizers = {"client": CLIPPED, "server": server}
    _, _, own = trained(presets.balanced(), many, 2, **optimizers)
    rotated = learning.encoded_mean(codecs.concatenate(codecs.eden(0.5, entropy_coded=True)))
    along, alone = (
        trained(learning.Compression("", each, rotated), many, 2, **optimizers)[2]
        for each in (presets._dithered_along_directions(1.25), presets._dithered_grid(1.25))
    )
    np.testing.assert_array_equal(own, along)
    # In the first round there is no difference yet, so that all clients send the same. Adam's first step has
    # two values, which a dither alone makes use of.
    assert alone[0, 1] == own[0, 1]
    assert own[1, 0] < (1.5 if server is ADAM else 0.95) * alone[1, 0]


def test_small_models_whose_clients_clip_are_careful(wide):
    """All their weights count; without clipping they are coarser."""
    same = [trained(each(), wide, 2, client=CLIPPED)[1].weights for each in (presets.balanced, presets.careful)]
    jax.tree.map(np.testing.assert_array_equal, *same)
    _, _, clipped = trained(presets.balanced(), wide, 2, client=CLIPPED)
    _, _, plain = trained(presets.balanced(), wide, 2)
    assert np.all(clipped[1] > 1.5 * plain[1])


@pytest.mark.parametrize(("shape", "is_fine"), [((6, 64), True), ((1, 6, 64), True), ((1, 1, 6, 64), False)])
def test_small_models_that_convolve_images_are_coarser(wide, shape, is_fine):
    """A kernel of four dimensions tells, whatever the clients' optimizer."""
    perceptron, clients = wide

    def init(key):
        return perceptron.init(key) | {"kernel": np.zeros(shape, np.float32)}

    def predict(weights, x):
        return perceptron.predict({name: own for name, own in weights.items() if name != "kernel"}, x)

    model = learning.Model(init, predict, perceptron.loss, perceptron.metrics)
    _, _, own = trained(presets.balanced(), (model, clients), 1, client=CLIPPED)
    _, _, careful = trained(presets.careful(), (model, clients), 1, client=CLIPPED)
    assert (own[0, 1] == careful[0, 1]) == is_fine
    assert is_fine or own[0, 1] < careful[0, 1] / 2


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

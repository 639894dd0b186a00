"""What models of characters have in common."""

import jax
import numpy as np
import optax
import pytest

from laconic import codecs, data, learning

SMALL = {
    "lstm": learning.models.character_lstm(5, embedding_size=3, hidden_sizes=(4, 6)),
    "transformer": learning.models.character_transformer(5, width=8, num_layers=2, num_heads=2),
}


@pytest.fixture(params=SMALL.values(), ids=SMALL)
def small(request):
    """A model of five characters."""
    return request.param


@pytest.fixture
def weights(small):
    """Its first weights."""
    return small.init(codecs.random.key(3))


def test_it_never_looks_ahead(small, weights):
    """What is predicted for a place does not change with the characters after it, but does with those before."""
    codes = np.array([[0, 1, 2, 3, 4, 0]] * 2, np.int32)
    codes[1, 3] = 1
    before, after = jax.jit(small.predict)(weights, codes)
    np.testing.assert_array_equal(before[:3], after[:3])
    assert (np.abs(before[3:] - after[3:]).max(axis=1) > 0).all()


def test_loss_and_accuracy_are_means_over_characters(small):
    """An example counts once, however long; a padded one not at all."""
    labels = np.array([[0, 1], [2, 3], [4, 4]], np.int32)
    logits = np.zeros((3, 2, 5), np.float32)
    logits[0, 0, 0] = logits[0, 1, 1] = logits[1, 0, 2] = logits[1, 1, 0] = 50.0  # right, right, right, wrong
    logits[2] = np.nan
    np.testing.assert_allclose(small.loss(logits, labels)[:2], [0, 25], atol=1e-5)
    accuracy = small.metrics["accuracy"]
    sums = accuracy.sums(logits, labels, np.array([1, 1, 0], np.float32))
    assert accuracy.finalize(sums) == pytest.approx(0.75)
    assert float(sums.examples) == 2


def test_gradients_reach_every_weight(small, weights):
    """They are finite, and none is zero throughout."""
    codes = np.random.default_rng(0).integers(0, 5, (4, 9), np.int32)

    def loss(weights):
        return small.loss(small.predict(weights, codes[:, :-1]), codes[:, 1:]).mean()

    for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))(weights)):
        assert np.isfinite(leaf).all()
        assert np.abs(leaf).max() > 0


@pytest.mark.parametrize(
    ("model", "pattern", "optimizer", "batching", "rounds", "least"),
    [
        (
            learning.models.character_lstm(embedding_size=8, hidden_sizes=(16,)),
            "abc",
            optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(2.0)),
            {"batch_size": 4, "epochs": 4},
            5,
            0.95,
        ),
        (
            learning.models.character_transformer(width=16, num_layers=1, num_heads=2),
            "abac",  # of which two are the same, so that the one before must be seen
            optax.adam(0.01),
            {"batch_size": 6, "epochs": 3},
            40,
            0.9,
        ),
    ],
    ids=["lstm", "transformer"],
)
def test_federated_averaging_learns_a_pattern(model, pattern, optimizer, batching, rounds, least):
    """Clients that repeat a few letters from different starts agree on what follows each."""
    text = data.characters.encode(pattern * 40)
    clients = data.from_arrays(
        {f"client{i}": {"x": np.stack([text[i : i + 12]] * 6), "y": np.stack([text[i + 1 : i + 13]] * 6)}
         for i in range(3)}
    )  # fmt: skip
    process = learning.fed_avg(model, optimizer)
    state = process.initialize(seed=0)
    batched = clients.batched(**batching)
    for _ in range(rounds):
        state, result = process.next(state, batched.cohort(clients.client_ids))
    assert result.metrics["accuracy"] > least

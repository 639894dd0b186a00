"""The character LSTM."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laconic import codecs, data, learning
from laconic.errors import ArgumentError, ArgumentTypeError


def shapes(weights):
    """The shapes of the tensors, by path."""
    leaves = jax.tree_util.tree_leaves_with_path(weights)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves}


@pytest.fixture(scope="module")
def small():
    """A model of five characters."""
    return learning.models.character_lstm(5, embedding_size=3, hidden_sizes=(4, 6))


@pytest.fixture(scope="module")
def weights(small):
    """Its first weights."""
    return small.init(codecs.random.key(3))


def test_the_default_is_small_and_fits_the_data():
    """Six tensors, 117,537 weights, for the vocabulary of `laconic.data`."""
    weights = jax.eval_shape(learning.models.character_lstm().init, codecs.random.key(0))
    assert shapes(weights) == {
        "embedding/table": (len(data.characters.VOCABULARY), 64),
        "lstm1/kernel": (64, 512),
        "lstm1/recurrent_kernel": (128, 512),
        "lstm1/bias": (512,),
        "dense/kernel": (128, 97),
        "dense/bias": (97,),
    }
    assert sum(leaf.size for leaf in jax.tree.leaves(weights)) == 117_537


def test_layers_are_stacked(small, weights):
    """Each LSTM takes what the one before gives; logits are one row of characters for each place."""
    assert (weights["lstm1"]["kernel"].shape, weights["lstm2"]["kernel"].shape) == ((3, 16), (4, 24))
    assert jax.eval_shape(small.predict, weights, np.zeros((2, 7), np.int32)).shape == (2, 7, 5)


def test_first_weights(small, weights):
    """They follow the seed, forget gates start open, and the embedding is uniform of variance one."""
    jax.tree.map(np.testing.assert_array_equal, weights, small.init(codecs.random.key(3)))
    other = small.init(codecs.random.key(4))
    for layer, name in (
        ("embedding", "table"),
        ("lstm1", "kernel"),
        ("lstm2", "recurrent_kernel"),
        ("dense", "kernel"),
    ):
        assert not np.array_equal(weights[layer][name], other[layer][name])
    np.testing.assert_array_equal(weights["lstm1"]["bias"].reshape(4, 4), np.eye(4)[1][:, None] * np.ones(4))
    table = learning.models.character_lstm(500, hidden_sizes=(1,)).init(codecs.random.key(0))["embedding"]["table"]
    assert float(jnp.var(table)) == pytest.approx(1, rel=0.02)
    assert float(jnp.abs(table).max()) == pytest.approx(np.sqrt(3), rel=0.01)


def test_it_is_an_lstm():
    """One layer gives what the equations give, evaluated one character after the other in NumPy."""
    model = learning.models.character_lstm(5, embedding_size=3, hidden_sizes=(4,))
    weights = jax.tree.map(np.asarray, model.init(codecs.random.key(1)))
    codes = np.array([[0, 3, 1, 4], [2, 2, 0, 1]], np.int32)

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    output, cell, expected = np.zeros((2, 4)), np.zeros((2, 4)), []
    layer = weights["lstm1"]
    for time in range(4):
        x = weights["embedding"]["table"][codes[:, time]]
        gates = x @ layer["kernel"] + output @ layer["recurrent_kernel"] + layer["bias"]
        write, keep, new, show = np.split(gates, 4, axis=1)
        cell = sigmoid(keep) * cell + sigmoid(write) * np.tanh(new)
        output = sigmoid(show) * np.tanh(cell)
        expected.append(output @ weights["dense"]["kernel"] + weights["dense"]["bias"])
    np.testing.assert_allclose(jax.jit(model.predict)(weights, codes), np.stack(expected, axis=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"vocabulary_size": 1}, ArgumentError),
        ({"vocabulary_size": 97.0}, ArgumentTypeError),
        ({"embedding_size": 0}, ArgumentError),
        ({"hidden_sizes": ()}, ArgumentError),
        ({"hidden_sizes": (128, 0)}, ArgumentError),
        ({"hidden_sizes": (True,)}, ArgumentTypeError),
        ({"hidden_sizes": 128}, ArgumentTypeError),
    ],
)
def test_sizes_are_checked(options, error):
    """An argument that is not a size is refused by its name."""
    with pytest.raises(error, match=rf"{next(iter(options))} must be"):
        learning.models.character_lstm(**options)

"""The character transformer."""

import jax
import numpy as np
import pytest

from laconic import codecs, data, learning
from laconic.errors import ArgumentError, ArgumentTypeError


@pytest.fixture(scope="module")
def small():
    """A model of five characters."""
    return learning.models.character_transformer(5, width=8, num_layers=2, num_heads=2)


@pytest.fixture(scope="module")
def weights(small):
    """Its first weights."""
    return small.init(codecs.random.key(3))


def test_the_default_is_small_and_fits_the_data():
    """Fourteen tensors, 104,832 weights, for the vocabulary of `laconic.data`."""
    weights = jax.eval_shape(learning.models.character_transformer().init, codecs.random.key(0))
    layer = {
        "queries_keys_values": (64, 192),
        "mix": (64, 64),
        "widen": (64, 256),
        "narrow": (256, 64),
        "attention_norm": (64,),
        "dense_norm": (64,),
    }
    assert jax.tree.map(lambda leaf: leaf.shape, weights) == {
        "embedding": {"table": (len(data.characters.VOCABULARY), 64)},
        "layer1": layer,
        "layer2": layer,
        "norm": (64,),
    }
    assert sum(leaf.size for leaf in jax.tree.leaves(weights)) == 104_832


def test_first_weights(small, weights):
    """They follow the seed; branches' ends are smaller by the root of how many there are."""
    jax.tree.map(np.testing.assert_array_equal, weights, small.init(codecs.random.key(3)))
    other = small.init(codecs.random.key(4))
    assert not np.array_equal(weights["layer1"]["mix"], other["layer1"]["mix"])
    wide = learning.models.character_transformer(500, width=64, num_layers=8).init(codecs.random.key(0))
    assert np.var(wide["embedding"]["table"]) == pytest.approx(1 / 64, rel=0.02)
    assert np.var(wide["layer8"]["widen"]) == pytest.approx(2 / (64 + 256), rel=0.05)
    assert np.var(wide["layer8"]["narrow"]) == pytest.approx(2 / (64 + 256) / 16, rel=0.05)


def normalised(x, scale):
    """Each vector divided by its root mean square."""
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-6) * scale


def turned(x, place):
    """Number i and number i + half as one complex number, turned by the place over 10000^(i / half)."""
    half = x.size // 2
    z = (x[:half] + 1j * x[half:]) * np.exp(1j * place * 10_000.0 ** (-np.arange(half) / half))
    return np.concatenate([z.real, z.imag])


def test_it_is_a_transformer(small, weights):
    """It gives what the equations give, evaluated place by place and head by head in NumPy."""
    weights = jax.tree.map(np.asarray, weights)
    rng = np.random.default_rng(0)
    weights["layer2"]["dense_norm"] = rng.uniform(0.5, 2, 8).astype(np.float32)
    codes = np.array([0, 3, 1, 4, 2, 2])
    x = weights["embedding"]["table"][codes] * np.sqrt(8)
    for layer in (weights["layer1"], weights["layer2"]):
        heads = (normalised(x, layer["attention_norm"]) @ layer["queries_keys_values"]).reshape(6, 3, 2, 4)
        attended = np.zeros((6, 2, 4))
        for place in range(6):
            for head in range(2):
                query = turned(heads[place, 0, head], place)
                fits = np.exp([query @ turned(heads[i, 1, head], i) / np.sqrt(4) for i in range(place + 1)])
                attended[place, head] = fits / fits.sum() @ heads[: place + 1, 2, head]
        x = x + attended.reshape(6, 8) @ layer["mix"]
        wide = normalised(x, layer["dense_norm"]) @ layer["widen"]
        gelu = 0.5 * wide * (1 + np.tanh(np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)))
        x = x + gelu @ layer["narrow"]
    expected = normalised(x, weights["norm"]) @ weights["embedding"]["table"].T
    np.testing.assert_allclose(jax.jit(small.predict)(weights, codes[None])[0], expected, rtol=1e-4, atol=1e-5)


def test_any_length_will_do(small, weights):
    """A longer text's beginning is predicted as by itself."""
    codes = np.random.default_rng(0).integers(0, 5, (2, 30), np.int32)
    long, short = small.predict(weights, codes), small.predict(weights, codes[:, :7])
    np.testing.assert_allclose(long[:, :7], short, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"vocabulary_size": 1}, ArgumentError),
        ({"width": 0}, ArgumentError),
        ({"width": 64.0}, ArgumentTypeError),
        ({"width": 12, "num_heads": 4}, ArgumentError),
        ({"num_layers": 0}, ArgumentError),
        ({"num_heads": 0}, ArgumentError),
        ({"num_heads": True}, ArgumentTypeError),
    ],
)
def test_sizes_are_checked(options, error):
    """An argument that is not a size, or heads that do not divide the width, is refused by its name."""
    with pytest.raises(error, match=rf"{next(iter(options))} must be"):
        learning.models.character_transformer(**options)

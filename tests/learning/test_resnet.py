"""The residual network."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from laconic import codecs, data, learning
from laconic.errors import ArgumentError, ArgumentTypeError
from laconic.learning.models import _resnet


@pytest.fixture(scope="module")
def small():
    """Two narrow stages, for three classes."""
    return learning.models.resnet(3, widths=(4, 8), groups=2)


@pytest.fixture(scope="module")
def weights(small):
    """Its first weights."""
    return small.init(codecs.random.key(3))


@pytest.fixture(scope="module")
def predict(small):
    """Its prediction, compiled."""
    return jax.jit(small.predict)


def images(*shape, seed=0):
    """Random ones."""
    return np.random.default_rng(seed).random(shape, np.float32)


@pytest.mark.parametrize(("blocks", "size", "convolutions"), [(1, 79_674, 9), (2, 176_890, 15)])
def test_sizes(blocks, size, convolutions):
    """As many weights as documented; each convolution has a kernel, a scale and a bias."""
    weights = jax.eval_shape(learning.models.resnet(blocks=blocks).init, codecs.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(weights)) == size
    assert len(jax.tree.leaves(weights)) == 3 * convolutions + 2
    assert weights["stage2_block1_shortcut"]["kernel"].shape == (1, 1, 16, 32)
    assert "stage1_block1_shortcut" not in weights


def test_first_weights(small, weights):
    """They follow the seed, no two kernels of a shape are alike, and kernels have Glorot's spread."""
    jax.tree.map(np.testing.assert_array_equal, weights, small.init(codecs.random.key(3)))
    assert not np.array_equal(weights["stem"]["kernel"], small.init(codecs.random.key(4))["stem"]["kernel"])
    assert not np.array_equal(weights["stage1_block1_conv1"]["kernel"], weights["stage1_block1_conv2"]["kernel"])
    kernel = weights["stage2_block1_conv2"]["kernel"]
    assert float(jnp.std(kernel)) == pytest.approx(np.sqrt(2 / (9 * 8 + 9 * 8)), rel=0.1)
    assert float(jnp.abs(kernel).max()) <= np.sqrt(6 / (9 * 8 + 9 * 8))


def test_first_weights_are_the_same_everywhere(weights):
    """Clients may have to make them from a seed, so their bits depend on no library's generator."""
    content = b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(weights))
    assert hashlib.sha256(content).hexdigest()[:16] == "c758c4cce6eb1313"


def test_grey_images_with_and_without_a_channel(weights, predict):
    """Both layouts of the same image give the same logits."""
    x = images(3, 8, 8)
    assert predict(weights, x).shape == (3, 3)
    np.testing.assert_array_equal(predict(weights, x), predict(weights, x[..., None]))


@pytest.mark.parametrize("size", [(7, 5), (1, 1)])
def test_colour_images_of_odd_sizes(size):
    """Any height and width will do, down to a pixel."""
    model = learning.models.resnet(4, image_channels=3, widths=(4, 4), groups=4)

    def logits(key, x):
        return model.predict(model.init(key), x)

    outputs = jax.jit(logits)(codecs.random.key(0), images(2, *size, 3))
    assert outputs.shape == (2, 4)
    assert np.isfinite(outputs).all()


def test_examples_do_not_see_each_other(weights, predict):
    """An example's logits do not change with what is beside it, such as a batch's padding."""
    x, others = images(3, 8, 8), images(3, 8, 8, seed=1)
    others[0], others[2] = x[0], 0
    np.testing.assert_allclose(predict(weights, x)[0], predict(weights, others)[0], rtol=1e-5, atol=1e-6)


def test_brightness_and_contrast_do_not_matter(weights, predict):
    """Images are standardised, so that any range of pixels will do."""
    x = images(3, 8, 8)
    np.testing.assert_allclose(predict(weights, x), predict(weights, 10 + 5 * x), rtol=1e-2, atol=1e-2)


def test_normalisation_is_by_groups():
    """As in Wu and He 2018: each group of an example's channels has its own mean and variance."""
    x = 5 + 3 * images(2, 4, 6, 8)
    grouped = x.reshape(2, 4, 6, 4, 2)
    mean, variance = (f(grouped, axis=(1, 2, 4), keepdims=True) for f in (np.mean, np.var))
    expected = ((grouped - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape)
    np.testing.assert_allclose(_resnet._standardised(jnp.asarray(x), 4), expected, rtol=1e-4, atol=1e-4)


def test_quarters():
    """Each corner's own mean; a middle row or column is in both halves."""
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    assert _resnet._quarter_means(x).tolist() == [[2, 3, 5, 6]]
    assert _resnet._quarter_means(x[:, :2, :2]).tolist() == [[0, 1, 3, 4]]
    assert _resnet._quarter_means(x[:, :1, :1]).tolist() == [[0, 0, 0, 0]]


def test_the_input_of_a_block_is_added(weights, predict):
    """A silent block lets its input through: the first stage's convolutions then do not matter any more."""
    silent = jax.tree.map(jnp.zeros_like, weights["stage1_block1_conv2"])
    other = jax.tree.map(lambda leaf: leaf[..., ::-1], weights["stage1_block1_conv1"])
    one = predict(weights | {"stage1_block1_conv2": silent}, images(3, 8, 8))
    two = predict(weights | {"stage1_block1_conv2": silent, "stage1_block1_conv1": other}, images(3, 8, 8))
    np.testing.assert_array_equal(one, two)
    assert np.ptp(one, axis=0).max() > 0


def test_gradients_are_finite_even_for_padding(small, weights):
    """Constant images have no variance to divide by: gradients stay finite, and reach every weight."""
    x = images(3, 8, 8)
    x[2] = 0

    def loss(weights):
        return small.loss(small.predict(weights, x), jnp.array([0, 1, 2])).mean()

    for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))(weights)):
        assert np.isfinite(leaf).all()
        assert np.abs(leaf).max() > 0


def test_federated_averaging_learns_a_pattern(small):
    """Clients agree on which way the stripes of an image run."""
    generator = np.random.default_rng(0)

    def client():
        labels = np.arange(12) % 3
        stripe = np.arange(8) // 2 % 2
        patterns = np.stack([np.tile(stripe, (8, 1)), np.tile(stripe, (8, 1)).T, np.zeros((8, 8))])
        return {"x": (patterns[labels] + 0.2 * generator.standard_normal((12, 8, 8))).astype(np.float32), "y": labels}

    clients = data.from_arrays({f"client{i}": client() for i in range(3)})
    process = learning.fed_avg(small, optax.sgd(0.3))
    state = process.initialize(seed=0)
    batched = clients.batched(5, epochs=3)
    for _ in range(5):
        state, result = process.next(state, batched.cohort(clients.client_ids))
    assert result.metrics["accuracy"] > 0.95


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_classes": 1}, ArgumentError, "num_classes must be at least 2"),
        ({"image_channels": 0}, ArgumentError, "image_channels must be at least 1"),
        ({"widths": ()}, ArgumentError, "widths must be at least one size"),
        ({"widths": (8, 0)}, ArgumentError, "widths must be at least 1, got 0"),
        ({"widths": [8, 16]}, ArgumentTypeError, "widths must be a tuple"),
        ({"blocks": 1.0}, ArgumentTypeError, "blocks must be a whole number"),
        ({"groups": 0}, ArgumentError, "groups must be at least 1"),
        ({"groups": 3}, ArgumentError, r"groups must divide each of widths, got 3 and \(16, 32, 64\)"),
    ],
)
def test_sizes_are_checked(options, error, message):
    """An argument that is not a size is refused by its name."""
    with pytest.raises(error, match=message):
        learning.models.resnet(**options)

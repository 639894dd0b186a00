"""The model record and the built-in models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laconic import codecs, learning
from laconic.errors import ArgumentError, ArgumentTypeError


def test_the_tutorial_s_cnn_has_the_tutorial_s_tensors():
    """Eight tensors, 1,663,370 weights, in the tutorial's shapes."""
    weights = learning.models.fedavg_cnn().init(codecs.random.key(0))
    shapes = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in
              jax.tree_util.tree_leaves_with_path(weights)}  # fmt: skip
    assert shapes == {
        "conv1/kernel": (5, 5, 1, 32),
        "conv1/bias": (32,),
        "conv2/kernel": (5, 5, 32, 64),
        "conv2/bias": (64,),
        "dense1/kernel": (3136, 512),
        "dense1/bias": (512,),
        "dense2/kernel": (512, 10),
        "dense2/bias": (10,),
    }
    assert sum(leaf.size for leaf in jax.tree.leaves(weights)) == 1_663_370


def test_the_cnn_takes_images_with_and_without_a_channel():
    """Both layouts of the same image give the same logits."""
    model = learning.models.fedavg_cnn(num_classes=4)
    weights = model.init(codecs.random.key(1))
    images = np.random.default_rng(0).random((2, 28, 28), np.float32)
    logits = model.predict(weights, images)
    assert logits.shape == (2, 4)
    np.testing.assert_array_equal(logits, model.predict(weights, images[..., None]))


@pytest.mark.parametrize("seed", [0, 2**63 + 5])
@pytest.mark.parametrize("is_traced", [False, True])
def test_initial_weights_are_those_of_jax(seed, is_traced):
    """Our kernels are Glorot-uniform ones by JAX's default generator, bit for bit, on the host and compiled."""
    key = codecs.random.key(seed)
    init = learning.models.perceptron(7, (300,), 10).init
    weights = jax.jit(init)(jnp.asarray(key)) if is_traced else init(key)
    for name, layer in weights.items():
        own = codecs.random.as_jax_key(codecs.random.derive(key, name))
        expected = jax.nn.initializers.glorot_uniform()(own, layer["kernel"].shape, np.float32)
        np.testing.assert_array_equal(layer["kernel"], expected)
        assert not np.any(layer["bias"])


def test_initial_weights_follow_the_seed():
    """The same key gives the same weights, another key others; kernels have Glorot's spread."""
    init = learning.models.perceptron(300, (200,), 10).init
    first, again, other = (init(codecs.random.key(seed))["dense1"]["kernel"] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert float(jnp.std(first)) == pytest.approx(np.sqrt(2 / (300 + 200)), rel=0.02)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: learning.models.fedavg_cnn(1), ArgumentError),
        (lambda: learning.models.fedavg_cnn(10.0), ArgumentTypeError),
        (lambda: learning.models.perceptron(0), ArgumentError),
        (lambda: learning.models.perceptron(4, (3, -1)), ArgumentError),
    ],
)
def test_sizes_are_checked(make, error):
    """A model without inputs, units or classes to tell apart is refused."""
    with pytest.raises(error, match="must be"):
        make()


def test_a_padded_row_counts_for_nothing():
    """A metric's sums do not change with what is behind the mask, even NaN."""
    metric = learning.mean_metric(lambda outputs, labels: outputs[:, 0] * labels)
    mask = jnp.array([1.0, 1.0, 0.0])
    sums = metric.sums(jnp.array([[1.0], [2.0], [jnp.nan]]), jnp.array([1.0, 3.0, 5.0]), mask)
    assert metric.finalize(sums) == pytest.approx(3.5)


def test_a_mean_of_nothing_is_nan():
    """No examples, no mean."""
    metric = learning.accuracy()
    assert np.isnan(metric.finalize(metric.sums(jnp.zeros((2, 3)), jnp.zeros(2, jnp.int32), jnp.zeros(2))))

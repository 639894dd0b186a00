"""The convolutions of the tutorial's CNN, pooled."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laconic import codecs, learning
from laconic.learning.models._classic import _pooled_convolution, _pooled_layer
from laconic.learning.models._layers import convolution
from laconic.learning.models._winograd import pooled_convolution, transforms


def product(matrix, vector):
    """A matrix times a vector, exactly."""
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]


def test_transforms_make_a_correlation_a_product():
    """Exactly, in fractions: four outputs of five terms each from eight multiplications."""
    inputs, kernel = [Fraction(n) for n in (3, -1, 4, 1, -5, 9, 2, -6)], [Fraction(n, 7) for n in (2, 7, -1, 8, 2)]
    given = transforms()
    multiplied = [a * b for a, b in zip(product(given.kernel, kernel), product(given.inputs, inputs), strict=True)]
    expected = [sum(inputs[i + j] * kernel[j] for j in range(5)) for i in range(4)]
    assert product(given.outputs, multiplied) == expected


def pooled_by_windows(x, kernel):
    """The convolution, then the maxima of each 2 by 2 pixels."""
    layout = ("NHWC", "HWIO", "NHWC")
    convolved = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)
    window = (1, 2, 2, 1)
    return jax.lax.reduce_window(convolved, -jnp.inf, jax.lax.max, window, window, "VALID")


@pytest.mark.parametrize("pooled", [pooled_convolution, _pooled_convolution], ids=["winograd", "plain"])
@pytest.mark.parametrize("shape", [(3, 14, 14, 32, 64), (2, 8, 6, 3, 5), (1, 2, 4, 1, 1), (5, 10, 12, 2, 3)])
def test_it_is_a_pooled_convolution(pooled, shape):
    """Values and gradients are the plain sum's but for rounding, for any even size."""
    *size, outputs = shape
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal(size), np.float32)
    kernel = jnp.asarray(rng.standard_normal((5, 5, size[-1], outputs)), np.float32)
    values, backward = jax.vjp(pooled, x, kernel)
    expected, expected_backward = jax.vjp(pooled_by_windows, x, kernel)
    assert values.shape == expected.shape
    cotangent = rng.standard_normal(values.shape).astype(np.float32)
    for found, wanted in zip((values, *backward(cotangent)), (expected, *expected_backward(cotangent)), strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-5 * float(jnp.abs(wanted).max()))


def test_bias_and_relu_commute_with_the_maximum():
    """After it they give, bit for bit, what they give before it."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, 8, 6, 3)), jnp.float32)
    layer = {"kernel": jnp.asarray(rng.standard_normal((5, 5, 3, 4)), jnp.float32), "bias": jnp.arange(-2.0, 2.0)}
    window = (1, 2, 2, 1)
    before = jax.nn.relu(convolution(x, layer["kernel"]) + layer["bias"])
    expected = jax.lax.reduce_window(before, -jnp.inf, jax.lax.max, window, window, "VALID")
    np.testing.assert_array_equal(_pooled_layer(x, layer, _pooled_convolution), expected)


def test_it_is_as_exact_as_its_numbers():
    """In double precision rounding leaves less than 1e-11."""
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        x, kernel = (jnp.asarray(rng.standard_normal(shape)) for shape in ((2, 14, 14, 4), (5, 5, 4, 8)))
        np.testing.assert_allclose(pooled_convolution(x, kernel), pooled_by_windows(x, kernel), atol=1e-11)


def test_large_batches_are_convolved_as_small_ones():
    """The tutorial's CNN gives an image the same logits in either, but for rounding."""
    model = learning.models.fedavg_cnn()
    weights = model.init(codecs.random.key(0))
    images = np.random.default_rng(0).random((65, 28, 28), np.float32)
    many, few = model.predict(weights, images), model.predict(weights, images[:5])
    np.testing.assert_allclose(many[:5], few, atol=1e-4 * float(jnp.abs(few).max()))
    assert not np.array_equal(many[:5], few)


def test_the_model_has_forward_derivatives():
    """Those of the gradient, as products with curvature need them."""
    model = learning.models.fedavg_cnn()
    weights = model.init(codecs.random.key(0))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 28, 28)), jnp.float32)

    def loss(weights):
        return model.predict(weights, x).sum()

    value, change = jax.jvp(loss, (weights,), (weights,))
    products = jax.tree.map(lambda w, g: (w * g).sum(), weights, jax.grad(loss)(weights))
    assert float(value) == pytest.approx(float(loss(weights)), rel=1e-5)
    assert float(change) == pytest.approx(float(sum(jax.tree.leaves(products))), rel=1e-3)

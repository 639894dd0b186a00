"""Max-pooling with a fast gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from laconic import data, learning
from laconic.learning import _pooling
from laconic.learning._pooling import max_pool, with_fast_pooling

SLOW = "select_and_scatter"


def pooled(x, window, strides=None, padding="VALID"):
    """XLA's max-pooling."""
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides or window, padding)


def small_numbers(shape):
    """Few different ones, so that many windows have several maxima."""
    return jnp.asarray(np.random.default_rng(0).integers(-2, 3, shape), jnp.float32)


def with_slope(function, x):
    """Values, and the gradient of their sum weighted by 1, 2, ..., so that no two outputs' shares are the same."""
    values, backward = jax.vjp(function, x)
    return values, *backward(1 + jnp.arange(values.size, dtype=values.dtype).reshape(values.shape))


def assert_same_bits(found, expected):
    """Tuples of arrays are the same."""
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def traced(function, *arguments):
    """What JAX makes of a function's gradient, as text."""
    return str(jax.make_jaxpr(jax.grad(lambda *given: function(*given).sum()))(*arguments))


@pytest.mark.parametrize(
    ("shape", "window"),
    [
        ((3, 8, 6, 5), (1, 2, 2, 1)),
        ((3, 5, 8, 6), (1, 1, 2, 2)),
        ((2, 9, 4), (1, 3, 1)),
        ((2, 7, 9, 3), (1, 2, 4, 1)),
        ((2, 4, 4, 6, 1), (1, 2, 2, 3, 1)),
        ((7,), (7,)),
        ((5, 4), (2, 4)),
    ],
)
def test_values_and_gradients_are_those_of_reduce_window(shape, window):
    """Bit for bit, also where maxima are equal, windows have one axis or three, or leave something at the end."""
    x = small_numbers(shape)
    assert_same_bits(with_slope(lambda x: max_pool(x, window), x), with_slope(lambda x: pooled(x, window), x))


def test_it_takes_the_place_of_reduce_window():
    """Within a model, compiled parts of it, and for a stack of models; what the model gives stays the same."""

    def model(weights, x):
        hidden = jax.nn.relu(x * weights["scale"])
        return {"pooled": jax.jit(lambda h: pooled(h, (1, 2, 2, 1)) + weights["bias"])(hidden)}, hidden.sum()

    def loss(function, weights, x):
        outputs, total = function(weights, x)
        return (outputs["pooled"] ** 2).sum() + total

    weights, x = {"scale": jnp.float32(0.5), "bias": jnp.arange(3.0)}, small_numbers((2, 4, 6, 3))
    fast = with_fast_pooling(model)
    expected = jax.value_and_grad(loss, argnums=(1, 2))(model, weights, x)
    assert_same_bits(jax.value_and_grad(loss, argnums=(1, 2))(fast, weights, x), expected)
    stack = jax.vmap(jax.grad(lambda x: loss(fast, weights, x)))(jnp.stack([x, -x]))
    np.testing.assert_array_equal(stack[0], expected[1][1])
    assert SLOW in traced(lambda x: model(weights, x)[0]["pooled"], x)
    assert SLOW not in traced(lambda x: fast(weights, x)[0]["pooled"], x)


@pytest.mark.parametrize(
    ("window", "strides", "padding"),
    [
        ((1, 3, 3, 1), (1, 2, 2, 1), "VALID"),
        ((1, 3, 3, 1), (1, 3, 3, 1), "SAME"),
        ((1, 8, 4, 1), (1, 8, 4, 1), "VALID"),
    ],
    ids=["overlapping", "beyond the edge", "large"],
)
def test_other_pooling_is_left_alone(window, strides, padding):
    """Windows that overlap, reach beyond the array, or are large stay XLA's."""
    x = small_numbers((2, 8, 8, 3))

    def model(x):
        return pooled(x, window, strides, padding)

    assert traced(with_fast_pooling(model), x) == traced(model, x)


def test_integers_are_left_alone():
    """They have no gradient."""
    x = jnp.arange(8)
    fast = with_fast_pooling(lambda x: jax.lax.reduce_window(x, 0, jax.lax.max, (2,), (2,), "VALID"))
    np.testing.assert_array_equal(fast(x), [1, 3, 5, 7])


def test_clients_train_with_it(monkeypatch):
    """A model that pools by reduce_window trains with the fast one, to what steps written out give."""
    windows = []

    def spy(x, window):
        windows.append(window)
        return max_pool(x, window)

    monkeypatch.setattr(_pooling, "max_pool", spy)
    rng = np.random.default_rng(0)
    x, y = rng.integers(-1, 2, (6, 4, 4)).astype(np.float32), rng.integers(0, 2, 6).astype(np.int32)
    start = {"scale": jnp.ones((4, 4)), "kernel": jnp.asarray(rng.standard_normal((4, 2)), jnp.float32)}

    def predict(weights, x):
        return pooled(x * weights["scale"], (1, 2, 2)).reshape(-1, 4) @ weights["kernel"]

    def loss(weights, x, y):
        return optax.losses.softmax_cross_entropy_with_integer_labels(predict(weights, x), y).mean()

    model = learning.Model(lambda _: start, predict, optax.losses.softmax_cross_entropy_with_integer_labels)
    process = learning.fed_avg(model, optax.sgd(0.5))
    clients = data.from_arrays({"one": {"x": x, "y": y}}).batched(3)
    state, _ = process.next(process.initialize(seed=0), clients.sample(1, seed=0, round_number=0))
    assert set(windows) == {(1, 2, 2)}
    expected = start
    for i in (0, 3):
        gradient = jax.grad(loss)(expected, x[i : i + 3], y[i : i + 3])
        expected = jax.tree.map(lambda w, g: w - 0.5 * g, expected, gradient)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), state.weights, expected)

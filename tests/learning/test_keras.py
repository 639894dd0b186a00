"""The Keras 3 adapter."""

import os
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest

os.environ["KERAS_BACKEND"] = "jax"
import keras

from laconic import codecs, data, learning
from laconic.errors import ArgumentError, ArgumentTypeError, MissingExtraError
from laconic.learning._pooling import with_fast_pooling

from .conftest import CLASSES, FEATURES


def build():
    """A fresh perceptron."""
    return keras.Sequential(
        [keras.Input((FEATURES,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(CLASSES)]
    )


LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def adapted(build_model=build, **arguments):
    """The perceptron as a Laconic model."""
    metrics = [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
    return learning.from_keras(build_model, loss=LOSS, metrics=metrics, **arguments)


def test_it_predicts_as_keras_does():
    """The record's functions are the Keras model's, weights by layer and name."""
    model, weights = adapted(), adapted().init(codecs.random.key(0))
    assert sorted(weights) == ["0.dense.kernel", "1.dense.bias", "2.dense.kernel", "3.dense.bias"]
    keras_model = build()
    keras_model.set_weights([np.asarray(weights[name]) for name in sorted(weights)])
    x = np.random.default_rng(0).standard_normal((5, FEATURES)).astype(np.float32)
    y = np.array([0, 1, 2, 0, 1], np.int32)
    outputs = model.predict(weights, x)
    np.testing.assert_allclose(outputs, keras_model(x), rtol=1e-5)
    assert float(model.loss(outputs, y).mean()) == pytest.approx(float(LOSS(y, keras_model(x))), rel=1e-5)


def test_its_pooling_trains_fast():
    """Keras's max-pooling is one that training replaces, with the same bits."""

    def pooling():
        layers = [keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.MaxPooling2D(), keras.layers.Flatten()]
        return keras.Sequential([keras.Input((7, 6, 1)), *layers, keras.layers.Dense(CLASSES)])

    model = adapted(pooling)
    weights = model.init(codecs.random.key(0))
    x = np.random.default_rng(0).integers(-1, 2, (4, 7, 6, 1)).astype(np.float32)
    slow, fast = (
        jax.grad(lambda weights, predict=predict: (predict(weights, x) ** 2).sum())
        for predict in (model.predict, with_fast_pooling(model.predict))
    )
    jax.tree.map(np.testing.assert_array_equal, fast(weights), slow(weights))
    assert "select_and_scatter" in str(jax.make_jaxpr(slow)(weights))
    assert "select_and_scatter" not in str(jax.make_jaxpr(fast)(weights))


def test_initial_weights_follow_the_seed_and_nothing_else():
    """The same key gives the same weights, and the global seeds of NumPy and Python are left alone."""
    model = adapted()
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.random(3)  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    first = model.init(codecs.random.key(1))
    np.testing.assert_array_equal(np.random.random(3), expected)  # noqa: NPY002
    again, other = model.init(codecs.random.key(1)), model.init(codecs.random.key(2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not all(np.array_equal(first[name], other[name]) for name in first)


def test_it_trains_like_the_same_model_written_in_jax(clients):
    """A round of FedAvg gives the built-in perceptron's weights and metrics."""
    keras_process = learning.fed_avg(adapted(), optax.sgd(0.2))
    native = learning.models.perceptron(FEATURES, (8,), CLASSES)
    native_process = learning.fed_avg(native, optax.sgd(0.2))
    state = native_process.initialize(seed=0)
    keras_state = keras_process.initialize(seed=0)
    names = sorted(keras_state.weights)
    flat = [state.weights["dense1"]["kernel"], state.weights["dense1"]["bias"],
            state.weights["dense2"]["kernel"], state.weights["dense2"]["bias"]]  # fmt: skip
    keras_state = keras_process.with_model_weights(keras_state, dict(zip(names, flat, strict=True)))
    cohort = clients.batched(4).cohort(clients.client_ids)
    keras_state, keras_result = keras_process.next(keras_state, cohort)
    state, result = native_process.next(state, cohort)
    np.testing.assert_allclose(keras_state.weights[names[0]], state.weights["dense1"]["kernel"], rtol=1e-4, atol=1e-6)
    assert keras_result.metrics == pytest.approx(result.metrics, rel=1e-5)


def test_dropout_draws_from_the_client_s_key():
    """A layer with a seed generator trains with a fresh draw for each key, and predicts without."""

    def with_dropout():
        return keras.Sequential([keras.Input((FEATURES,)), keras.layers.Dropout(0.5), keras.layers.Dense(CLASSES)])

    model = adapted(with_dropout)
    weights = model.init(codecs.random.key(0))
    x = np.ones((4, FEATURES), np.float32)
    one, again, other = (model.predict_train(weights, x, codecs.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    np.testing.assert_array_equal(model.predict(weights, x)[0], model.predict(weights, x)[1])
    assert adapted().predict_train is None


def test_metrics_sum_over_batches(clients):
    """A Keras metric summed over padded batches is what Keras gives for all examples at once."""
    model = adapted()
    weights = model.init(codecs.random.key(0))
    metrics = learning.evaluation(model).central(weights, data.batches(clients.examples(), 7))
    whole = keras.metrics.SparseCategoricalAccuracy()
    whole.update_state(clients.examples()["y"], model.predict(weights, clients.examples()["x"]))
    assert metrics["accuracy"] == pytest.approx(float(whole.result()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: learning.from_keras(build(), loss=LOSS), "build_model must be a function that builds the model"),
        (lambda: learning.from_keras(lambda: 3, loss=LOSS), "build_model must return a keras.Model, got int"),
        (lambda: learning.from_keras(build, loss="mse"), "loss must be a keras.losses.Loss or a function, got 'mse'"),
        (lambda: learning.from_keras(build, loss=LOSS, metrics=["accuracy"]), "metrics must be keras.metrics.Metric"),
        (
            lambda: adapted(lambda: keras.Sequential([keras.layers.Dense(3)])),
            "must be built and have weights; begin it with keras.Input",
        ),
        (
            lambda: adapted(
                lambda: keras.Sequential(
                    [keras.Input((FEATURES,)), keras.layers.Dense(3), keras.layers.BatchNormalization()]
                )
            ),
            "keeps state besides its weights, .*moving_mean.*GroupNormalization",
        ),
    ],
)
def test_bad_models(make, message):
    """What the adapter cannot do faithfully, it refuses, and says what to do."""
    with pytest.raises((ArgumentError, ArgumentTypeError), match=message):
        make()


def test_frozen_layers_are_constants(clients):
    """A layer that is not trained keeps its weights and does not travel."""

    def frozen():
        model = build()
        model.layers[0].trainable = False
        return model

    process = learning.fed_avg(adapted(frozen), optax.sgd(0.1))
    state = process.initialize(seed=0)
    assert sum(leaf.size for leaf in jax.tree.leaves(state.weights)) == 8 * CLASSES + CLASSES
    process.next(state, clients.batched(4).cohort(clients.client_ids))


def test_another_backend_is_refused():
    """Keras on another backend cannot be traced by JAX; the error says how to switch."""
    script = "import keras, laconic.learning as l; l.from_keras(lambda: None, loss=None)"
    environment = {**os.environ, "KERAS_BACKEND": "numpy"}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert (
        "Keras must run on its JAX backend, got 'numpy'; set the environment variable KERAS_BACKEND=jax" in run.stderr
    )


def test_a_missing_extra_is_named(monkeypatch):
    """Without Keras the error says what to install."""
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'laconic\[keras\]'"):
        learning.from_keras(build, loss=LOSS)

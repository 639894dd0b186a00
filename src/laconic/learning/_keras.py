"""Models written in Keras 3, on its JAX backend. Keras is imported only when this is used."""

import random as python_random
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from laconic.codecs.random import Key
from laconic.errors import ArgumentError, ArgumentTypeError, require
from laconic.learning._model import Metric, Model, Weights


def from_keras(build_model: Callable[[], Any], *, loss: Any, metrics: Sequence[Any] = ()) -> Model:
    """A Keras 3 model as a Laconic `Model`.

    Args:
      build_model: builds a fresh, built model at each call, with the same layers. It is called here, and again for each
        initialisation.
      loss: a `keras.losses.Loss`, or a function of (labels, outputs) that gives each example's loss [n].
      metrics: `keras.metrics.Metric` objects whose variables start at zero and add up over examples, as those of all
        mean and counting metrics do. "loss" is there by itself.

    Raises:
      MissingExtraError: if Keras is not installed.
      ArgumentError: if Keras runs on another backend, the model is not built, or has state besides its weights (such as
        batch normalisation's moving averages) or metrics that do not add up.
      ArgumentTypeError: if an argument is of the wrong kind.
    """
    keras = require("keras", extra="keras", purpose="learning.from_keras")
    if keras.backend.backend() != "jax":
        raise ArgumentError(
            f"Keras must run on its JAX backend, got {keras.backend.backend()!r}; set the environment variable "
            "KERAS_BACKEND=jax before Keras is imported"
        )
    model = _built(keras, build_model)
    seeds = _seed_positions(keras, model)
    names = [
        f"{i:0{len(str(len(model.trainable_variables)))}d}.{_short(v)}" for i, v in enumerate(model.trainable_variables)
    ]
    fixed = [np.asarray(variable) for variable in model.non_trainable_variables]

    def init(key: Key) -> Weights:
        fresh = _seeded(keras, key, build_model)
        return {
            name: jnp.asarray(variable.value) for name, variable in zip(names, fresh.trainable_variables, strict=True)
        }

    def call(weights: Weights, inputs: Any, *, key: Key | None) -> Any:
        # A layer's seed generator is state; a fresh key each time stands for it.
        state = [
            jnp.asarray(key, jnp.uint32) if key is not None and i in seeds else value for i, value in enumerate(fixed)
        ]
        outputs, _ = model.stateless_call([weights[name] for name in names], state, inputs, training=key is not None)
        return outputs

    return Model(
        init=init,
        predict=lambda weights, inputs: call(weights, inputs, key=None),
        loss=_per_example(keras, loss),
        metrics=dict(_metric(keras, metric) for metric in metrics),
        predict_train=(lambda weights, inputs, key: call(weights, inputs, key=key)) if seeds else None,
    )


def _built(keras: Any, build_model: Callable[[], Any]) -> Any:
    if not callable(build_model) or isinstance(build_model, keras.Model):
        raise ArgumentTypeError(
            f"build_model must be a function that builds the model, got {type(build_model).__name__}; "
            "a model that exists already has weights that no seed determines"
        )
    model = build_model()
    if not isinstance(model, keras.Model):
        raise ArgumentTypeError(f"build_model must return a keras.Model, got {type(model).__name__}")
    if not model.built or not model.trainable_variables:
        raise ArgumentError("the Keras model must be built and have weights; begin it with keras.Input(shape)")
    return model


def _seed_positions(keras: Any, model: Any) -> set[int]:
    """Positions among the non-trainable variables of seed generators' states; other state is refused."""
    generators = {id(layer.state) for layer in _seed_generators(keras, model)}
    others = [v.path for v in model.non_trainable_variables if id(v) not in generators and not _is_frozen(model, v)]
    if others:
        raise ArgumentError(
            f"the Keras model keeps state besides its weights, {', '.join(others)}, which clients could not share; "
            "use a layer without moving averages, such as keras.layers.GroupNormalization"
        )
    return {i for i, v in enumerate(model.non_trainable_variables) if id(v) in generators}


def _seed_generators(keras: Any, model: Any) -> list[Any]:
    found = []
    for layer in model._flatten_layers():
        found += [value for value in vars(layer).values() if isinstance(value, keras.random.SeedGenerator)]
    return found


def _is_frozen(model: Any, variable: Any) -> bool:
    """Whether a layer holds the variable as a weight that was set not to be trained: a constant."""
    return any(
        any(weight is variable for weight in layer.weights) and not layer.trainable for layer in model._flatten_layers()
    )


def _short(variable: Any) -> str:
    """The layer's and the variable's name, without what Keras counts up each time a model is built."""
    *_, layer, name = variable.path.split("/")
    return f"{re.sub(r'_[0-9]+$', '', layer)}.{name}"


def _seeded(keras: Any, key: Key, build_model: Callable[[], Any]) -> Any:
    """A fresh model whose initialisers draw from `key`; Keras has only global seeds, which are put back afterwards."""
    python_state, numpy_state = python_random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        keras.utils.set_random_seed(int(np.asarray(key)[0]))
        return build_model()
    finally:
        python_random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002


def _per_example(keras: Any, loss: Any) -> Callable[[Any, Any], Any]:
    if isinstance(loss, keras.losses.Loss):
        return lambda outputs, labels: loss.call(labels, outputs)
    if callable(loss):
        return lambda outputs, labels: loss(labels, outputs)
    raise ArgumentTypeError(
        f"loss must be a keras.losses.Loss or a function, got {loss!r} of type {type(loss).__name__}"
    )


def _metric(keras: Any, metric: Any) -> tuple[str, Metric]:
    if not isinstance(metric, keras.metrics.Metric):
        raise ArgumentTypeError(
            f"metrics must be keras.metrics.Metric objects, got {metric!r} of type {type(metric).__name__}"
        )
    start = [np.asarray(variable) for variable in metric.variables]
    if any(value.any() for value in start):
        raise ArgumentError(f"metric {metric.name!r} does not start at zero, so it cannot be summed over clients")

    def sums(outputs: Any, labels: Any, mask: Any) -> Any:
        state = metric.stateless_update_state([jnp.asarray(v) for v in start], labels, outputs, sample_weight=mask)
        return tuple(jnp.asarray(value, jnp.float32) for value in state)

    return metric.name, Metric(sums, lambda state: metric.stateless_result([jnp.asarray(value) for value in state]))

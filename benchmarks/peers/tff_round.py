"""TensorFlow Federated's round: fp32, or the compression tutorial's 8 bits both ways."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.peers import exchange

tf: Any = importlib.import_module("tensorflow")
tff: Any = importlib.import_module("tensorflow_federated")
encoding: Any = importlib.import_module("tensorflow_model_optimization.python.core.internal.tensor_encoding")

PACKAGES = ("tensorflow-federated", "tensorflow")


def keras_model() -> Any:
    """The tutorial's CNN, with logits for outputs."""
    layers = tf.keras.layers
    return tf.keras.models.Sequential(
        [
            layers.Conv2D(32, 5, padding="same", activation="relu", input_shape=(28, 28, 1)),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(512, activation="relu"),
            layers.Dense(10),
        ]
    )


def model_fn() -> Any:
    """A new model, as TFF wants one for each call."""
    spec = (tf.TensorSpec((None, 28, 28, 1), tf.float32), tf.TensorSpec((None,), tf.int32))
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return tff.learning.from_keras_model(keras_model(), input_spec=spec, loss=loss)


def encoder(spec: Any) -> Any:
    """The tutorial's choice: 8 bits for large tensors."""
    large = spec.shape.num_elements() > exchange.EIGHT_BIT_ABOVE
    return encoding.encoders.uniform_quantization(8) if large else encoding.encoders.identity()


def broadcast_encoder(spec: Any) -> Any:
    """For the way down."""
    return encoding.encoders.as_simple_encoder(encoder(spec), tf.TensorSpec(spec.shape, spec.dtype))


def gather_encoder(spec: Any) -> Any:
    """For the way up."""
    return encoding.encoders.as_gather_encoder(encoder(spec), tf.TensorSpec(spec.shape, spec.dtype))


def compression() -> dict[str, Any]:
    """Both ways with 8 bits: what the tutorial's encoders became."""
    return {
        "broadcast_process": tff.learning.framework.build_encoded_broadcast_process_from_model(
            model_fn, broadcast_encoder
        ),
        "model_update_aggregation_factory": tff.aggregators.MeanFactory(
            tff.aggregators.EncodedSumFactory(gather_encoder)
        ),
    }


def train(task: exchange.Task, channel: exchange.Channel) -> None:
    """Trains in TFF's default context."""
    process = tff.learning.build_federated_averaging_process(
        model_fn,
        client_optimizer_fn=lambda: tf.keras.optimizers.SGD(exchange.CLIENT_RATE),
        server_optimizer_fn=lambda: tf.keras.optimizers.SGD(exchange.SERVER_RATE),
        **({} if task.variant == "fp32" else compression()),
    )
    state = tff.learning.state_with_new_model_weights(process.initialize(), task.weights, [])

    def dataset(images: np.ndarray, labels: np.ndarray) -> Any:
        return tf.data.Dataset.from_tensor_slices((images[..., np.newaxis], labels)).batch(exchange.BATCH_SIZE)

    def prepare(round_number: int) -> Callable[[], None]:
        images, labels = task.images[round_number], task.labels[round_number]
        cohort = [dataset(images[i], labels[i]) for i in range(len(images))]

        def run() -> None:
            nonlocal state
            state, _ = process.next(state, cohort)

        return run

    channel.serve(PACKAGES, prepare, lambda: [np.asarray(each) for each in state.model.trainable])

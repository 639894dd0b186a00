"""FedJAX's round: its Federated Averaging with the backend that it chooses by itself."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._fedjax import restore_dropped_names
from benchmarks.peers import exchange

jax: Any = restore_dropped_names()
fedjax: Any = importlib.import_module("fedjax")
haiku: Any = importlib.import_module("haiku")

PACKAGES = ("fedjax", "jax")
LAYERS = ("conv1", "conv2", "dense1", "dense2")


def forward(batch: Any) -> Any:
    """The tutorial's CNN in Haiku, as FedJAX's own models are written."""
    return haiku.Sequential(
        [
            haiku.Conv2D(32, 5, padding="SAME", name="conv1"),
            jax.nn.relu,
            haiku.MaxPool((2, 2, 1), (2, 2, 1), "VALID"),
            haiku.Conv2D(64, 5, padding="SAME", name="conv2"),
            jax.nn.relu,
            haiku.MaxPool((2, 2, 1), (2, 2, 1), "VALID"),
            haiku.Flatten(),
            haiku.Linear(512, name="dense1"),
            jax.nn.relu,
            haiku.Linear(10, name="dense2"),
        ]
    )(batch["x"])


def algorithm(sample: Any) -> Any:
    """FedJAX's Federated Averaging of the model; a sample gives the shapes."""
    model = fedjax.create_model_from_haiku(
        haiku.transform(forward),
        sample,
        lambda batch, outputs: fedjax.metrics.unreduced_cross_entropy_loss(batch["y"], outputs),
    )
    return fedjax.algorithms.fed_avg.federated_averaging(
        fedjax.model_grad(model),
        fedjax.optimizers.sgd(exchange.CLIENT_RATE),
        fedjax.optimizers.sgd(exchange.SERVER_RATE),
        # Batches in the order that all have.
        fedjax.ShuffleRepeatBatchHParams(batch_size=exchange.BATCH_SIZE, skip_shuffle=True),
    )


def train(task: exchange.Task, channel: exchange.Channel) -> None:
    """Trains."""
    images = task.images[..., np.newaxis]
    fed_avg = algorithm({"x": images[0, 0, : exchange.BATCH_SIZE], "y": task.labels[0, 0, : exchange.BATCH_SIZE]})
    weights = {layer: {"w": task.weights[2 * i], "b": task.weights[2 * i + 1]} for i, layer in enumerate(LAYERS)}
    state = fed_avg.init(jax.device_put(weights))

    def prepare(round_number: int) -> Callable[[], None]:
        keys = jax.random.split(jax.random.PRNGKey(round_number), images.shape[1])
        cohort = [
            (
                task.client_ids[round_number, i],
                fedjax.ClientDataset({"x": images[round_number, i], "y": task.labels[round_number, i]}),
                keys[i],
            )
            for i in range(images.shape[1])
        ]

        def run() -> None:
            nonlocal state
            state, _ = fed_avg.apply(state, cohort)
            jax.block_until_ready(state.params)

        return run

    def trained() -> list[np.ndarray]:
        return [np.asarray(state.params[layer][name]) for layer in LAYERS for name in ("w", "b")]

    channel.serve(PACKAGES, prepare, trained)

"""Laconic's round: fp32, 8 bits both ways as in TFF's tutorial, or the balanced preset."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from benchmarks.peers import exchange
from laconic import codecs, data, learning

PACKAGES = ("laconic", "jax")
LAYERS = ("conv1", "conv2", "dense1", "dense2")


def tree(arrays: list[np.ndarray]) -> Any:
    """A task's weights as the model has them."""
    return {layer: {"kernel": arrays[2 * i], "bias": arrays[2 * i + 1]} for i, layer in enumerate(LAYERS)}


def arrays(weights: Any) -> list[np.ndarray]:
    """The model's weights as a task has them."""
    return [np.asarray(weights[layer][name]) for layer in LAYERS for name in ("kernel", "bias")]


def compression(variant: str) -> learning.Compression | None:
    """What travels compressed."""
    if variant == "fp32":
        return None
    if variant == "balanced":
        return learning.presets.balanced()
    return learning.Compression("8 bit", learning.encoded_broadcast(codec_for), learning.encoded_mean(codec_for))


def codec_for(spec: codecs.TensorSpec) -> codecs.Codec:
    """The tutorial's choice: 8 bits for large tensors."""
    return codecs.uniform_quantization(8) if spec.size > exchange.EIGHT_BIT_ABOVE else codecs.identity()


def train(task: exchange.Task, channel: exchange.Channel) -> None:
    """Trains with the engine that is taken when none is named."""
    start = tree(task.weights)
    process = learning.fed_avg(
        dataclasses.replace(learning.models.fedavg_cnn(), init=lambda key: start),  # noqa: ARG005
        optax.sgd(exchange.CLIENT_RATE),
        optax.sgd(exchange.SERVER_RATE),
        compression=compression(task.variant),
    )
    state = process.initialize(seed=0)

    def prepare(round_number: int) -> Callable[[], None]:
        ids = [str(client_id) for client_id in task.client_ids[round_number]]
        clients = data.from_arrays(
            {each: {"x": task.images[round_number, i], "y": task.labels[round_number, i]} for i, each in enumerate(ids)}
        )
        cohort = clients.batched(exchange.BATCH_SIZE).cohort(ids, round_number)

        def run() -> None:
            nonlocal state
            state, _ = jax.block_until_ready(process.next(state, cohort))

        return run

    channel.serve(PACKAGES, prepare, lambda: arrays(state.weights))

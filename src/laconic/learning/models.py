"""Built-in models, as pure functions."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from laconic.codecs import random
from laconic.codecs.random import Key
from laconic.errors import ArgumentError, ArgumentTypeError
from laconic.learning._model import AnyArray, Model, Weights, accuracy


def fedavg_cnn(num_classes: int = 10) -> Model:
    """The CNN of McMahan et al. 2017 and of TFF's compression tutorial, for images [n, 28, 28] or [n, 28, 28, 1].

    Convolution 5x5 to 32, pool 2, convolution 5x5 to 64, pool 2, dense 512, dense `num_classes` (logits); ReLU after
    all but the last. 1,663,370 weights in eight tensors for ten classes. Glorot-uniform kernels and zero biases, as
    Keras has them.

    Raises:
      ArgumentError: if there are fewer than two classes.
    """
    _check_classes(num_classes)
    shapes: dict[str, tuple[int, ...]] = {
        "conv1": (5, 5, 1, 32),
        "conv2": (5, 5, 32, 64),
        "dense1": (7 * 7 * 64, 512),
        "dense2": (512, num_classes),
    }

    def predict(weights: Weights, images: Float[AnyArray, "n 28 28 ..."]) -> Float[Array, "n classes"]:
        x = jnp.asarray(images).reshape(-1, 28, 28, 1)
        x = _pooled_relu(_convolution(x, weights["conv1"]))
        x = _pooled_relu(_convolution(x, weights["conv2"]))
        x = jax.nn.relu(_dense(x.reshape(x.shape[0], -1), weights["dense1"]))
        return _dense(x, weights["dense2"])

    return _classifier(shapes, predict)


def perceptron(input_size: int, hidden_sizes: tuple[int, ...] = (200,), num_classes: int = 10) -> Model:
    """A multilayer perceptron with ReLU, for inputs [n, ...] of `input_size` numbers each; logits out.

    Raises:
      ArgumentError: if a size is not positive or there are fewer than two classes.
    """
    _check_classes(num_classes)
    sizes = (input_size, *hidden_sizes, num_classes)
    if any(size < 1 for size in sizes):
        raise ArgumentError(f"sizes must be positive, got {sizes}")
    shapes: dict[str, tuple[int, ...]] = {f"dense{i + 1}": (sizes[i], sizes[i + 1]) for i in range(len(sizes) - 1)}

    def predict(weights: Weights, inputs: Float[AnyArray, "n ..."]) -> Float[Array, "n classes"]:
        x = jnp.asarray(inputs).reshape(inputs.shape[0], -1)
        for i in range(1, len(shapes)):
            x = jax.nn.relu(_dense(x, weights[f"dense{i}"]))
        return _dense(x, weights[f"dense{len(shapes)}"])

    return _classifier(shapes, predict)


def _classifier(shapes: dict[str, tuple[int, ...]], predict: Any) -> Model:
    def init(key: Key) -> Weights:
        glorot = jax.nn.initializers.glorot_uniform()
        return {
            name: {
                "kernel": glorot(random.as_jax_key(random.derive(key, name)), shape, jnp.float32),
                "bias": jnp.zeros(shape[-1], jnp.float32),
            }
            for name, shape in shapes.items()
        }

    return Model(
        init=init,
        predict=predict,
        loss=optax.losses.softmax_cross_entropy_with_integer_labels,
        metrics={"accuracy": accuracy()},
    )


def _convolution(x: Float[Array, "n h w c"], layer: Weights) -> Float[Array, "n h w d"]:
    return (
        jax.lax.conv_general_dilated(x, layer["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        + layer["bias"]
    )


def _pooled_relu(x: Float[Array, "n h w c"]) -> Float[Array, "n h/2 w/2 c"]:
    # Reshape and max, not reduce_window, whose gradient is slow on CPU. ReLU commutes with the maximum and costs a
    # quarter after it.
    n, height, width, channels = x.shape
    return jax.nn.relu(x.reshape(n, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4)))


def _dense(x: Float[Array, "n c"], layer: Weights) -> Float[Array, "n d"]:
    return x @ layer["kernel"] + layer["bias"]


def _check_classes(num_classes: int) -> None:
    if isinstance(num_classes, bool) or not isinstance(num_classes, int):
        raise ArgumentTypeError(f"num_classes must be a whole number, got {num_classes!r}")
    if num_classes < 2:
        raise ArgumentError(f"num_classes must be at least 2, got {num_classes}")

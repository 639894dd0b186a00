"""The models of the first papers: a CNN and a perceptron."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from laconic.errors import ArgumentError
from laconic.learning._model import AnyArray, Model, Weights
from laconic.learning.models._layers import Shape, affine_classifier, check_whole, convolution, dense
from laconic.learning.models._winograd import pooled_convolution as winograd_pooled_convolution

_FEW = 64  # examples, up to which a convolution's transforms stay in the processor's caches


def fedavg_cnn(num_classes: int = 10) -> Model:
    """The CNN of McMahan et al. 2017 and of TFF's compression tutorial, for images [n, 28, 28] or [n, 28, 28, 1].

    Convolution 5x5 to 32, pool 2, convolution 5x5 to 64, pool 2, dense 512, dense `num_classes` (logits); ReLU after
    all but the last. 1,663,370 weights in eight tensors for ten classes. Glorot-uniform kernels and zero biases, as
    Keras has them.

    Raises:
      ArgumentError: if there are fewer than two classes.
    """
    check_whole("num_classes", num_classes, 2)
    shapes: dict[str, Shape] = {
        "conv1": (5, 5, 1, 32),
        "conv2": (5, 5, 32, 64),
        "dense1": (7 * 7 * 64, 512),
        "dense2": (512, num_classes),
    }

    def predict(weights: Weights, images: Float[AnyArray, "n 28 28 ..."]) -> Float[Array, "n classes"]:
        x = jnp.asarray(images).reshape(-1, 28, 28, 1)
        x = _pooled_layer(x, weights["conv1"], _pooled_convolution)
        are_few = len(x) <= _FEW
        x = _pooled_layer(x, weights["conv2"], winograd_pooled_convolution if are_few else _pooled_convolution)
        x = jax.nn.relu(dense(x.reshape(x.shape[0], -1), weights["dense1"]))
        return dense(x, weights["dense2"])

    return affine_classifier(shapes, predict)


def perceptron(input_size: int, hidden_sizes: tuple[int, ...] = (200,), num_classes: int = 10) -> Model:
    """A multilayer perceptron with ReLU, for inputs [n, ...] of `input_size` numbers each; logits out.

    Raises:
      ArgumentError: if a size is not positive or there are fewer than two classes.
    """
    check_whole("num_classes", num_classes, 2)
    sizes = (input_size, *hidden_sizes, num_classes)
    if any(size < 1 for size in sizes):
        raise ArgumentError(f"sizes must be positive, got {sizes}")
    shapes: dict[str, Shape] = {f"dense{i + 1}": (sizes[i], sizes[i + 1]) for i in range(len(sizes) - 1)}

    def predict(weights: Weights, inputs: Float[AnyArray, "n ..."]) -> Float[Array, "n classes"]:
        x = jnp.asarray(inputs).reshape(inputs.shape[0], -1)
        for i in range(1, len(shapes)):
            x = jax.nn.relu(dense(x, weights[f"dense{i}"]))
        return dense(x, weights[f"dense{len(shapes)}"])

    return affine_classifier(shapes, predict)


def _pooled_layer(
    x: Float[Array, "n h w c"], layer: Weights, pooled: Callable[..., Float[Array, "n h/2 w/2 d"]]
) -> Float[Array, "n h/2 w/2 d"]:
    # Bias and ReLU commute with the maximum, and cost a quarter after it.
    return jax.nn.relu(pooled(x, layer["kernel"]) + layer["bias"])


def _pooled_convolution(x: Float[Array, "n h w c"], kernel: Float[Array, "5 5 c d"]) -> Float[Array, "n h/2 w/2 d"]:
    # Not reduce_window, whose gradient is slow on CPU, and no maximum along axes, whose gradient first counts equal
    # ones: with that a training step took an eighth longer. And not `_pooling.max_pool`, as fast, which JAX cannot
    # differentiate forwards.
    n, height, width, _ = x.shape
    pixels = convolution(x, kernel).reshape(n, height // 2, 2, width // 2, 2, -1)
    upper, lower = (jnp.maximum(pixels[:, :, i, :, 0], pixels[:, :, i, :, 1]) for i in range(2))
    return jnp.maximum(upper, lower)

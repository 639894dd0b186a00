"""What the built-in models are made of: layers, their first weights, and the checks of their sizes."""

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from laconic.codecs import random
from laconic.codecs.random import Key
from laconic.errors import ArgumentError, ArgumentTypeError
from laconic.learning._model import AnyArray, Model, Weights, accuracy

Shape = tuple[int, ...]


def draw_uniform(key: Key, tensors: Mapping[str, tuple[Shape, float]]) -> dict[str, Float[Array, "..."]]:
    """First weights of many tensors, each uniform between minus and plus its limit: `tensors` has shapes and limits.

    All are drawn as one vector from the specified generator: a seed gives the same bits with any version of JAX, and
    one draw is compiled, which takes as long as each of many.
    """

    def draw(key: Key) -> dict[str, Float[Array, "..."]]:
        sizes = [math.prod(shape) for shape, _ in tensors.values()]
        parts = jnp.split(2 * random.uniform(key, (sum(sizes),)) - 1, np.cumsum(sizes)[:-1])
        limited = zip(tensors.items(), parts, strict=True)
        return {name: (part * np.float32(limit)).reshape(shape) for (name, (shape, limit)), part in limited}

    return jax.jit(draw)(key)


def glorot_limit(shape: Shape) -> float:
    """The limit of Glorot and Bengio 2010 for a kernel [..., inputs, outputs]."""
    *window, inputs, outputs = shape
    return math.sqrt(6 / (math.prod(window) * (inputs + outputs)))


def affine(key: Key, name: str, shape: Shape) -> Weights:
    """A Glorot-uniform kernel and a zero bias, as Keras has them; the key is the model's.

    The kernel is, bit for bit, what `jax.nn.initializers.glorot_uniform` makes of the derived key with JAX's default
    generator; but it depends on neither JAX's version nor its settings, and for a key on the host nothing is compiled,
    which would take longer than the first round's training.
    """
    own = random.derive(key, name)
    counters = np.arange(math.prod(shape), dtype=np.uint32)
    first, second = random.threefry(own, np.zeros_like(counters), counters)
    *window, inputs, outputs = shape
    # In JAX's order of operations: the last bit of `glorot_limit` is another one for some shapes.
    variance = np.float32(1 / (math.prod(window) * (inputs + outputs) / 2))
    unit = ((first ^ second) >> np.uint32(9)).astype(np.float32) * np.float32(2.0**-22) - np.float32(1)
    kernel = (unit * np.sqrt(np.float32(3) * variance)).reshape(shape)
    return {"kernel": jnp.asarray(kernel), "bias": jnp.zeros(shape[-1], jnp.float32)}


def dense(x: Float[Array, "... c"], layer: Weights) -> Float[Array, "... d"]:
    """A matrix product and a bias."""
    return x @ layer["kernel"] + layer["bias"]


def convolution(
    x: Float[Array, "n h w c"], kernel: Float[Array, "kh kw c d"], stride: int = 1
) -> Float[Array, "n ..."]:
    """A convolution of the same size, or of a `stride`-th of it on each side, rounded up."""
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=layout)


def mean_cross_entropy(
    logits: Float[AnyArray, "n length classes"], labels: Int[AnyArray, "n length"]
) -> Float[Array, " n"]:
    """An example's mean over its characters."""
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean(axis=1)


def classifier(init: Callable[[Key], Weights], predict: Callable[..., Float[Array, "n classes"]]) -> Model:
    """A model of logits, one label an example: cross-entropy and accuracy."""
    return Model(
        init=init,
        predict=predict,
        loss=optax.losses.softmax_cross_entropy_with_integer_labels,
        metrics={"accuracy": accuracy()},
    )


def affine_classifier(shapes: Mapping[str, Shape], predict: Callable[..., Float[Array, "n classes"]]) -> Model:
    """A classifier all of whose layers are `affine`, of these shapes."""
    return classifier(lambda key: {name: affine(key, name, shape) for name, shape in shapes.items()}, predict)


def check_whole(name: str, value: int, minimum: int) -> None:
    """Raises an error unless the argument of this name is an integer of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ArgumentTypeError(f"{name} must be a whole number, got {value!r}")
    if value < minimum:
        raise ArgumentError(f"{name} must be at least {minimum}, got {value}")


def check_sizes(name: str, sizes: tuple[int, ...]) -> None:
    """Raises an error unless the argument of this name is a tuple of positive integers, at least one."""
    if not isinstance(sizes, tuple):
        raise ArgumentTypeError(f"{name} must be a tuple of whole numbers, got {sizes!r}")
    if not sizes:
        raise ArgumentError(f"{name} must be at least one size, got none")
    for size in sizes:
        check_whole(f"each of {name}", size, 1)

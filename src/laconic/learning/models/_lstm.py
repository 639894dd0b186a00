"""A language model of characters."""

import math
from itertools import pairwise

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from laconic.codecs.random import Key
from laconic.learning._model import AnyArray, Model, Weights, accuracy
from laconic.learning.models._layers import (
    Shape,
    check_sizes,
    check_whole,
    dense,
    draw_uniform,
    glorot_limit,
    mean_cross_entropy,
)


def character_lstm(
    vocabulary_size: int = 97, *, embedding_size: int = 64, hidden_sizes: tuple[int, ...] = (128,)
) -> Model:
    """Predicts each next character, for codes [n, length] of characters; logits [n, length, vocabulary_size] out.

    An embedding, one LSTM (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000) after the other,
    and a dense layer. Labels are codes [n, length], the characters one place on. An example's loss and accuracy are
    means over its characters. As given: 117,537 weights in six tensors.

    Glorot-uniform kernels; biases zero, but of the forget gates one (Jozefowicz et al. 2015); the embedding is uniform
    of variance one. It learns best from large steps along clipped gradients, such as
    `optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(5.0))`.

    Args:
      vocabulary_size: how many characters there are; 97 is the number in `data.characters.VOCABULARY`.
      embedding_size: the numbers that stand for a character.
      hidden_sizes: the units of each LSTM.

    Raises:
      ArgumentError: if a size is not positive, or there are fewer than two characters.
      ArgumentTypeError: if a size is not an integer.
    """
    check_whole("vocabulary_size", vocabulary_size, 2)
    check_whole("embedding_size", embedding_size, 1)
    check_sizes("hidden_sizes", hidden_sizes)
    names = [f"lstm{i + 1}" for i in range(len(hidden_sizes))]
    kernels = _kernels(vocabulary_size, embedding_size, hidden_sizes)

    def init(key: Key) -> Weights:
        drawn = draw_uniform(key, kernels)
        weights = {"embedding": {"table": drawn["embedding/table"]}}
        for name, units in zip(names, hidden_sizes, strict=True):
            weights[name] = {
                "kernel": drawn[f"{name}/kernel"],
                "recurrent_kernel": drawn[f"{name}/recurrent_kernel"],
                "bias": jnp.zeros(4 * units, jnp.float32).at[units : 2 * units].set(1),
            }
        dense_bias = jnp.zeros(vocabulary_size, jnp.float32)
        return weights | {"dense": {"kernel": drawn["dense/kernel"], "bias": dense_bias}}

    def predict(weights: Weights, characters: Int[AnyArray, "n length"]) -> Float[Array, "n length vocabulary"]:
        x = jnp.asarray(weights["embedding"]["table"])[jnp.asarray(characters)]
        for name in names:
            x = _lstm(x, weights[name])
        return dense(x, weights["dense"])

    return Model(init=init, predict=predict, loss=mean_cross_entropy, metrics={"accuracy": accuracy()})


def _kernels(vocabulary: int, embedding: int, hidden: tuple[int, ...]) -> dict[str, tuple[Shape, float]]:
    """Shapes and limits of what is drawn; an LSTM's gates are beside each other: input, forget, cell, output."""
    shapes: dict[str, Shape] = {}
    for i, (inputs, units) in enumerate(pairwise((embedding, *hidden))):
        shapes[f"lstm{i + 1}/kernel"] = (inputs, 4 * units)
        shapes[f"lstm{i + 1}/recurrent_kernel"] = (units, 4 * units)
    shapes["dense/kernel"] = (hidden[-1], vocabulary)
    glorot = {name: (shape, glorot_limit(shape)) for name, shape in shapes.items()}
    return {"embedding/table": ((vocabulary, embedding), math.sqrt(3)), **glorot}


def _lstm(x: Float[Array, "n length c"], layer: Weights) -> Float[Array, "n length d"]:
    # What does not wait for the characters before is one matrix product for all times.
    gates = jnp.swapaxes(x @ layer["kernel"] + layer["bias"], 0, 1)
    units = layer["recurrent_kernel"].shape[0]

    def step(
        carry: tuple[Float[Array, "n d"], Float[Array, "n d"]], gates: Float[Array, "n 4*d"]
    ) -> tuple[tuple[Float[Array, "n d"], Float[Array, "n d"]], Float[Array, "n d"]]:
        output, cell = carry
        write, keep, new, show = jnp.split(gates + output @ layer["recurrent_kernel"], 4, axis=-1)
        cell = jax.nn.sigmoid(keep) * cell + jax.nn.sigmoid(write) * jnp.tanh(new)
        output = jax.nn.sigmoid(show) * jnp.tanh(cell)
        return (output, cell), output

    nothing = jnp.zeros((x.shape[0], units), x.dtype)
    _, outputs = jax.lax.scan(step, (nothing, nothing), gates)
    return jnp.swapaxes(outputs, 0, 1)

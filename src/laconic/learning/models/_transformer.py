"""A small language model of characters, by attention."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from laconic.codecs.random import Key
from laconic.errors import ArgumentError
from laconic.learning._model import AnyArray, Model, Weights, accuracy
from laconic.learning.models._layers import Shape, check_whole, draw_uniform, glorot_limit, mean_cross_entropy

_PERIOD = 10_000.0  # of the slowest rotation, over 2 pi, in characters


def character_transformer(
    vocabulary_size: int = 97, *, width: int = 64, num_layers: int = 2, num_heads: int = 4
) -> Model:
    """Predicts each next character, for codes [n, length] of characters; logits [n, length, vocabulary_size] out.

    A decoder (Vaswani et al. 2017) that never looks ahead, each layer's attention and its two dense layers (GELU, four
    times as wide between) after a normalisation of their own (Xiong et al. 2020; root mean squares, Zhang and Sennrich
    2019). Places are told by rotation (Su et al. 2021), so that any length will do, and the embedding is also the last
    layer (Press and Wolf 2017): neither adds weights that would have to travel. Labels are codes [n, length], the
    characters one place on. An example's loss and accuracy are means over its characters.

    Glorot-uniform kernels, those that end a branch divided by the root of how many there are (Radford et al. 2019);
    no biases; normalisations start at one. As given: 104,832 weights in 14 tensors.

    Args:
      vocabulary_size: how many characters there are; 97 is the number in `data.characters.VOCABULARY`.
      width: the numbers that stand for a character, between layers.
      num_layers: of attention and two dense layers each.
      num_heads: of each attention; each has `width / num_heads` numbers, which must be even.

    Raises:
      ArgumentError: if a size is not positive, there are fewer than two characters, or heads do not divide the width
        into even parts.
      ArgumentTypeError: if a size is not an integer.
    """
    check_whole("vocabulary_size", vocabulary_size, 2)
    check_whole("width", width, 1)
    check_whole("num_layers", num_layers, 1)
    check_whole("num_heads", num_heads, 1)
    if width % (2 * num_heads):
        raise ArgumentError(
            f"width must be a multiple of {2 * num_heads}, twice num_heads={num_heads}, since each head turns pairs of"
            f" numbers; got {width}"
        )
    names = [f"layer{i + 1}" for i in range(num_layers)]
    kernels = _kernels(vocabulary_size, width, names)

    def init(key: Key) -> Weights:
        drawn = draw_uniform(key, kernels)
        weights: Weights = {"embedding": {"table": drawn["embedding/table"]}, "norm": jnp.ones(width, jnp.float32)}
        for name in names:
            own = {kind: drawn[f"{name}/{kind}"] for kind in ("queries_keys_values", "mix", "widen", "narrow")}
            scales = {kind: jnp.ones(width, jnp.float32) for kind in ("attention_norm", "dense_norm")}
            weights[name] = own | scales
        return weights

    def predict(weights: Weights, characters: Int[AnyArray, "n length"]) -> Float[Array, "n length vocabulary"]:
        table = jnp.asarray(weights["embedding"]["table"])
        x = table[jnp.asarray(characters)] * math.sqrt(width)
        for name in names:
            layer = weights[name]
            x = x + _attention(_normalised(x, layer["attention_norm"]), layer, num_heads)
            x = x + jax.nn.gelu(_normalised(x, layer["dense_norm"]) @ layer["widen"]) @ layer["narrow"]
        return _normalised(x, weights["norm"]) @ table.T

    return Model(init=init, predict=predict, loss=mean_cross_entropy, metrics={"accuracy": accuracy()})


def _kernels(vocabulary: int, width: int, names: list[str]) -> dict[str, tuple[Shape, float]]:
    """Shapes and limits of what is drawn."""
    table = (vocabulary, width), math.sqrt(3 / width)  # of variance 1 / width, so that logits' is one
    tensors: dict[str, tuple[Shape, float]] = {"embedding/table": table}
    for name in names:
        for kind, shape, branches in (
            ("queries_keys_values", (width, 3 * width), 1),
            ("mix", (width, width), 2 * len(names)),
            ("widen", (width, 4 * width), 1),
            ("narrow", (4 * width, width), 2 * len(names)),
        ):
            tensors[f"{name}/{kind}"] = shape, glorot_limit(shape) / math.sqrt(branches)
    return tensors


def _normalised(x: Float[Array, "... d"], scale: Float[Array, " d"]) -> Float[Array, "... d"]:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6) * scale


def _attention(x: Float[Array, "n length d"], layer: Weights, num_heads: int) -> Float[Array, "n length d"]:
    n, length, width = x.shape
    parts = (x @ layer["queries_keys_values"]).reshape(n, length, 3, num_heads, width // num_heads)
    queries, keys, values = (parts[:, :, i] for i in range(3))
    attended = jax.nn.dot_product_attention(_turned(queries), _turned(keys), values, is_causal=True)
    return attended.reshape(n, length, width) @ layer["mix"]


def _turned(x: Float[Array, "n length heads d"]) -> Float[Array, "n length heads d"]:
    """Each pair of numbers as a vector in the plane, turned by an angle in proportion to its place."""
    half = x.shape[-1] // 2
    angles = np.arange(x.shape[1])[:, None, None] * _PERIOD ** (-np.arange(half) / half)
    cosine, sine = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate([first * cosine - second * sine, first * sine + second * cosine], axis=-1)

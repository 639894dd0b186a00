"""A small residual network, for images of any size."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from laconic.codecs.random import Key
from laconic.errors import ArgumentError
from laconic.learning._model import AnyArray, Model, Weights
from laconic.learning.models._layers import (
    Shape,
    check_sizes,
    check_whole,
    classifier,
    convolution,
    dense,
    draw_uniform,
    glorot_limit,
)

_EPSILON = 1e-5  # added to variances, which are 0 in the padding of a batch


def resnet(
    num_classes: int = 10,
    *,
    image_channels: int = 1,
    widths: tuple[int, ...] = (16, 32, 64),
    blocks: int = 1,
    groups: int = 8,
) -> Model:
    """A residual network (He et al. 2016) with group normalisation, for images [n, h, w] or [n, h, w, image_channels].

    Each image is standardised; convolution 3x3 to `widths[0]`; for each width a stage of `blocks` blocks of two
    convolutions 3x3, past which their input is added, and each stage but the first halves height and width; means over
    the four quarters of the image; dense `num_classes` (logits). After each convolution its channels are normalised in
    groups (Wu and He 2018), so that an example's output depends on no other example, and there are no running means for
    clients to disagree on. Glorot-uniform kernels, scales one, biases zero. As given: eight layers in depth, 79,674
    weights in 29 tensors.

    Args:
      num_classes: how many classes to tell apart.
      image_channels: 1 for grey images, whose axis of channels may be left out, 3 for colour.
      widths: the channels of each stage.
      blocks: how many blocks each stage has; two make 14 layers and 176,890 weights.
      groups: how many groups of channels are normalised apart; it divides every width.

    Raises:
      ArgumentError: if a size is not positive, there are fewer than two classes, or `groups` does not divide a width.
      ArgumentTypeError: if a size is not an integer.
    """
    check_whole("num_classes", num_classes, 2)
    check_whole("image_channels", image_channels, 1)
    check_sizes("widths", widths)
    check_whole("blocks", blocks, 1)
    check_whole("groups", groups, 1)
    if any(width % groups for width in widths):
        raise ArgumentError(f"groups must divide each of widths, got {groups} and {widths}")
    shapes = _kernels(image_channels, widths, blocks) | {"dense": (4 * widths[-1], num_classes)}

    def init(key: Key) -> Weights:
        kernels = draw_uniform(key, {name: (shape, glorot_limit(shape)) for name, shape in shapes.items()})
        return {name: _layer(kernel, is_normalised=name != "dense") for name, kernel in kernels.items()}

    def predict(weights: Weights, images: Float[AnyArray, "n h w ..."]) -> Float[Array, "n classes"]:
        def layer(x: Float[Array, "n h w c"], name: str, stride: int = 1) -> Float[Array, "n ..."]:
            own = weights[name]
            return _standardised(convolution(x, own["kernel"], stride), groups) * own["scale"] + own["bias"]

        x = jnp.asarray(images)
        # Otherwise a light background is all that the network sees: zeros beside it, where it ends, are a strong edge.
        x = _standardised(x[..., None] if x.ndim == 3 else x, image_channels)
        x = jax.nn.relu(layer(x, "stem"))
        for stage in range(len(widths)):
            for block in range(blocks):
                name, stride = _block_name(stage, block), 2 if stage and not block else 1
                residual = layer(jax.nn.relu(layer(x, f"{name}_conv1", stride)), f"{name}_conv2")
                # A convolution 1x1 of stride 2 sees every other pixel.
                straight = x if stride == 1 else layer(x[:, ::2, ::2], f"{name}_shortcut")
                x = jax.nn.relu(residual + straight)
        return dense(_quarter_means(x), weights["dense"])

    return classifier(init, predict)


def _kernels(image_channels: int, widths: tuple[int, ...], blocks: int) -> dict[str, Shape]:
    """Those of the convolutions; a block whose output is smaller than its input has a shortcut of its own."""
    shapes: dict[str, Shape] = {"stem": (3, 3, image_channels, widths[0])}
    channels = widths[0]
    for stage, width in enumerate(widths):
        for block in range(blocks):
            name = _block_name(stage, block)
            shapes[f"{name}_conv1"] = (3, 3, channels, width)
            shapes[f"{name}_conv2"] = (3, 3, width, width)
            if stage and not block:
                shapes[f"{name}_shortcut"] = (1, 1, channels, width)
            channels = width
    return shapes


def _block_name(stage: int, block: int) -> str:
    return f"stage{stage + 1}_block{block + 1}"


def _layer(kernel: Float[Array, "..."], *, is_normalised: bool) -> Weights:
    channels = kernel.shape[-1]
    scale = {"scale": jnp.ones(channels, jnp.float32)} if is_normalised else {}
    return {"kernel": kernel, **scale, "bias": jnp.zeros(channels, jnp.float32)}


def _standardised(x: Float[Array, "n h w c"], groups: int) -> Float[Array, "n h w c"]:
    """Each group of an example's channels at mean 0 and variance 1."""

    def group_means(values: Float[Array, "n h w c"]) -> Float[Array, "n 1 1 c"]:
        # Over the pixels first: a reduction over pixels and part of the channels at once is a third slower on CPU.
        n, channels = values.shape[0], values.shape[-1]
        means = values.mean(axis=(1, 2)).reshape(n, groups, channels // groups).mean(axis=2)
        return jnp.repeat(means, channels // groups, axis=1)[:, None, None]

    centred = x - group_means(x)
    return centred * jax.lax.rsqrt(group_means(jnp.square(centred)) + _EPSILON)


def _quarter_means(x: Float[Array, "n h w c"]) -> Float[Array, "n 4*c"]:
    """The mean of each quarter, one after the other, with the middle row and column of odd sizes in both halves.

    One mean of all would tell little: normalisation has fixed it, but for what ReLU makes of it.
    """
    height, width = x.shape[1:3]
    return jnp.concatenate(
        [
            x[:, rows, columns].mean(axis=(1, 2))
            for rows in (slice((height + 1) // 2), slice(height // 2, None))
            for columns in (slice((width + 1) // 2), slice(width // 2, None))
        ],
        axis=-1,
    )

"""A convolution by fewer multiplications than it has terms, for small batches on CPU."""

import functools
import math
from fractions import Fraction
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_TILE = 4  # outputs on each side; with more, rounding errors grow fast
_KERNEL = 5
_WINDOW = _TILE + _KERNEL - 1
_POINTS = (Fraction(0), *(sign * Fraction(size) for size in (1, 2, Fraction(1, 2)) for sign in (1, -1)))


class Transforms(NamedTuple):
    """Matrices that make a correlation a product: correlation(d, g) = outputs @ ((kernel @ g) * (inputs @ d)).

    Attributes:
      inputs: [window, window].
      kernel: [window, 5].
      outputs: [4, window].
    """

    inputs: list[list[Fraction]]
    kernel: list[list[Fraction]]
    outputs: list[list[Fraction]]


@functools.cache
def transforms() -> Transforms:
    """Those of Toom and Cook for 4 outputs of 5 terms each, from values of polynomials at 7 points and at infinity.

    A product of polynomials is known from its values; transposed, that is a correlation (Winograd 1980, "Arithmetic
    Complexity of Computations", chapter 5).
    """
    others = [[point for point in _POINTS if point != own] for own in _POINTS]
    at_infinity = [Fraction(0)] * (_KERNEL - 1) + [Fraction(1)]
    return Transforms(
        inputs=[[*_with_roots(roots), Fraction(0)] for roots in others] + [_with_roots(list(_POINTS))],
        kernel=[
            [point**power / math.prod(point - other for other in roots) for power in range(_KERNEL)]
            for point, roots in zip(_POINTS, others, strict=True)
        ]
        + [at_infinity],
        outputs=[[*(point**power for point in _POINTS), Fraction(power == _TILE - 1)] for power in range(_TILE)],
    )


def pooled_convolution(x: Float[Array, "n h w c"], kernel: Float[Array, "5 5 c d"]) -> Float[Array, "n h/2 w/2 d"]:
    """The maxima of each 2 by 2 pixels of a 5x5 convolution of the same size; height and width are even.

    Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks", section 4.1, F(4x4, 5x5): 64
    multiplications for each tile of 4 by 4 outputs instead of 400. Results differ from the plain sum's by 1e-5 of the
    largest. benchmarks/engines/steps.py has what it saves; kernels of 3x3, for which that is less, and large
    batches, whose transforms leave the processor's caches, gain nothing.
    """
    n, height, width, c = x.shape
    tiles_high, tiles_wide = -(-height // _TILE), -(-width // _TILE)
    # Tensor cores' shorter fractions are not enough: transforms multiply what they round.
    product = functools.partial(jnp.matmul, precision="highest")
    to_inputs, to_kernel, to_outputs = (jnp.asarray(matrix, x.dtype) for matrix in _in_two_dimensions())
    windows = _windows(x, tiles_high, tiles_wide).reshape(_WINDOW**2, -1)
    products = product(
        product(to_inputs, windows).reshape(_WINDOW**2, -1, c),
        product(to_kernel, kernel.reshape(_KERNEL**2, -1)).reshape(_WINDOW**2, c, -1),
    )
    half = _TILE // 2
    outputs = product(to_outputs, products.reshape(_WINDOW**2, -1))
    maxima = outputs.reshape(half, 2, half, 2, n, tiles_high, tiles_wide, -1).max(axis=(1, 3))
    pixels = maxima.transpose(2, 3, 0, 4, 1, 5)
    return pixels.reshape(n, tiles_high * half, tiles_wide * half, -1)[:, : height // 2, : width // 2]


def _windows(x: Float[Array, "n h w c"], tiles_high: int, tiles_wide: int) -> Float[Array, "2 4 2 4 n th tw c"]:
    """What each tile's outputs depend on: two by two blocks of 4 by 4 pixels, of which neighbours share half."""
    n, height, width, c = x.shape
    margin = _KERNEL // 2
    below, beside = (_TILE * (tiles + 1) - size - margin for tiles, size in ((tiles_high, height), (tiles_wide, width)))
    padded = jnp.pad(x, ((0, 0), (margin, below), (margin, beside), (0, 0)))
    blocks = padded.reshape(n, tiles_high + 1, _TILE, tiles_wide + 1, _TILE, c).transpose(2, 4, 0, 1, 3, 5)

    def shifted(down: int, right: int) -> Float[Array, "4 4 n th tw c"]:
        return blocks[:, :, :, down : down + tiles_high, right : right + tiles_wide]

    return jnp.stack([jnp.stack([shifted(down, right) for right in range(2)], axis=1) for down in range(2)])


@functools.cache
def _in_two_dimensions() -> list[Float[np.ndarray, "..."]]:
    return [np.kron(matrix, matrix) for matrix in (np.array(each, np.float64) for each in transforms())]


def _with_roots(roots: list[Fraction]) -> list[Fraction]:
    """Coefficients of the polynomial, the constant one first."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        coefficients = [above - root * own for above, own in zip(shifted, [*coefficients, Fraction(0)], strict=True)]
    return coefficients

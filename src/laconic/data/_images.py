"""Bilinear sampling of many images at the same places."""

import numpy as np
from jaxtyping import Float


def bilinear(
    images: Float[np.ndarray, "n height width *channels"],
    rows: Float[np.ndarray, "new_height new_width"],
    columns: Float[np.ndarray, "new_height new_width"],
    *,
    background: float,
) -> Float[np.ndarray, "n new_height new_width *channels"]:
    """Every image's values at the given places, interpolated between the four pixels around each.

    Args:
      images: images, or stacks of channels.
      rows: the vertical coordinates, in pixels; pixel centres are integers, from 0.
      columns: the horizontal coordinates.
      background: the value of everything outside the images.
    """
    n, height, width, *channels = images.shape
    # A frame of background, so that places outside need no case of their own: one pixel away, all is background.
    framed = np.full((n, height + 2, width + 2, *channels), background, images.dtype)
    framed[:, 1:-1, 1:-1] = images
    pixels = framed.reshape(n, (height + 2) * (width + 2), *channels)

    row, row_weight = _cell(rows, height)
    column, column_weight = _cell(columns, width)
    corner = row * (width + 2) + column

    def corners(offset: int) -> np.ndarray:
        return np.take(pixels, (corner + offset).ravel(), axis=1)

    def weights(values: np.ndarray) -> np.ndarray:
        return values.astype(images.dtype).reshape(-1, *([1] * len(channels)))

    above = _between(corners(0), corners(1), weights(column_weight))
    below = _between(corners(width + 2), corners(width + 3), weights(column_weight))
    return _between(above, below, weights(row_weight)).reshape(n, *rows.shape, *channels)


def resize(images: Float[np.ndarray, "n height width"], size: int) -> Float[np.ndarray, "n {size} {size}"]:
    """The images at `size` by `size` pixels; beyond the outermost pixel centres their values continue."""
    _, height, width = images.shape
    rows, columns = np.meshgrid(_centres(size, height), _centres(size, width), indexing="ij")
    return bilinear(images, rows, columns, background=0.0)


def _between(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    # In this form, unlike in a weighted sum, equal values stay exactly equal: background stays background.
    second -= first
    second *= weight
    second += first
    return second


def _cell(coordinates: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """For each coordinate the framed index of the pixel before it, and the weight of the one after."""
    framed = np.clip(coordinates, -1, length) + 1
    index = np.minimum(framed.astype(np.intp), length)
    return index, framed - index


def _centres(size: int, length: int) -> np.ndarray:
    """The centres of `size` pixels that cover `length` old ones, in old coordinates."""
    return np.clip((np.arange(size) + 0.5) * (length / size) - 0.5, 0, length - 1)

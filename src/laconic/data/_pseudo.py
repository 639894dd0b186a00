"""Any number of clients from a few, for scale: each writes like a real one, with a fixed slant of its own."""

import numpy as np
from jaxtyping import Float

from laconic.data import _randomness
from laconic.data._client_data import ClientData
from laconic.data._examples import Examples
from laconic.data._images import bilinear
from laconic.errors import ArgumentError, DataError

# The largest change to either side; a digit stays legible at all extremes together.
_ROTATION = np.deg2rad(12)
_SHEAR = 0.15
_LOG_SCALE = np.log(1.1)
_SHIFT = 0.05  # of the image's side

_BACKGROUND = 1.0


def pseudo_clients(clients: ClientData, count: int) -> ClientData:
    """`count` clients, each made from a real one by a fixed random affine transformation of its images.

    Pseudo-client `k` has the images of real client `k mod len(clients)`, all rotated (by up to 12 degrees), sheared
    (0.15), scaled (10 %, each axis) and shifted (5 % of the side) in one way, which depends only on the pseudo-client's
    id; labels and other fields stay. Its id is the real id, `_`, and `k div len(clients)`. As in TFF's infinite EMNIST,
    the first pseudo-client of each real one (`_0`) is unchanged, so the real writers are among them. Uncovered places
    become background, 1.0. Images are transformed when a client is loaded, and nothing is kept.

    Args:
      clients: the real clients; `x` must be floating-point images, [n, height, width] or [n, height, width, channels].
      count: the number of pseudo-clients; it may be below or above the number of real ones.

    Raises:
      ArgumentError: `count` is below 1.
      DataError: when a client is loaded whose `x` are not floating-point images.
    """
    if count < 1:
        raise ArgumentError(f"the number of pseudo-clients must be at least 1, got {count}")
    real_ids = clients.client_ids
    sources = {f"{real_ids[k % len(real_ids)]}_{k // len(real_ids)}": real_ids[k % len(real_ids)] for k in range(count)}

    def load(pseudo_id: str) -> Examples:
        examples = clients.load(sources[pseudo_id])
        is_first = pseudo_id == f"{sources[pseudo_id]}_0"
        return examples if is_first else examples | {"x": _transformed(examples.get("x"), pseudo_id)}

    return ClientData(sources, load, lambda pseudo_id: clients.known_num_examples(sources[pseudo_id]))


def _transformed(images: np.ndarray | None, pseudo_id: str) -> np.ndarray:
    if images is None or images.ndim not in (3, 4) or not np.issubdtype(images.dtype, np.floating):
        got = "no field 'x'" if images is None else f"{images.dtype}{list(images.shape)}"
        raise DataError(
            f"pseudo-client {pseudo_id!r} can only be made of floating-point images [n, height, width] or "
            f"[n, height, width, channels] in the field 'x', got {got}"
        )
    rows, columns = _places(pseudo_id, images.shape[1], images.shape[2])
    return bilinear(images, rows, columns, background=_BACKGROUND)


def _places(pseudo_id: str, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel of the new image, where it is in the old one."""
    *linear, row_shift, column_shift = 2 * _randomness.uniforms(6, "pseudo-client", pseudo_id) - 1
    centre_row, centre_column = (height - 1) / 2, (width - 1) / 2
    rows, columns = np.meshgrid(np.arange(height) - centre_row, np.arange(width) - centre_column, indexing="ij")
    new = np.einsum("ij,jrc->irc", _matrix(*linear), np.stack([rows, columns]))
    return (
        new[0] + centre_row + row_shift * _SHIFT * height,
        new[1] + centre_column + column_shift * _SHIFT * width,
    )


def _matrix(rotation: float, shear: float, row_scale: float, column_scale: float) -> Float[np.ndarray, "2 2"]:
    """Rotation, then shear along the rows, then scaling; each argument in [-1, 1), from one extreme to the other."""
    cosine, sine = np.cos(_ROTATION * rotation), np.sin(_ROTATION * rotation)
    rotate = np.array([[cosine, -sine], [sine, cosine]])
    slant = np.array([[1.0, 0.0], [_SHEAR * shear, 1.0]])
    scale = np.diag(np.exp(_LOG_SCALE * np.array([row_scale, column_scale])))
    return scale @ slant @ rotate

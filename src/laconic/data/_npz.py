"""NumPy archives of images by writer."""

import zipfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from laconic.data._client_data import ClientData, from_loader
from laconic.data._examples import Examples, canonical
from laconic.data._files import AnyPath, existing, reading
from laconic.errors import DataError

EXPECTED = "an .npz archive with the arrays pixels, label, client, is_test and client_ids"


class _Archive(NamedTuple):
    pixels: np.ndarray  # [examples, height, width], uint8 or floating
    label: np.ndarray  # [examples], integer
    client: np.ndarray  # [examples], integer: an index into client_ids
    is_test: np.ndarray  # [examples], bool
    client_ids: np.ndarray  # [clients], strings


def npz(path: AnyPath) -> tuple[ClientData, ClientData]:
    """Reads images by writer from an `.npz` archive.

    The archive has one row per image in `pixels` (uint8, of which 255 becomes 1.0, or floating), `label` (integers),
    `client` (indices into `client_ids`, strings) and `is_test` (bool). `x` is float32 [n, height, width], `y` is int32
    [n]. The archive stays in memory as it is stored; images become float32 when a client is loaded.

    Returns:
      The training data and the test data, each of the clients that have any.

    Raises:
      NotAvailableError: there is no such file.
      DataError: the file is damaged, or is of another format.
    """
    file = existing(path, EXPECTED)
    with reading(file, EXPECTED):
        archive = _checked(_read(file))
        for is_test, part in ((False, "training"), (True, "test")):
            if not (archive.is_test == is_test).any():
                raise DataError(f"it has no {part} examples")
    return _client_data(archive, ~archive.is_test), _client_data(archive, archive.is_test)


def _read(file: Path) -> _Archive:
    # NumPy would look into a damaged member before it knows, and leave the file open if it is no archive at all.
    with zipfile.ZipFile(file) as archive:
        if damaged := archive.testzip():
            raise DataError(f"{damaged} does not match its checksum")
    with np.load(file, allow_pickle=False) as arrays:
        if missing := sorted(set(_Archive._fields) - set(arrays)):
            raise DataError(f"the arrays {missing} are missing")
        return _Archive(*(arrays[name] for name in _Archive._fields))


def _checked(archive: _Archive) -> _Archive:
    rows = len(archive.label)
    for name, kinds, ndim in (("pixels", "uf", 3), ("label", "iu", 1), ("client", "iu", 1), ("is_test", "b", 1)):
        array = getattr(archive, name)
        if array.dtype.kind not in kinds or array.ndim != ndim or len(array) != rows:
            raise DataError(f"{name} is {array.dtype}{list(array.shape)}, beside {rows} labels")
    ids, client = archive.client_ids, archive.client
    if ids.dtype.kind != "U" or ids.ndim != 1 or len(np.unique(ids)) != len(ids):
        raise DataError("client_ids must be different strings")
    if rows and not (client.min() >= 0 and client.max() < len(ids)):
        raise DataError(f"client has values from {client.min()} to {client.max()}, but there are {len(ids)} client_ids")
    return archive


def _client_data(archive: _Archive, wanted: np.ndarray) -> ClientData:
    """The clients that have any of the wanted examples."""
    positions = np.flatnonzero(wanted)
    # A stable sort brings each client's examples together and keeps their order.
    positions = positions[np.argsort(archive.client[positions], kind="stable")]
    clients, starts = np.unique(archive.client[positions], return_index=True)
    rows = dict(zip(archive.client_ids[clients].tolist(), np.split(positions, starts[1:]), strict=True))
    return from_loader(rows, partial(_load, archive, rows), lambda client_id: len(rows[client_id]))


def _load(archive: _Archive, rows: dict[str, np.ndarray], client_id: str) -> Examples:
    chosen = rows[client_id]
    return canonical({"pixels": archive.pixels[chosen], "label": archive.label[chosen]})

"""FedJAX's SQLite files: one zlib-compressed msgpack blob of arrays per client."""

import math
import zlib
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from laconic.data import _sqlite
from laconic.data._client_data import ClientData, from_loader
from laconic.data._examples import Examples, canonical, count
from laconic.data._files import AnyPath, existing, reading
from laconic.errors import DataError, require

EXPECTED = "a FedJAX SQLite file (with the table federated_data)"
TABLES = {"federated_data"}

_NDARRAY = 1  # the extension type of an array: msgpack of (shape, dtype name, bytes in C order)
_DTYPES = {np.dtype(name).name for name in ("?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")}
# zlib can expand a thousandfold; a client larger than this is an attack or an accident.
_LARGEST_CLIENT = 1 << 28


def fedjax_sqlite(path: AnyPath) -> ClientData:
    """Reads a SQLite file of FedJAX, which holds one split; clients are read when they are asked for, from any thread.

    `pixels` and `label`, as in its EMNIST, become `x`, float32 [n, 28, 28], and `y`, int32 [n]; other fields keep their
    names. Pixels are kept as they are in the file, 1.0 = background (FedJAX itself inverts them after reading).

    Raises:
      MissingExtraError: msgpack is not installed.
      NotAvailableError: there is no such file.
      DataError: the file is damaged, or is of another format.
    """
    _msgpack()  # says at once, not at the first client, what is missing
    database = existing(path, EXPECTED)
    with reading(database, EXPECTED):
        _sqlite.check_complete(database)
        rows = _sqlite.query(database, "SELECT client_id, num_examples FROM federated_data")
        keys = {_text(client_id): client_id for client_id, _ in rows}
        counts = {_text(client_id): int(count) for client_id, count in rows}
        if not keys:
            raise DataError("the table federated_data lists no clients")
    return from_loader(counts, partial(_load, database, keys, counts), counts)


def _load(database: Path, keys: dict[str, bytes | str], counts: dict[str, int], client_id: str) -> Examples:
    with reading(database, EXPECTED, f"client {client_id!r}"):
        statement = "SELECT data FROM federated_data WHERE client_id = ?"
        ((blob,),) = _sqlite.query(database, statement, keys[client_id])
        examples = canonical(_arrays(_decompressed(blob)))
        if count(examples) != counts[client_id]:
            raise DataError(f"num_examples promises {counts[client_id]} examples, got {count(examples)}")
        return examples


def _msgpack() -> ModuleType:
    return require("msgpack", extra="data", purpose="reading FedJAX's SQLite files")


def _text(client_id: object) -> str:
    if not isinstance(client_id, bytes | str):
        raise DataError(f"a client id must be text, got {client_id!r}")
    return client_id if isinstance(client_id, str) else client_id.decode()


def _decompressed(blob: bytes) -> bytes:
    decompressor = zlib.decompressobj()
    data = decompressor.decompress(blob, _LARGEST_CLIENT)
    if not decompressor.eof:
        reason = "is cut short" if len(data) < _LARGEST_CLIENT else f"expands to more than {_LARGEST_CLIENT} bytes"
        raise DataError(f"the compressed data {reason}")
    return data


def _arrays(data: bytes) -> dict[str, np.ndarray]:
    fields = _unpacked(data, ext_hook=_array)
    if not isinstance(fields, dict) or not all(isinstance(array, np.ndarray) for array in fields.values()):
        raise DataError("the data is not a dict of arrays")
    return fields


def _array(code: int, data: bytes) -> np.ndarray:
    if code != _NDARRAY:
        raise DataError(f"extension type {code} is not {_NDARRAY}, an array")
    shape, name, content = _unpacked(data)
    if name not in _DTYPES:
        raise DataError(f"the dtype of an array must be one of {sorted(_DTYPES)}, got {name!r}")
    if not isinstance(shape, list) or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise DataError(f"the shape of an array must be a list of sizes, got {shape!r}")
    dtype = np.dtype(name).newbyteorder("<")
    if not isinstance(content, bytes) or len(content) != math.prod(shape) * dtype.itemsize or not shape:
        raise DataError(f"an array of shape {shape} and dtype {name} does not have the bytes that it needs")
    return np.frombuffer(content, dtype).reshape(shape)


def _unpacked(data: bytes, **options: Any) -> Any:
    try:
        return _msgpack().unpackb(data, **options)
    except DataError:  # from _array, and clear enough
        raise
    except ValueError as error:  # as all of msgpack's errors are
        raise DataError(f"the data is not msgpack: {error}") from error

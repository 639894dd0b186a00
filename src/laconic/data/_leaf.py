"""LEAF's JSON files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from laconic.data._client_data import ClientData, from_arrays
from laconic.data._examples import canonical
from laconic.data._files import AnyPath, existing, reading
from laconic.errors import DataError

EXPECTED = "a LEAF JSON file (with users, num_samples and user_data), or a directory of such files"

_KEYS = {"users", "num_samples", "user_data"}


def leaf(path: AnyPath) -> ClientData:
    """Reads a LEAF data set, which holds one split, from a JSON file or from all `*.json` files of a directory.

    Rows of 784 numbers, as in FEMNIST, become images: `x` is float32 [n, 28, 28], 1.0 = background; other inputs stay
    vectors, float32 [n, d]. `y` is int32 [n]. Everything is kept as the file has it, so also the first image of each
    writer that LEAF's FEMNIST script writes twice. JSON cannot be read in parts, so all clients are in memory.

    Raises:
      NotAvailableError: there is no such file, or no JSON file in the directory.
      DataError: a file is damaged, is of another format, or its inputs are not numbers.
    """
    found = existing(path, EXPECTED)
    files = sorted(found.glob("*.json")) if found.is_dir() else [found]
    if not files:
        raise DataError(f"{found} has no file *.json; expected {EXPECTED}")
    clients: dict[str, dict[str, np.ndarray]] = {}
    for file in files:
        with reading(file, EXPECTED):
            users = _users(file)
            if repeated := sorted(clients.keys() & users.keys()):
                raise DataError(f"user {repeated[0]!r} is in another file, too")
        clients |= users
    return from_arrays(clients)


def _users(file: Path) -> dict[str, dict[str, np.ndarray]]:
    with file.open("rb") as stream:
        content = json.load(stream)
    if not isinstance(content, dict) or not set(content) >= _KEYS:
        raise DataError(f"it must be an object with the keys {sorted(_KEYS)}")
    users, counts, user_data = content["users"], content["num_samples"], content["user_data"]
    if not users or sorted(users) != sorted(user_data) or len(counts) != len(users):
        raise DataError("users, num_samples and user_data must be about the same users, at least one")
    return {user: _examples(user, user_data[user], count) for user, count in zip(users, counts, strict=True)}


def _examples(user: str, data: Mapping[str, Any], count: int) -> dict[str, np.ndarray]:
    x, y = np.asarray(data["x"], np.float32), np.asarray(data["y"])
    if not len(x) == len(y) == count:
        raise DataError(f"num_samples promises {count} examples of user {user!r}, got {len(x)} inputs, {len(y)} labels")
    return canonical({"x": x, "y": y})

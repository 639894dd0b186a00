"""TFF's SQLite files: one serialized tf.train.Example per image."""

from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np

from laconic.data import _cache, _sqlite
from laconic.data._client_data import ClientData, from_loader
from laconic.data._example_proto import Feature, parse_example
from laconic.data._examples import Examples, canonical
from laconic.data._files import AnyPath, existing, reading
from laconic.errors import ArgumentError, DataError

EXPECTED = "a SQLite file of TFF's EMNIST (.sqlite or .sqlite.lzma, with the tables examples and client_metadata)"
TABLES = {"examples", "client_metadata"}

_PIXELS = 28 * 28
_EXAMPLES = "SELECT serialized_example_proto FROM examples WHERE split_name = ? AND client_id = ? ORDER BY rowid"


def tff_sqlite(
    path: AnyPath, split_prefix: str = "digits_only", *, cache_dir: AnyPath | None = None
) -> tuple[ClientData, ClientData]:
    """Reads TFF's federated EMNIST from a SQLite file; clients are read when they are asked for, from any thread.

    `pixels` become `x`, float32 [n, 28, 28], 1.0 = background; `label` becomes `y`, int32 [n].

    Args:
      path: an `.sqlite` file, or an `.sqlite.lzma` archive of one, which is decompressed into the cache once.
      split_prefix: which splits to read: `<split_prefix>_train` and `<split_prefix>_test`.
      cache_dir: where to keep decompressed files; by default `$LACONIC_CACHE`, or `laconic` in the user's cache.

    Returns:
      The training data and the test data.

    Raises:
      NotAvailableError: there is no such file, or the cache cannot be written.
      ArgumentError: the file has no such splits.
      DataError: the file is damaged, or is of another format.
    """
    database = _cache.unpacked(existing(path, EXPECTED), cache_dir)
    splits = _splits(database)
    if not {f"{split_prefix}_train", f"{split_prefix}_test"} <= set(splits):
        raise ArgumentError(
            f"split_prefix must name a pair of splits of {path}, which has {sorted(splits)}; got {split_prefix!r}"
        )
    train, test = (_client_data(database, f"{split_prefix}_{part}", splits) for part in ("train", "test"))
    return train, test


def split_prefixes(database: Path) -> list[str]:
    """The prefixes of which there is a training and a test split."""
    splits = _splits(database)
    prefixes = {name.removesuffix("_train") for name in splits if name.endswith("_train")}
    return sorted(prefix for prefix in prefixes if f"{prefix}_test" in splits)


def _splits(database: Path) -> dict[str, dict[str, int]]:
    """For each split the clients' numbers of examples."""
    splits: dict[str, dict[str, int]] = defaultdict(dict)
    with reading(database, EXPECTED):
        _sqlite.check_complete(database)
        for name, client_id, count in _sqlite.query(
            database, "SELECT split_name, client_id, num_examples FROM client_metadata"
        ):
            if not (isinstance(client_id, str) and isinstance(count, int) and count >= 0):
                raise DataError(f"client_metadata lists client {client_id!r} with {count!r} examples")
            if client_id in splits[name]:
                raise DataError(f"client_metadata lists client {client_id!r} of split {name!r} twice")
            splits[name][client_id] = count
        if not splits:
            raise DataError("the table client_metadata lists no clients")
    return dict(splits)


def _client_data(database: Path, split: str, splits: dict[str, dict[str, int]]) -> ClientData:
    counts = splits[split]
    return from_loader(counts, partial(_load, database, split, counts), counts)


def _load(database: Path, split: str, counts: dict[str, int], client_id: str) -> Examples:
    with reading(database, EXPECTED, f"client {client_id!r} of split {split!r}"):
        rows = _sqlite.query(database, _EXAMPLES, split, client_id)
        if len(rows) != counts[client_id]:
            raise DataError(f"client_metadata promises {counts[client_id]} examples, got {len(rows)}")
        return canonical(_stacked([_image(parse_example(blob)) for (blob,) in rows]))


def _image(features: dict[str, Feature]) -> tuple[np.ndarray, np.ndarray]:
    """One example's 784 pixels and its one label."""
    pixels, label = features.get("pixels"), features.get("label")
    if not (isinstance(pixels, np.ndarray) and pixels.dtype == np.float32 and len(pixels) == _PIXELS):
        raise DataError(f"an example must have {_PIXELS} floats named pixels; it has {_describe(features)}")
    if not (isinstance(label, np.ndarray) and label.dtype == np.int64 and len(label) == 1):
        raise DataError(f"an example must have one integer named label; it has {_describe(features)}")
    return pixels, label


def _stacked(images: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
    if not images:
        return {"pixels": np.zeros((0, _PIXELS), np.float32), "label": np.zeros(0, np.int64)}
    return {
        "pixels": np.stack([pixels for pixels, _ in images]),
        "label": np.concatenate([label for _, label in images]),
    }


def _describe(features: dict[str, Feature]) -> str:
    kinds = {name: "bytes" if isinstance(value, list) else value.dtype for name, value in features.items()}
    return ", ".join(f"{len(features[name])} {kind} named {name}" for name, kind in kinds.items()) or "no features"

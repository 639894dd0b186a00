"""Reading any file that this package knows."""

from pathlib import Path
from typing import Literal, TypeAlias

from laconic.data import _cache, _fedjax_sqlite, _leaf, _npz, _sqlite, _tff_sqlite
from laconic.data._client_data import ClientData
from laconic.data._files import AnyPath, existing, reading
from laconic.errors import ArgumentError, DataError

_EXPECTED = "SQLite of TFF's EMNIST (.sqlite, .sqlite.lzma) or of FedJAX, LEAF's JSON (a file or a directory), or .npz"
_DEFAULT_SPLIT = "digits_only"
_SQLITE_SUFFIXES = {".sqlite", ".sqlite3", ".db"}
_ZIP_MAGIC = b"PK\x03\x04"

_Format: TypeAlias = Literal["TFF", "FedJAX", "LEAF", "LEAF pair", "npz"]


def load(
    path: AnyPath,
    *,
    split: str | None = None,
    test_fraction: float = 0.1,
    seed: int = 0,
    cache_dir: AnyPath | None = None,
) -> tuple[ClientData, ClientData]:
    """Reads a federated data set, whatever its format, which is recognised by its content.

    Known are TFF's SQLite (`tff_sqlite`), FedJAX's SQLite (`fedjax_sqlite`), LEAF's JSON (`leaf`) and `.npz` archives
    (`npz`). A LEAF directory should hold `train.json` and `test.json`, or directories `train` and `test`. Where there
    is only one split (FedJAX, a single LEAF file), a share of each client's examples is held out for testing.

    Args:
      path: the file or directory.
      split: which pair of splits of a TFF file to read, such as `"all"`; by default `"digits_only"`, or the only one.
      test_fraction: the share of each client's examples to hold out, where there is only one split.
      seed: which examples are held out.
      cache_dir: where to keep decompressed files; by default `$LACONIC_CACHE`, or `laconic` in the user's cache.

    Returns:
      The training data and the test data.

    Raises:
      NotAvailableError: there is no such file.
      ArgumentError: `split` is not in the file, or the format has no splits to choose from.
      DataError: the file is damaged, or of no known format.
      MissingExtraError: the format needs a library that is not installed.
    """
    found = existing(path, _EXPECTED)
    recognised, file = _recognised(found, cache_dir)
    if recognised == "TFF":
        return _tff_sqlite.tff_sqlite(file, split or _default_split(file))
    if split is not None:
        raise ArgumentError(f"split can only be chosen in a SQLite file of TFF, which {found} is not; got {split!r}")
    match recognised:
        case "npz":
            return _npz.npz(file)
        case "LEAF pair":
            train, test = _leaf_pair(file)
            return _leaf.leaf(train), _leaf.leaf(test)
        case "LEAF":
            return _leaf.leaf(file).hold_out(test_fraction, seed=seed)
        case "FedJAX":
            return _fedjax_sqlite.fedjax_sqlite(file).hold_out(test_fraction, seed=seed)


def _recognised(path: Path, cache_dir: AnyPath | None) -> tuple[_Format, Path]:
    """The format, and the file to read, which is another one if this one is an archive.

    A damaged file may not look like anything; then its name decides which reader shall explain what is wrong.
    """
    if path.is_dir():
        return ("LEAF pair" if all(part.exists() for part in _leaf_pair(path)) else "LEAF"), path
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(_sqlite.MAGIC) or path.suffix in _SQLITE_SUFFIXES or _cache.is_archive(path):
        database = _cache.unpacked(path, cache_dir)
        return _sqlite_format(database), database
    if start.startswith(_ZIP_MAGIC) or path.suffix == ".npz":
        return "npz", path
    if start.lstrip().startswith(b"{") or path.suffix == ".json":
        return "LEAF", path
    raise DataError(f"{path} is of no known format; expected {_EXPECTED}")


def _sqlite_format(database: Path) -> _Format:
    with reading(database, "a SQLite file of TFF or FedJAX"):
        tables = _sqlite.tables(database)
        if tables >= _tff_sqlite.TABLES:
            return "TFF"
        if tables >= _fedjax_sqlite.TABLES:
            return "FedJAX"
        raise DataError(f"it has the tables {sorted(tables)}")


def _default_split(database: Path) -> str:
    prefixes = _tff_sqlite.split_prefixes(database)
    return prefixes[0] if len(prefixes) == 1 else _DEFAULT_SPLIT


def _leaf_pair(path: Path) -> tuple[Path, Path]:
    """Where a directory has its training and its test data, if it has them."""
    suffix = ".json" if (path / "train.json").exists() else ""
    return path / f"train{suffix}", path / f"test{suffix}"

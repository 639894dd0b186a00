"""Federated EMNIST: handwritten digits and letters, by writer (Caldas et al., LEAF, arXiv:1812.01097), from TFF."""

from pathlib import Path

from laconic.data import _cache, _tff_sqlite
from laconic.data._client_data import ClientData
from laconic.data._download import download
from laconic.data._files import AnyPath
from laconic.errors import NotAvailableError

URL = "https://storage.googleapis.com/tff-datasets-public/emnist_all.sqlite.lzma"
"""TFF's archive of both versions; about 170 MB, 3.5 GB decompressed."""


def load(
    only_digits: bool = True, *, cache_dir: AnyPath | None = None, path: AnyPath | None = None
) -> tuple[ClientData, ClientData]:
    """Federated EMNIST: `x` float32 [n, 28, 28] in [0, 1], 1.0 = background; `y` int32 [n].

    The first call downloads TFF's archive into the cache and decompresses it there; an interrupted download goes on
    where it stopped. Later calls only open the file, and read clients when they are asked for.

    Args:
      only_digits: the digits, labels 0 to 9 (3,383 writers, 341,873 training and 40,832 test images), or all 62
        classes, with A to Z as 10 to 35 and a to z as 36 to 61 (3,400 writers, 671,585 and 77,483 images).
      cache_dir: where to keep the file; by default `$LACONIC_CACHE`, or `laconic` in the user's cache directory.
      path: the archive, or the file decompressed, where it is already on this machine; nothing is downloaded.

    Returns:
      The training data and the test data.

    Raises:
      NotAvailableError: the file is neither cached nor can it be downloaded, or the cache cannot be written.
      DataError: the file is damaged.
    """
    split_prefix = "digits_only" if only_digits else "all"
    return _tff_sqlite.tff_sqlite(path or _cached(_cache.directory(cache_dir)), split_prefix, cache_dir=cache_dir)


def _cached(directory: Path) -> Path:
    archive = directory / URL.rpartition("/")[2]
    database = archive.with_suffix("")
    if not database.exists():
        try:
            download(URL, archive)
        except NotAvailableError as error:
            raise NotAvailableError(
                f"federated EMNIST is not in the cache, and {error}; try again, or put the file from that address at "
                f"{archive}, or pass its path, or use data.digits.load(), which needs no network"
            ) from error
        _cache.unpack(archive, database)
    return database

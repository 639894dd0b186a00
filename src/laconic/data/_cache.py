"""The cache directory, and files that appear in it whole or not at all."""

import hashlib
import lzma
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from laconic.data import _sqlite
from laconic.data._files import AnyPath, reading
from laconic.data._progress import progress
from laconic.errors import DataError, NotAvailableError

_ARCHIVE_MAGICS = (b"\xfd7zXZ\0", b"\x5d\0\0")  # .xz, and the older .lzma; TFF's files are the former, named the latter
_ARCHIVE_SUFFIXES = {".lzma", ".xz"}
_CHUNK = 1 << 20


def directory(override: AnyPath | None = None) -> Path:
    """The cache directory: the given one, `$LACONIC_CACHE`, or `laconic` in the user's cache directory."""
    if chosen := override or os.environ.get("LACONIC_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "laconic"


@contextmanager
def filling(target: Path) -> Iterator[None]:
    """Makes the directory of a cached file and keeps other processes from filling it at the same time.

    Where several wait, the first does the work; the others should look whether it is done when they enter.

    Raises:
      NotAvailableError: the directory cannot be written, or is full.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.with_name(f"{target.name}.lock").open("w") as lock:
            _lock(lock)  # released when the file is closed, even if the process dies
            yield
    except NotAvailableError:
        raise
    except OSError as error:
        raise NotAvailableError(
            f"{target} cannot be written ({error}); make room, or choose another place with cache_dir or LACONIC_CACHE"
        ) from error


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A temporary path beside `target`, which becomes `target` if all goes well and vanishes otherwise."""
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def is_archive(path: Path) -> bool:
    """Whether this is, or is named like, an .lzma or .xz archive."""
    with path.open("rb") as file:
        start = file.read(max(map(len, _ARCHIVE_MAGICS)))
    return start.startswith(_ARCHIVE_MAGICS) or path.suffix in _ARCHIVE_SUFFIXES


def unpacked(path: Path, cache_dir: AnyPath | None) -> Path:
    """The SQLite file itself, or the one that the archive holds, decompressed into the cache.

    Raises:
      NotAvailableError: the cache cannot be written.
      DataError: the archive is damaged.
    """
    with reading(path, "a SQLite file, or an .lzma archive of one"):
        if not is_archive(path):
            return path
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    # Named by content, so that a file that changes is decompressed again, and a copy is not.
    target = directory(cache_dir) / f"{path.name.partition('.')[0]}-{digest[:16]}.sqlite"
    unpack(path, target)
    return target


def unpack(archive: Path, target: Path) -> None:
    """Decompresses an archive of a SQLite file, unless that is done.

    Raises:
      NotAvailableError: the cache cannot be written.
      DataError: the archive is damaged, or is not of a SQLite file.
    """
    if target.exists():
        return
    with filling(target):
        if target.exists():  # another process did it while this one waited
            return
        with replacing(target) as temporary, temporary.open("wb") as file:
            file.writelines(_decompressed(archive))


def _decompressed(archive: Path) -> Iterator[bytes]:
    # Only reading is done in here, so that a full disk is not taken for a damaged archive.
    with (
        reading(archive, "an .lzma archive of a SQLite file"),
        archive.open("rb") as packed,
        lzma.LZMAFile(packed) as source,
        progress(f"decompressing {archive.name}", archive.stat().st_size) as report,
    ):
        if source.peek(len(_sqlite.MAGIC))[: len(_sqlite.MAGIC)] != _sqlite.MAGIC:
            raise DataError("it does not hold a SQLite file")
        while chunk := source.read(_CHUNK):
            report(packed.tell())
            yield chunk


def _lock(file: IO[str]) -> None:
    if sys.platform != "win32":  # Windows has no flock; there, two processes may do the same work, each atomically
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)

"""What all readers of files share: finding a file, and one sentence when it cannot be read."""

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from lzma import LZMAError
from pathlib import Path
from sqlite3 import Error as SqliteError
from tokenize import TokenError
from typing import TypeAlias

from laconic.errors import DataError, NotAvailableError

AnyPath: TypeAlias = str | os.PathLike[str]

# What a damaged file provokes in the libraries below, each of which was seen; DataError, and what json and msgpack
# raise, are ValueErrors, and zipfile raises RuntimeErrors and OSErrors, too.
_SYMPTOMS = (
    *(ValueError, KeyError, TypeError, EOFError, OSError, OverflowError, RuntimeError, MemoryError, TokenError),
    *(zlib.error, struct.error, LZMAError, SqliteError, zipfile.BadZipFile),
)


def existing(path: AnyPath, expected: str) -> Path:
    """The path, if there is something that may be read.

    Raises:
      NotAvailableError: there is nothing, or it may not be read.
    """
    found = Path(path)
    if not found.exists():
        raise NotAvailableError(f"{found} does not exist; expected {expected}, so check the path or download it first")
    if not os.access(found, os.R_OK):
        raise NotAvailableError(f"{found} may not be read; expected {expected}, so check its permissions")
    return found


@contextmanager
def reading(path: Path, expected: str, part: str = "") -> Iterator[None]:
    """Turns whatever a damaged file provokes inside into a DataError.

    Args:
      path: the file that is read.
      expected: what it should be, such as "a LEAF JSON file".
      part: which part of the file is read, such as "client 'f0424_27'".
    """
    try:
        yield
    except _SYMPTOMS as error:
        place = f"{path}, {part}," if part else f"{path}"
        raise DataError(
            f"{place} is damaged or is not {expected} ({_reason(error)}); fetch the file again, or read it with the "
            f"function for its format"
        ) from error


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()).rstrip(".")
    says_enough = isinstance(error, ValueError | OSError | SqliteError | LZMAError | EOFError) and text
    return text if says_enough else f"{type(error).__name__}: {text}"

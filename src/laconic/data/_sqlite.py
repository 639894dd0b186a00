"""Reading SQLite files: read-only, from any thread."""

import sqlite3
import struct
from contextlib import closing
from pathlib import Path
from typing import Any

from laconic.errors import DataError

MAGIC = b"SQLite format 3\0"
_HEADER_SIZE = 100


def query(database: Path, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
    """All rows of a query.

    Each query opens the file anew. That takes a tenth of a millisecond, and in return any thread or process may ask,
    nothing has to be closed, and whatever holds the path can be copied and sent.
    """
    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(statement, parameters).fetchall()


def check_complete(database: Path) -> None:
    """Raises a DataError if the file is shorter than its header says, which SQLite itself does not always notice.

    See https://www.sqlite.org/fileformat.html, section 1.3.
    """
    with database.open("rb") as file:
        header = file.read(_HEADER_SIZE)
    if len(header) < _HEADER_SIZE or not header.startswith(MAGIC):
        raise DataError("it does not begin with the header of a SQLite file")
    (page_size,), (changes, pages), (counted_at,) = (
        struct.unpack_from(layout, header, offset) for layout, offset in ((">H", 16), (">II", 24), (">I", 92))
    )
    needed = pages * (65_536 if page_size == 1 else page_size)
    is_counted = changes == counted_at  # old versions of SQLite did not keep count
    if is_counted and (size := database.stat().st_size) < needed:
        raise DataError(f"it ends after {size} of {needed} bytes")


def tables(database: Path) -> set[str]:
    """The names of the tables."""
    return {name for (name,) in query(database, "SELECT name FROM sqlite_master WHERE type = 'table'")}

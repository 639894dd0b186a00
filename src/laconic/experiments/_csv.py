"""Records as a CSV file."""

import csv
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from laconic.errors import ArgumentError
from laconic.experiments._records import RoundRecord
from laconic.experiments._writers import ClosesOnExit, IfExists, check_if_exists, make_directory

_FIRST_COLUMN = "round"


class CSVWriter(ClosesOnExit):
    """One row for each round, with exact numbers: whole bytes, and floats that read back to the same bits.

    The columns are those of `RoundRecord.columns`. Where test metrics come only every few rounds, the other rounds'
    cells are empty. Each row is on disk as soon as its round has ended.

    Args:
      path: the file; its directory is made.
      if_exists: what to do if there is such a file: "error", "append" (a run that goes on) or "overwrite".

    Raises:
      ArgumentError: if the file exists and may not, or is to be appended to and holds something else.
    """

    def __init__(self, path: str | os.PathLike[str], *, if_exists: IfExists = "error"):
        check_if_exists(if_exists)
        self._path = Path(path)
        make_directory(self._path.parent, "path")
        if if_exists == "error" and self._path.exists():
            raise ArgumentError(
                f"path must be a new file, but {self._path} exists; pass if_exists='overwrite' or 'append'"
            )
        # An earlier file is not touched before there is a record to put in its place.
        self._columns = self._read_columns() if if_exists == "append" and self._path.exists() else []

    def write(self, record: RoundRecord) -> None:
        """Adds the row of a round."""
        row = record.columns()
        if not row.keys() <= set(self._columns):
            self._add_columns(row)
        with self._path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def _read_columns(self) -> list[str]:
        with self._path.open(newline="") as file:
            columns = next(csv.reader(file), [])
        if columns and columns[0] != _FIRST_COLUMN:
            raise ArgumentError(f"path must be a file of a CSVWriter to append to, but {self._path} begins {columns}")
        return columns

    def _read_rows(self) -> list[dict[str, str]]:
        with self._path.open(newline="") as file:
            return list(csv.DictReader(file))

    def _add_columns(self, row: Mapping[str, Any]) -> None:
        """Writes the file anew with more columns: for its first row, and when the first test metrics come."""
        rows = self._read_rows() if self._columns else []
        self._columns = _in_order({*self._columns, *row})
        whole = self._path.with_name(self._path.name + ".new")
        with whole.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)
        whole.replace(self._path)  # at no moment is there half a file


def _in_order(columns: Iterable[str]) -> list[str]:
    """The same order whichever columns came first: counts, the metrics of training and test, then the rest."""

    def rank(column: str) -> tuple[int, str]:
        starts = (_FIRST_COLUMN, "clients", "left_out", "train/", "test/", "traffic/")
        return next((i for i, start in enumerate(starts) if column.startswith(start)), len(starts)), column

    return sorted(columns, key=rank)

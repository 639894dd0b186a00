"""What becomes of the records: the interface of all writers."""

import os
import types
from pathlib import Path
from typing import Literal, Protocol, Self, runtime_checkable

from laconic.errors import ArgumentError
from laconic.experiments._records import RoundRecord

IfExists = Literal["error", "append", "overwrite"]


@runtime_checkable
class Writer(Protocol):
    """Takes each round's record: whatever has these two methods."""

    def write(self, record: RoundRecord) -> None:
        """Takes the record of the round that has just ended."""
        ...

    def close(self) -> None:
        """Makes what was written complete. It is called once or more, also after an error or Ctrl-C."""
        ...


class ClosesOnExit:
    """Lets a writer stand in a `with` statement."""

    def close(self) -> None:
        """See `Writer`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        self.close()


def check_if_exists(if_exists: str) -> None:
    """Refuses an unknown mode.

    Raises:
      ArgumentError: if it is not one of `IfExists`.
    """
    if if_exists not in ("error", "append", "overwrite"):
        raise ArgumentError(f"if_exists must be 'error', 'append' or 'overwrite', got {if_exists!r}")


def make_directory(path: str | os.PathLike[str], argument: str) -> Path:
    """Makes a directory and those above it, unless they are there.

    Raises:
      ArgumentError: if that cannot be, with the argument's name.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(f"{argument} must be in or be a directory that can be written: {error}") from error
    return Path(path)

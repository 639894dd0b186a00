"""Records as lines of text, where there is no terminal for a progress bar."""

import sys
from typing import TextIO

from laconic.errors import ArgumentError
from laconic.experiments._records import RoundRecord, headline
from laconic.experiments._writers import ClosesOnExit
from laconic.federated import format_bytes


class LineWriter(ClosesOnExit):
    """A line for every few rounds: `8 bit: 10 rounds, 100 clients, test accuracy 71.0%, 336.65 MB`.

    Args:
      name: what each line begins with.
      every: how many rounds from line to line.
      stream: where to; None is standard output.

    Raises:
      ArgumentError: if `every` is below 1.
    """

    def __init__(self, name: str, *, every: int = 1, stream: TextIO | None = None):
        if every < 1:
            raise ArgumentError(f"every must be at least 1 round, got {every}")
        self._name = name
        self._every = every
        self._stream = stream
        self._clients = 0

    def write(self, record: RoundRecord) -> None:
        """Writes a line if it is time for one."""
        self._clients += record.clients
        rounds = record.round_number + 1
        if rounds % self._every == 0:
            parts = [f"{rounds} rounds", f"{self._clients} clients", *summary(record)]
            print(f"{self._name}: {', '.join(parts)}", file=self._stream or sys.stdout, flush=True)


def summary(record: RoundRecord) -> list[str]:
    """How well the model does, what travelled so far, and whether clients were left out."""
    parts = [headline(record), format_bytes(record.cumulative.total_bytes)]
    if record.left_out:
        parts.append(f"{record.left_out} of {record.clients} clients left out")
    return [part for part in parts if part]

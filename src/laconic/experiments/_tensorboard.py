"""Records as TensorBoard logs."""

import os
import time
from typing import Any

from laconic.errors import ArgumentError, require
from laconic.experiments._records import RoundRecord
from laconic.experiments._writers import ClosesOnExit, IfExists, check_if_exists, make_directory

_PREFIX = "events"  # TensorBoard finds files by what follows
_EVENT_FILES = f"{_PREFIX}.out.tfevents.*"


class TensorBoardWriter(ClosesOnExit):
    """One curve for each name of `RoundRecord.scalars`, with the round as step; one directory for each run.

    Each round is on disk as soon as it has ended. TensorBoard keeps 32-bit floats, so bytes above 16 million are
    rounded to seven digits there.

    Args:
      logdir: the run's directory; it is made.
      if_exists: what to do if it holds event files: "error", "append" (a run that goes on) or "overwrite", which
        deletes them and nothing else.

    Raises:
      ArgumentError: if there are event files and may not be.
      MissingExtraError: if tensorboardX is not installed.
    """

    def __init__(self, logdir: str | os.PathLike[str], *, if_exists: IfExists = "error"):
        check_if_exists(if_exists)
        require("tensorboardX", extra="experiments", purpose="TensorBoardWriter")
        self._logdir = make_directory(logdir, "logdir")
        self._earlier = sorted(self._logdir.glob(_EVENT_FILES))
        if self._earlier and if_exists == "error":
            raise ArgumentError(
                f"logdir must be free of event files, or two runs make one zigzag curve, but {logdir} has "
                f"{self._earlier[0].name}; take another directory, or pass if_exists='overwrite' or 'append'"
            )
        self._overwrite = if_exists == "overwrite"
        self._file: Any = None
        self._is_closed = False

    def write(self, record: RoundRecord) -> None:
        """Adds a point to each curve."""
        from tensorboardX import summary
        from tensorboardX.proto.event_pb2 import Event

        if self._file is None:
            self._file = self._open()
        for name, value in record.scalars().items():
            point = Event(wall_time=time.time(), step=record.round_number, summary=summary.scalar(name, value))
            self._file.write_event(point)
        self._file.flush()

    def close(self) -> None:
        """Closes the event file."""
        if self._file is not None and not self._is_closed:
            self._file.close()
        self._is_closed = True

    def _open(self) -> Any:
        # Not before there is a record: a run that fails at once leaves earlier logs, and no empty ones of its own.
        # EventsWriter and not SummaryWriter, whose thread may have a round still in its queue when `flush` returns.
        from tensorboardX.event_file_writer import EventsWriter

        if self._overwrite:
            for file in self._earlier:
                file.unlink(missing_ok=True)
        # Files are named by the second; without the suffix, two of one second would be one file.
        return EventsWriter(os.fspath(self._logdir / _PREFIX), filename_suffix=f".{len(self._earlier)}")

"""The progress bar of a run."""

import sys

from laconic.errors import MissingExtraError, require
from laconic.experiments._lines import summary
from laconic.experiments._records import RoundRecord
from laconic.experiments._writers import ClosesOnExit

_WIDEST = 100  # characters; the bar itself takes what the figures leave
_NAME_WIDTH = 8  # so that the bars of several runs begin below each other, unless a name is longer


class ProgressBar(ClosesOnExit):
    """Rounds, clients, accuracy and megabytes so far, in one line on standard error.

    Args:
      name: of the run.
      rounds: how many there will be.

    Raises:
      MissingExtraError: if rich is not installed.
    """

    def __init__(self, name: str, rounds: int):
        progress = require("rich.progress", extra="experiments", purpose="a progress bar")
        console = require("rich.console", extra="experiments", purpose="a progress bar").Console(stderr=True)
        # A full line would wrap as soon as the terminal shows "^C" after it, and be drawn twice.
        console.width = min(console.width - len("^C"), _WIDEST)
        self._clients = 0
        self._bar = progress.Progress(
            progress.TextColumn("{task.description}", style="bold", markup=False),
            progress.BarColumn(bar_width=None),
            progress.TextColumn("{task.completed:.0f}/{task.total:.0f} rounds"),
            progress.TextColumn("{task.fields[figures]}"),
            progress.TimeElapsedColumn(),
            console=console,
            expand=True,
            # Lines that are printed meanwhile go above the bar; but those that go to a file must go there.
            redirect_stdout=sys.stdout.isatty(),
        )
        self._task = self._bar.add_task(name.ljust(_NAME_WIDTH), total=rounds, figures="compiling")
        self._bar.start()

    def write(self, record: RoundRecord) -> None:
        """Moves the bar on by a round."""
        self._clients += record.clients
        figures = ", ".join([f"{self._clients} clients", *summary(record)])
        self._bar.update(self._task, advance=1, figures=figures)

    def close(self) -> None:
        """Leaves the bar as it is, and the cursor below it."""
        self._bar.stop()


def progress_bar(wanted: bool | None, name: str, rounds: int) -> ProgressBar | None:
    """A bar, if it is wanted; where nobody said, if there is a terminal to show it on and rich to show it with.

    Raises:
      MissingExtraError: if it is wanted and rich is not installed.
    """
    if wanted is False or (wanted is None and not sys.stderr.isatty()):
        return None
    try:
        return ProgressBar(name, rounds)
    except MissingExtraError:
        if wanted:
            raise
        return None

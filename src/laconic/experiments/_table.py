"""Runs side by side, in a table."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from laconic.errors import ArgumentError, require
from laconic.experiments._records import History, is_timed, is_timed_by_means

_MEGABYTE = 1e6
_MINUTE = 60.0
_NONE = "-"
_HEADER = ("", "rounds", "test accuracy", "MB down", "MB up", "times smaller", "s per round")
_LINK_TIME = "link minutes"


@dataclasses.dataclass(frozen=True)
class ComparisonTable:
    """A table that `print` shows as plain text and `rich.print` as a drawn one.

    Attributes:
      header: of the columns.
      rows: cells as they are shown, one row for each run.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        widths = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        rule = tuple("-" * width for width in widths)
        return "\n".join(_line(row, widths) for row in (self.header, rule, *self.rows))

    def __rich__(self) -> Any:
        text = require("rich.text", extra="experiments", purpose="drawing a table")
        rich_table = require("rich.table", extra="experiments", purpose="drawing a table")
        box = require("rich.box", extra="experiments", purpose="drawing a table")
        table = rich_table.Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for index, title in enumerate(self.header):
            table.add_column(title, justify="left" if index == 0 else "right", no_wrap=index == 0)
        for name, *figures in self.rows:
            table.add_row(text.Text(name, style="bold"), *figures)
        return table


def comparison_table(histories: Sequence[History]) -> ComparisonTable:
    """The runs' accuracy, traffic and time, side by side.

    Accuracy is that of the last evaluation on test data, or the last round's training accuracy, marked `(train)`, where
    there was none. Megabytes (1,000,000 bytes) are those of the whole run, all clients together. How many times smaller
    a run's traffic is than the first run's is counted per round, both directions together, so that runs of different
    lengths can be compared. Seconds are `History.median_seconds`.

    If a run was given `Links`, there is a column of the minutes that its rounds would take over them, marked `(mean)`
    where they are of the mean bytes per client.

    Raises:
      ArgumentError: if there is no history, or one without a completed round.
    """
    if not histories:
        raise ArgumentError("histories must hold at least one history, got none")
    for history in histories:
        _ = history.final  # or its error, which names the history
    first = _bytes_per_round(histories[0])
    rows = [_row(history, first) for history in histories]
    if not any(is_timed(history) for history in histories):
        return ComparisonTable(_HEADER, tuple(rows))
    minutes = [(_link_minutes(history),) for history in histories]
    return ComparisonTable((*_HEADER, _LINK_TIME), tuple(row + more for row, more in zip(rows, minutes, strict=True)))


def _row(history: History, first: float) -> tuple[str, ...]:
    traffic, seconds = history.final.cumulative, history.median_seconds
    return (
        history.name,
        str(len(history.records)),
        _accuracy(history),
        _four_digits(traffic.broadcast_bytes / _MEGABYTE),
        _four_digits(traffic.aggregate_bytes / _MEGABYTE),
        f"{first / _bytes_per_round(history):.2f}",
        _NONE if math.isnan(seconds) else f"{seconds:.2f}",
    )


def _link_minutes(history: History) -> str:
    if not is_timed(history):
        return _NONE
    minutes = _four_digits(history.final.cumulative.link_seconds / _MINUTE)
    return f"{minutes} (mean)" if is_timed_by_means(history) else minutes


def _four_digits(value: float) -> str:
    """Four digits that mean something, whatever the size of the model."""
    decimals = 3 - math.floor(math.log10(value)) if value else 0
    return f"{value:,.{max(decimals, 0)}f}"


def _accuracy(history: History) -> str:
    if history.evaluations and "accuracy" in history.evaluations[-1].test:
        return f"{history.evaluations[-1].test['accuracy']:.1%}"
    if "accuracy" in history.final.train:
        return f"{history.final.train['accuracy']:.1%} (train)"
    return _NONE


def _bytes_per_round(history: History) -> float:
    """Of the records alone, since cumulative traffic may include an earlier run's."""
    return sum(record.traffic.total_bytes for record in history.records) / len(history.records)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    name, *figures = [
        cell.ljust(width) if index == 0 else cell.rjust(width)
        for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join([name, *figures]).rstrip()

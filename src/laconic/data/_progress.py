"""Progress of long transfers: a bar where rich is installed, plain lines on stderr otherwise."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeAlias

Report: TypeAlias = Callable[[int], None]
"""Called with the number of bytes done so far."""

_LINES = 10
_TOO_SMALL_TO_SHOW = 5_000_000
_MEGABYTE = 1e6


def progress(title: str, total: int | None, done: int = 0) -> AbstractContextManager[Report]:
    """Shows how many of `total` bytes are done, unless they are few.

    Args:
      title: what is going on.
      total: the number of bytes in all, or None where it is not known.
      done: how many of them were done before.
    """
    if total is not None and total < _TOO_SMALL_TO_SHOW:
        return nullcontext(lambda _: None)
    shown = _bar if importlib.util.find_spec("rich") else _lines
    return shown(title, total, done)


@contextmanager
def _bar(title: str, total: int | None, done: int) -> Iterator[Report]:
    from rich import progress as rich_progress
    from rich.console import Console

    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.DownloadColumn(),
        rich_progress.TransferSpeedColumn(),
        rich_progress.TimeRemainingColumn(),
    )
    with rich_progress.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, completed=done)
        yield lambda now: bar.update(task, completed=now)


@contextmanager
def _lines(title: str, total: int | None, done: int) -> Iterator[Report]:
    step = max((total or 1_000 * _MEGABYTE) / _LINES, _MEGABYTE)
    next_line = done + step

    def report(now: int) -> None:
        nonlocal next_line
        if now >= next_line or now == total:
            next_line = now + step
            of_total = f" of {total / _MEGABYTE:.1f}" if total else ""
            sys.stderr.write(f"{title}: {now / _MEGABYTE:.1f}{of_total} MB\n")

    yield report

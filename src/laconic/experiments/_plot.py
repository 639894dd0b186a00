"""Runs side by side, as curves."""

import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from laconic.errors import ArgumentError, require
from laconic.experiments._records import History, is_timed, is_timed_by_means
from laconic.experiments._writers import make_directory

_MEGABYTE = 1e6
_MINUTE = 60.0
_WIDTH, _HEIGHT = 5, 4.2  # inches, of one of the images that stand side by side
_RESOLUTION = 150  # dots per inch
_WIDE = 1000  # the highest over the lowest number of an axis
_MARKS = 10  # on each curve

# Okabe and Ito's palette (Color Universal Design, 2008): told apart with any form of colour blindness. Markers and line
# styles say the same once more, for print without colours.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LINES = ("-", "--", "-.", ":")


def plot_curves(histories: Sequence[History], path: str | os.PathLike[str], *, metric: str = "accuracy") -> Path:
    """Draws a test metric against rounds, and against the megabytes that travelled, side by side in one image.

    If runs were given `Links`, the metric of these is also drawn against the minutes that they would take over them.

    Args:
      histories: the runs, one curve each.
      path: the image, such as `curves.png`; the suffix says in which format. Its directory is made.
      metric: which of the test metrics.

    Returns:
      The path.

    Raises:
      ArgumentError: if there is no history, or one without evaluations of this metric.
      MissingExtraError: if matplotlib is not installed.
    """
    figures = require("matplotlib.figure", extra="experiments", purpose="plot_curves")
    if not histories:
        raise ArgumentError("histories must hold at least one history, got none")
    curves = [_curve(history, metric) for history in histories]
    count = 3 if any(is_timed(history) for history in histories) else 2
    # A Figure of one's own: pyplot would keep it, and choose a window system.
    figure = figures.Figure(figsize=(count * _WIDTH, _HEIGHT), layout="constrained")
    by_round, by_traffic, *by_time = figure.subplots(1, count, sharey=True)
    for index, (history, curve) in enumerate(zip(histories, curves, strict=True)):
        values = curve.values
        by_round.plot(curve.rounds, values, label=history.name, **_style(index, len(values)))
        for axes, places in ((by_traffic, curve.megabytes), *((axes, curve.minutes) for axes in by_time)):
            if places:
                axes.plot(places, values[-len(places) :], **_style(index, len(places)))
    _dress(by_round, "rounds completed")
    _dress(by_traffic, "MB sent, both directions, all clients (log scale)")
    for axes in by_time:
        by_means = any(is_timed_by_means(history) for history in histories)
        _dress(axes, f"minutes over links, {'mean' if by_means else 'slowest'} client of each round (log scale)")
    by_round.set_ylabel(f"test {metric}")
    by_round.xaxis.get_major_locator().set_params(integer=True)
    for axes in (by_traffic, *by_time):
        _scale_by_decades(axes.xaxis)
    if metric == "accuracy":
        by_round.yaxis.set_major_formatter(_ticker().PercentFormatter(1.0, decimals=0))
    figure.legend(loc="outside upper center", ncols=min(len(histories), 4), frameon=False)
    make_directory(Path(path).parent, "path")
    figure.savefig(path, dpi=_RESOLUTION)
    return Path(path)


@dataclasses.dataclass(frozen=True)
class _Curve:
    """Where a run's values stand on each axis; where the start was evaluated, no traffic and no time go with it.

    Attributes:
      values: of the metric.
      rounds: completed.
      megabytes: that travelled; one fewer than the values, if the first of these is the start's.
      minutes: over the links, likewise; empty if they are not known.
    """

    values: list[float]
    rounds: list[int]
    megabytes: list[float]
    minutes: list[float]


def _curve(history: History, metric: str) -> _Curve:
    evaluations = [record for record in history.evaluations if metric in record.test]
    if not evaluations:
        raise ArgumentError(
            f"each history must have evaluations with the metric {metric!r}, but {history.name!r} has none; "
            "pass evaluate= to experiments.run"
        )
    rounds = [record.round_number + 1 for record in evaluations]
    megabytes = [record.cumulative.total_bytes / _MEGABYTE for record in evaluations]
    minutes = [record.cumulative.link_seconds / _MINUTE for record in evaluations] if is_timed(history) else []
    values = [record.test[metric] for record in evaluations]
    if metric in history.initial:
        start = history.records[0].round_number
        return _Curve([history.initial[metric], *values], [start, *rounds], megabytes, minutes)
    return _Curve(values, rounds, megabytes, minutes)


def _style(index: int, points: int) -> dict[str, Any]:
    return {
        "color": _COLOURS[index % len(_COLOURS)],
        "marker": _MARKERS[index % len(_MARKERS)],
        "linestyle": _LINES[index % len(_LINES)],
        "markevery": list(range(points - 1, -1, -math.ceil(points / _MARKS))),  # the last one always
        "markersize": 5,
        "linewidth": 1.6,
    }


def _dress(axes: Any, xlabel: str) -> None:
    axes.set_xlabel(xlabel)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _scale_by_decades(axis: Any) -> None:
    axis.axes.set_xscale("log")
    # Plain numbers: enough of them where the runs span less than a decade, and not so many that they overlap.
    low, high = axis.get_view_interval()
    axis.set_major_locator(_ticker().LogLocator(subs=(1, 2, 5) if high < _WIDE * low else (1,)))
    axis.set_major_formatter(_ticker().FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_locator(_ticker().NullLocator())


def _ticker() -> Any:
    return require("matplotlib.ticker", extra="experiments", purpose="plot_curves")

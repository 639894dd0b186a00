"""Runs side by side, as curves."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from laconic.errors import ArgumentError, require
from laconic.experiments._records import History
from laconic.experiments._writers import make_directory

_MEGABYTE = 1e6
_SIZE = (10, 4.2)  # inches
_RESOLUTION = 150  # dots per inch
_MARKS = 10  # on each curve

# Okabe and Ito's palette (Color Universal Design, 2008): told apart with any form of colour blindness. Markers and line
# styles say the same once more, for print without colours.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LINES = ("-", "--", "-.", ":")


def plot_curves(histories: Sequence[History], path: str | os.PathLike[str], *, metric: str = "accuracy") -> Path:
    """Draws a test metric against rounds, and against the megabytes that travelled, side by side in one image.

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
    # A Figure of one's own: pyplot would keep it, and choose a window system.
    figure = figures.Figure(figsize=_SIZE, layout="constrained")
    by_round, by_traffic = figure.subplots(1, 2, sharey=True)
    for index, history in enumerate(histories):
        rounds, megabytes, values = _points(history, metric)
        by_round.plot(rounds, values, label=history.name, **_style(index, len(values)))
        by_traffic.plot(megabytes, values[-len(megabytes) :], **_style(index, len(megabytes)))
    _dress(by_round, "rounds completed")
    _dress(by_traffic, "MB sent, both directions, all clients (log scale)")
    by_round.set_ylabel(f"test {metric}")
    by_round.xaxis.get_major_locator().set_params(integer=True)
    _scale_by_decades(by_traffic.xaxis)
    if metric == "accuracy":
        by_round.yaxis.set_major_formatter(_ticker().PercentFormatter(1.0, decimals=0))
    figure.legend(loc="outside upper center", ncols=min(len(histories), 4), frameon=False)
    make_directory(Path(path).parent, "path")
    figure.savefig(path, dpi=_RESOLUTION)
    return Path(path)


def _points(history: History, metric: str) -> tuple[list[int], list[float], list[float]]:
    """Rounds completed, megabytes and values; where the start was evaluated, there is no traffic to go with it."""
    evaluations = [record for record in history.evaluations if metric in record.test]
    if not evaluations:
        raise ArgumentError(
            f"each history must have evaluations with the metric {metric!r}, but {history.name!r} has none; "
            "pass evaluate= to experiments.run"
        )
    rounds = [record.round_number + 1 for record in evaluations]
    megabytes = [record.cumulative.total_bytes / _MEGABYTE for record in evaluations]
    values = [record.test[metric] for record in evaluations]
    if metric in history.initial:
        start = history.records[0].round_number
        return [start, *rounds], megabytes, [history.initial[metric], *values]
    return rounds, megabytes, values


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
    # Plain numbers, and enough of them where the runs span less than a decade.
    axis.set_major_locator(_ticker().LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(_ticker().FuncFormatter(lambda megabytes, _: f"{megabytes:,g}"))
    axis.set_minor_locator(_ticker().NullLocator())


def _ticker() -> Any:
    return require("matplotlib.ticker", extra="experiments", purpose="plot_curves")

"""The table and the plots of what was trained."""

import csv
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import _report
from benchmarks.accuracy_per_byte.methods import METHODS, OURS
from benchmarks.accuracy_per_byte.tasks import TASKS
from laconic.experiments import Link

SHARE = 3  # the accuracy of a training is the mean of the evaluations in this part of it: of 300 rounds, the last ten
FP32_BITS = 32
LINK = "4g"
_COLOURS = 10


class Line(NamedTuple):
    """A method on a task, over seeds that fp32 has too.

    Attributes:
      task: what was trained.
      method: how it travelled.
      seeds: how many.
      rounds: of each training.
      accuracy: mean over seeds of the mean of the evaluations in the last third of the rounds.
      lost: fp32's, of the same seeds and rounds, less this; None without fp32.
      down: bits per parameter, mean over rounds and clients.
      up: the same.
      megabytes: of all rounds and clients, both directions.
    """

    task: str
    method: str
    seeds: int
    rounds: int
    accuracy: float
    lost: float | None
    down: float
    up: float
    megabytes: float

    @property
    def ratio(self) -> float:
        """fp32's bytes over these, both directions together."""
        return 2 * FP32_BITS / (self.down + self.up)


def read(folder: Path) -> dict[tuple[str, str], dict[int, list[dict[str, Any]]]]:
    """For each task and method, each seed's rows."""
    found: dict[tuple[str, str], dict[int, list[dict[str, Any]]]] = defaultdict(dict)
    for path in sorted((folder / "runs").glob("*.csv")):
        with path.open(newline="") as file:
            rows: list[dict[str, Any]] = [
                {name: value if name in ("task", "method") else float(value) for name, value in row.items()}
                for row in csv.DictReader(file)
            ]
        if not rows:
            raise SystemExit(f"{path} has no rows; delete it, and train it again")
        found[rows[0]["task"], rows[0]["method"]][int(rows[0]["seed"])] = rows
    return dict(found)


def lines(runs: dict[tuple[str, str], dict[int, list[dict[str, Any]]]]) -> list[Line]:
    """A line for each task and method that has a seed in common with fp32, where that was trained."""
    return [
        _line(task, method, runs)
        for task in TASKS
        for method in METHODS
        if set(runs.get((task, method), {})) & set(runs.get((task, "fp32"), runs.get((task, method), {})))
    ]


def _line(task: str, method: str, runs: dict[tuple[str, str], dict[int, list[dict[str, Any]]]]) -> Line:
    reference = runs.get((task, "fp32"), {})
    # Only what fp32 has, too: seeds differ by more than methods do.
    own = {seed: rows for seed, rows in runs[task, method].items() if seed in reference or not reference}
    compared = [*own.values(), *(reference[seed] for seed in own if reference)]
    rounds = int(min(rows[-1]["round"] for rows in compared))
    ends = [next(row for row in rows if row["round"] == rounds) for rows in own.values()]
    exchanges = [end["parameters"] * end["clients"] * rounds / 8 for end in ends]
    lost = [_accuracy(reference[seed], rounds) - _accuracy(rows, rounds) for seed, rows in own.items() if reference]
    return Line(
        task,
        method,
        len(own),
        rounds,
        statistics.mean(_accuracy(rows, rounds) for rows in own.values()),
        statistics.mean(lost) if lost else None,
        statistics.mean(end["bytes_down"] / n for end, n in zip(ends, exchanges, strict=True)),
        statistics.mean(end["bytes_up"] / n for end, n in zip(ends, exchanges, strict=True)),
        statistics.mean(end["bytes_down"] + end["bytes_up"] for end in ends) / 1e6,
    )


def _accuracy(rows: Sequence[dict[str, Any]], rounds: int) -> float:
    return statistics.mean(row["accuracy"] for row in rows if rounds - rounds / SHARE < row["round"] <= rounds)


def write(folder: Path) -> None:
    """Writes accuracy_per_byte.md, .json and a plot for each task, from the files in runs/."""
    runs = read(folder)
    found = lines(runs)
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n\n".join(
        f"## {TASKS[task].label}\n\n{_table([line for line in found if line.task == task])}"
        for task in dict.fromkeys(line.task for line in found)
    )
    text = f"Accuracy: mean of the evaluations in the last third of the rounds, mean over seeds.\n\n{text}"
    print(text)
    (folder / "accuracy_per_byte.md").write_text(f"# Accuracy per byte\n\n{text}\n")
    rows = [{**line._asdict(), "ratio": line.ratio} for line in found]
    _report.write(folder / "accuracy_per_byte.json", {"lines": rows})
    for task in dict.fromkeys(line.task for line in found):
        curves = [_curve(line.method, runs[task, line.method]) for line in found if line.task == task]
        _draw(task, curves, folder / f"pareto_{task}.png")


def _table(chosen: Sequence[Line]) -> str:
    header = ("method", "after", "seeds", "rounds", "accuracy", "lost, points", "bits down", "bits up", "down", "up",
              "total", "MB")  # fmt: skip
    return _report.table(header, [_cells(line) for line in chosen])


def _cells(line: Line) -> tuple[Any, ...]:
    method = METHODS[line.method]
    return (
        method.label,
        method.by,
        line.seeds,
        line.rounds,
        f"{line.accuracy:.4f}",
        "" if line.lost is None else f"{100 * line.lost:+.2f}",
        f"{line.down:.3f}",
        f"{line.up:.4f}",
        f"{FP32_BITS / line.down:.1f}x",
        f"{FP32_BITS / line.up:.0f}x",
        f"**{line.ratio:.1f}x**",
        f"{line.megabytes:,.0f}",
    )


class Curve(NamedTuple):
    """A method's training on a task, mean over seeds, up to each evaluation.

    Attributes:
      method: how it travelled.
      accuracy: in percent.
      down: megabytes that all clients have received.
      up: megabytes that all clients have sent.
      minutes: of communication over `LINK`, all clients of a round at once.
    """

    method: str
    accuracy: list[float]
    down: list[float]
    up: list[float]
    minutes: list[float]


def _curve(method: str, seeds: dict[int, list[dict[str, Any]]]) -> Curve:
    link = Link.named(LINK)
    numbers = set.intersection(*({row["round"] for row in rows} for rows in seeds.values()))

    def means(name: str) -> list[float]:
        by_round = [
            [row[name] for rows in seeds.values() for row in rows if row["round"] == n] for n in sorted(numbers)
        ]
        return [statistics.mean(values) for values in by_round]

    down, up, clients = means("bytes_down"), means("bytes_up"), means("clients")
    seconds = [
        link.seconds(a / n, b / n) + 2 * link.latency_seconds * (number - 1)  # two messages in each round
        for a, b, n, number in zip(down, up, clients, sorted(numbers), strict=True)
    ]
    return Curve(
        method,
        [100 * value for value in means("accuracy")],
        [value / 1e6 for value in down],
        [value / 1e6 for value in up],
        [value / 60 for value in seconds],
    )


def _draw(task: str, curves: Sequence[Curve], path: Path) -> None:
    """Accuracy while training goes on, against bytes down, up and both, and against minutes: upper left is best."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(2, 2, figsize=(13, 10), sharey=True, layout="constrained")
    for position, curve in enumerate(curves):
        is_ours = METHODS[curve.method].by == OURS
        peers = "--" if position < _COLOURS else ":"  # the colours begin anew
        line = "-" if is_ours or curve.method == "fp32" else peers
        style = {"linewidth": 2.2 if is_ours else 1.1, "linestyle": line}
        color = "black" if curve.method == "fp32" else f"C{position % _COLOURS}"
        both = [a + b for a, b in zip(curve.down, curve.up, strict=True)]
        for axes, values in zip(panels.flat, (curve.down, curve.up, both, curve.minutes), strict=True):
            axes.plot(values, curve.accuracy, color=color, label=METHODS[curve.method].label, **style)
            axes.plot(values[-1], curve.accuracy[-1], "o", color=color, markersize=5)
    titles = ("MB down", "MB up", "MB in both directions", f"minutes of communication over {LINK.upper()}")
    for axes, title in zip(panels.flat, titles, strict=True):
        axes.set(xscale="log", xlabel=title)
        axes.grid(alpha=0.3)
    # The first rounds are of no interest, and would press all ends together.
    ends = [curve.accuracy[-1] for curve in curves]
    panels[0, 0].set_ylim(max(0.0, min(ends) - 12), min(100.0, max(ends) + 2))
    for axes in panels[:, 0]:
        axes.set_ylabel("test accuracy, %")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(f"{TASKS[task].label}: a dot where a training ends")
    figure.savefig(path, dpi=100)
    plt.close(figure)

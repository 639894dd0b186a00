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

LAST = 10  # evaluations whose mean is the accuracy of a training
FP32_BITS = 32


class Line(NamedTuple):
    """A method on a task, over seeds that fp32 has too.

    Attributes:
      task: what was trained.
      method: how it travelled.
      seeds: how many.
      rounds: of each training.
      accuracy: mean over seeds of the last ten evaluations' mean.
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
        found[rows[0]["task"], rows[0]["method"]][int(rows[0]["seed"])] = rows
    return dict(found)


def lines(runs: dict[tuple[str, str], dict[int, list[dict[str, Any]]]]) -> list[Line]:
    """A line for each task and method."""
    order = {(task, method): i for i, (task, method) in enumerate((t, m) for t in TASKS for m in METHODS)}
    return [_line(task, method, runs) for task, method in sorted(runs, key=lambda pair: order[pair])]


def _line(task: str, method: str, runs: dict[tuple[str, str], dict[int, list[dict[str, Any]]]]) -> Line:
    own, reference = runs[task, method], runs.get((task, "fp32"), {})
    rounds = int(min(rows[-1]["round"] for rows in own.values()))
    ends = [next(row for row in rows if row["round"] == rounds) for rows in own.values()]
    exchanges = [end["parameters"] * end["clients"] * rounds / 8 for end in ends]
    lost = [
        _accuracy(reference[seed], rounds) - _accuracy(rows, rounds)
        for seed, rows in own.items()
        if seed in reference and reference[seed][-1]["round"] >= rounds
    ]
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
    until = [row["accuracy"] for row in rows if row["round"] <= rounds]
    return statistics.mean(until[-LAST:])


def write(folder: Path) -> None:
    """Writes accuracy_per_byte.md, .json and a plot for each task, from the files in runs/."""
    found = lines(read(folder))
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n\n".join(
        f"## {TASKS[task].label}\n\n{_table([line for line in found if line.task == task])}"
        for task in dict.fromkeys(line.task for line in found)
    )
    text = f"Accuracy: mean of the last {LAST} evaluations, mean over seeds.\n\n{text}"
    print(text)
    (folder / "accuracy_per_byte.md").write_text(f"# Accuracy per byte\n\n{text}\n")
    rows = [{**line._asdict(), "ratio": line.ratio} for line in found]
    _report.write(folder / "accuracy_per_byte.json", {"lines": rows})
    for task in dict.fromkeys(line.task for line in found):
        _draw(task, [line for line in found if line.task == task], folder / f"pareto_{task}.png")


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


def _draw(task: str, chosen: Sequence[Line], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 3, figsize=(16, 6), sharey=True, layout="constrained")
    for axes, title in zip(panels, ("down", "up", "both"), strict=True):
        for line in chosen:
            is_ours = METHODS[line.method].by == OURS
            bits = {"down": line.down, "up": line.up, "both": line.down + line.up}
            megabytes = line.megabytes * bits[title] / bits["both"]
            axes.plot(megabytes, 100 * line.accuracy, "o" if is_ours else "s", color="C3" if is_ours else "C0",
                      markerfacecolor="C3" if is_ours else "none")  # fmt: skip
            axes.annotate(METHODS[line.method].label, (megabytes, 100 * line.accuracy), fontsize=8, rotation=30,
                          xytext=(4, 4), textcoords="offset points")  # fmt: skip
        axes.set(xscale="log", xlabel=f"MB {title}", title=title)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("test accuracy, %")
    rounds = max(line.rounds for line in chosen)
    figure.suptitle(f"{TASKS[task].label}: accuracy after {rounds} rounds against bytes (the best is upper left)")
    figure.savefig(path, dpi=110)
    plt.close(figure)

"""How many bytes a target accuracy costs: trainings over tasks, methods and seeds, and the table and plots of them.

    python -m benchmarks.accuracy_per_byte.run --data ../shared/data/femnist_digits.npz [--jobs 2]
        [--tasks cnn ...] [--methods fp32 balanced ...] [--seeds 0 1 2] [--rounds 300]

Each training is a process of its own on one core, `--jobs` of them at a time, and writes one CSV file in results/runs
when it is done; a file that is there already, of as many rounds, is not made again, so a run that was stopped goes on.
After a change to a method or a task, train it `--again`.
All methods of a seed have the same initial model, clients, batches and order. Bytes are lengths of real messages,
everything included: weights, metrics, framing. Accuracy is of the model that clients would train from next, where that
is known, else of the server's (`LearningProcess.broadcast_weights`), on all test examples, every ten rounds.

Writes results/accuracy_per_byte.md and .json, and a plot for each task, results/pareto_TASK.png.
"""

import argparse
import csv
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import _report

RESULTS = Path(__file__).parent / "results"
EVALUATE_EVERY = 10
COLUMNS = ("task", "method", "seed", "round", "accuracy", "bytes_down", "bytes_up", "parameters", "clients")


class Run(NamedTuple):
    """One training."""

    task: str
    method: str
    seed: int
    rounds: int | None

    def path(self, folder: Path) -> Path:
        """Its file."""
        return folder / "runs" / f"{self.task}-{self.method}-{self.seed}.csv"


def train(run: Run, data_path: Path) -> Iterator[dict[str, Any]]:
    """A row for every tenth round; bytes are of all rounds until then, and of all clients."""
    import jax

    from benchmarks.accuracy_per_byte.methods import METHODS
    from benchmarks.accuracy_per_byte.tasks import TASKS
    from laconic import data, engines, learning

    task = TASKS[run.task]
    clients, test = task.load(data_path)
    batches = data.batches(test, 500)
    model = task.model()
    process = learning.fed_avg(
        model,
        task.optimizer(),
        task.server(),
        compression=METHODS[run.method].make(),
        engine=engines.local(1),
    )
    evaluation = learning.evaluation(model)
    batched = clients.batched(task.batch_size, epochs=task.epochs, shuffle=True, seed=run.seed)
    state = process.initialize(seed=run.seed)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.weights))
    down = up = 0
    for number in range(1, (run.rounds or task.rounds) + 1):
        state, result = process.next(state, batched.sample(task.clients, seed=run.seed, round_number=number - 1))
        down += result.traffic.broadcast_bytes
        up += result.traffic.aggregate_bytes
        if number % EVALUATE_EVERY == 0:
            accuracy = evaluation.central(process.broadcast_weights(state), batches)["accuracy"]
            values = (*run[:3], number, round(accuracy, 5), down, up, parameters, task.clients)
            yield dict(zip(COLUMNS, values, strict=True))


def is_done(run: Run, folder: Path) -> bool:
    """Whether its file is there, with enough rounds."""
    from benchmarks.accuracy_per_byte.tasks import TASKS

    path = run.path(folder)
    if not path.exists():
        return False
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return bool(rows) and int(rows[-1]["round"]) >= (run.rounds or TASKS[run.task].rounds) - EVALUATE_EVERY + 1


def train_here(run: Run, data_path: Path, folder: Path) -> None:
    """Trains, and writes the file once all is done."""
    rows = list(train(run, data_path))
    path = run.path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(".new")
    with whole.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    whole.replace(path)


def train_elsewhere(run: Run, arguments: argparse.Namespace) -> bool:
    """The same in a process of its own, on one core; returns whether it came to its end."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false".strip()
    started = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.accuracy_per_byte.run", "--data", str(arguments.data)]
    command += ["--results", str(arguments.results), "--only", run.task, run.method, str(run.seed)]
    command += [] if run.rounds is None else ["--rounds", str(run.rounds)]
    code = subprocess.run(command, env={**os.environ, "XLA_FLAGS": flags}, check=False).returncode
    seconds = time.perf_counter() - started
    print(f"{'done' if code == 0 else 'FAILED'}: {run.task} {run.method} seed {run.seed} ({seconds:.0f} s)", flush=True)
    return code == 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what is missing, then writes the report."""
    from benchmarks.accuracy_per_byte import report
    from benchmarks.accuracy_per_byte.methods import METHODS
    from benchmarks.accuracy_per_byte.tasks import TASKS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=_report.data_file, required=True, help="a data file, such as femnist_digits.npz")
    parser.add_argument("--tasks", nargs="+", default=["cnn"], choices=TASKS)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, help="instead of each task's own")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="trainings at a time")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write to")
    parser.add_argument("--again", action="store_true", help="also what is there already")
    parser.add_argument("--report-only", action="store_true", help="train nothing")
    parser.add_argument("--only", nargs=3, metavar=("TASK", "METHOD", "SEED"), help="one training, in this process")
    chosen = parser.parse_args(arguments)
    if not chosen.data.exists():
        parser.error(f"--data must be a data file, but there is no {chosen.data}")
    if chosen.rounds is not None and chosen.rounds < EVALUATE_EVERY:
        parser.error(f"--rounds must be at least {EVALUATE_EVERY}, the first that is evaluated, got {chosen.rounds}")
    if chosen.jobs < 1:
        parser.error(f"--jobs must be at least 1, got {chosen.jobs}")
    if chosen.only:
        task, method, seed = chosen.only
        train_here(Run(task, method, int(seed), chosen.rounds), chosen.data, chosen.results)
        return
    runs = [Run(t, m, s, chosen.rounds) for t in chosen.tasks for s in chosen.seeds for m in chosen.methods]
    missing = [] if chosen.report_only else [run for run in runs if chosen.again or not is_done(run, chosen.results)]
    print(f"{len(runs)} trainings, {len(missing)} to do", flush=True)
    with ThreadPoolExecutor(chosen.jobs) as pool:
        succeeded = list(pool.map(lambda run: train_elsewhere(run, chosen), missing))
    report.write(chosen.results)
    sys.exit(0 if all(succeeded) else 1)


if __name__ == "__main__":
    main()

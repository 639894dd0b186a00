"""What principal directions save of a model's difference from its initial weights, by model.

    python -m benchmarks.accuracy_per_byte.directions --data ../shared/data/femnist_digits.npz [--rounds 20]
        [--tasks cnn text ...]

Trains each task uncompressed for some rounds, and codes what has changed, in units of its root mean square, with
`presets.balanced`'s step for clients that clip: dithered and coded by rows and columns, on the E8 lattice, and by
`codecs.karhunen_loeve`. Bits are per parameter of whole payloads, errors are measured.

Writes results/directions.md and .json.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import _report
from benchmarks.accuracy_per_byte.run import RESULTS
from benchmarks.accuracy_per_byte.tasks import TASKS, Task
from laconic import codecs, engines, learning
from laconic.codecs import Dithered, RowColumn, chain, concatenate, dithered
from laconic.learning._reference import is_large_matrix

DEFAULT = ("cnn", "perceptron", "resnet", "text", "transformer", "text_wide", "transformer_wide")
STEP = 1.25
RUNS = 5


def difference(task: Task, path: Path, rounds: int) -> Any:
    """What so many rounds have changed, over its root mean square."""
    clients, _ = task.load(path)
    process = learning.fed_avg(task.model(), task.optimizer(), task.server(), engine=engines.local())
    batched = clients.batched(task.batch_size, epochs=task.epochs, shuffle=True, seed=0)
    state = initial = process.initialize(seed=0)
    for number in range(rounds):
        state, _ = process.next(state, batched.sample(task.clients, seed=0, round_number=number))
    changed = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), state.weights, initial.weights)
    leaves = jax.tree.leaves(changed)
    unit = np.sqrt(sum(float((leaf**2).sum()) for leaf in leaves) / sum(leaf.size for leaf in leaves))
    return jax.tree.map(lambda leaf: leaf / np.float32(unit), changed)


def ways() -> dict[str, codecs.CodecFor]:
    """Codecs by name; small tensors are joined in all."""

    def with_matrices(matrix: codecs.Codec) -> codecs.CodecFor:
        other = concatenate(dithered(step=STEP))
        return lambda spec: matrix if is_large_matrix(spec) else other

    return {
        "rows and columns": with_matrices(chain(Dithered(STEP), RowColumn())),
        "E8 lattice": concatenate(dithered(step=STEP, lattice="E8")),
        "principal directions": with_matrices(codecs.karhunen_loeve(STEP)),
    }


def measured(tree: Any, codec: codecs.CodecFor) -> dict[str, float]:
    """Bits per parameter, error, and milliseconds of encoding."""
    leaves = jax.tree.leaves(tree)
    size = sum(leaf.size for leaf in leaves)
    blob = codecs.encode(tree, codec, seed=0)
    seconds = []
    for _ in range(RUNS):
        started = time.perf_counter()
        codecs.encode(tree, codec, seed=0)
        seconds.append(time.perf_counter() - started)
    squares = sum(
        float(((np.asarray(a) - b) ** 2).sum())
        for a, b in zip(jax.tree.leaves(codecs.decode(blob)), leaves, strict=True)
    )
    return {"bits": 8 * len(blob) / size, "nmse": squares / size, "milliseconds": 1e3 * statistics.median(seconds)}


def main() -> None:
    """Trains, codes, prints a table and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=_report.data_file, required=True, help="a data file, such as femnist_digits.npz")
    parser.add_argument("--tasks", nargs="+", default=list(DEFAULT), choices=TASKS)
    parser.add_argument("--rounds", type=int, default=20, help="of training, before the model is coded")
    chosen = parser.parse_args()
    if chosen.rounds < 1:
        parser.error(f"--rounds must be at least 1, or nothing has changed, got {chosen.rounds}")
    found: dict[str, Any] = {}
    rows = []
    for name in chosen.tasks:
        tree = difference(TASKS[name], chosen.data, chosen.rounds)
        weights = sum(leaf.size for leaf in jax.tree.leaves(tree))
        found[name] = {way: measured(tree, codec) for way, codec in ways().items()}
        plain, lattice, own = found[name].values()
        rows.append((
            TASKS[name].label, f"{weights:,}", f"{plain['bits']:.3f}", f"{lattice['bits']:.3f}", f"{own['bits']:.3f}",
            f"{own['bits'] / plain['bits']:.2f}", f"{plain['nmse']:.4f}", f"{lattice['nmse']:.4f}",
            f"{own['nmse']:.4f}", f"{plain['milliseconds']:.0f}", f"{own['milliseconds']:.0f}",
        ))  # fmt: skip
        print(*rows[-1], flush=True)
    header = (
        "after training", "weights", "bits, rows and columns", "E8", "directions", "/ rows and columns", "nmse", "E8",
        "directions", "ms", "directions",
    )  # fmt: skip
    text = _report.table(header, rows)
    print(text)
    _report.write(RESULTS / "directions.json", {"rounds": chosen.rounds, "step": STEP, "tasks": found})
    (RESULTS / "directions.md").write_text(f"After {chosen.rounds} rounds, step {STEP}:\n\n{text}\n")


if __name__ == "__main__":
    main()

"""What a user waits for before training runs: imports, and the first round with all its compiling.

    python -m benchmarks.engines.startup [--times 5] [--data PATH]

Each figure is a fresh process's, without any cache of compiled programs; the table has medians. What is imported is
imported in turn, so that a change of the machine's speed touches all alike.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import _report

RESULTS = Path(__file__).parent / "results"
IMPORTS = {
    "import jax": "import jax",
    "import laconic": "import laconic",
    "from laconic import learning": "from laconic import learning",
    "import optax": "import optax",
}
TRAININGS = ("fp32", "8 bit", "balanced")


def seconds_to_import(statement: str) -> float:
    """Of a fresh process, less that of one that imports nothing."""
    script = f"import time; started = time.perf_counter(); {statement}; print(time.perf_counter() - started)"
    return float(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)


def first_rounds(name: str, data_path: Path | None) -> dict[str, float]:
    """Seconds of the first two rounds of a training, in this process."""
    import jax
    import optax

    from benchmarks.engines.round_time import RATE, compressions
    from laconic import data, engines, learning

    train, _ = data.load(data_path) if data_path else data.digits.load(num_clients=15)
    batched = train.batched(20, shuffle=True)
    started = time.perf_counter()
    process = learning.fed_avg(
        learning.models.fedavg_cnn(), optax.sgd(RATE), compression=compressions()[name], engine=engines.local(2)
    )
    state = jax.block_until_ready(process.initialize(seed=0))
    seconds = {"initialize": time.perf_counter() - started}
    for round_number in range(2):
        started = time.perf_counter()
        state, _ = jax.block_until_ready(process.next(state, batched.sample(10, seed=0, round_number=round_number)))
        seconds[("first round", "second round")[round_number]] = time.perf_counter() - started
    return seconds


def first_rounds_elsewhere(name: str, data_path: Path | None) -> dict[str, float]:
    """The same in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.engines.startup", "--only", name]
    command += ["--data", str(data_path)] if data_path else []
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, float] = json.loads(printed.splitlines()[-1])
    return found


def main() -> None:
    """Measures, prints a table and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5, help="processes for each figure")
    parser.add_argument("--data", type=_report.data_file, help="a data file; the embedded digits if left out")
    parser.add_argument("--only", choices=TRAININGS, help="one training's first rounds, in this process")
    chosen = parser.parse_args()
    if chosen.only:
        print(json.dumps(first_rounds(chosen.only, chosen.data)))
        return
    imports: dict[str, list[float]] = {name: [] for name in IMPORTS}
    trainings: dict[str, list[dict[str, float]]] = {name: [] for name in TRAININGS}
    for _ in range(chosen.times):
        for name, statement in IMPORTS.items():
            imports[name].append(seconds_to_import(statement))
        for name in TRAININGS:
            trainings[name].append(first_rounds_elsewhere(name, chosen.data))
    text = tables(imports, trainings)
    print(text)
    _report.write(RESULTS / "startup.json", {"times": chosen.times, "imports": imports, "trainings": trainings})
    (RESULTS / "startup.md").write_text(text + "\n")


def tables(imports: dict[str, list[float]], trainings: dict[str, list[dict[str, float]]]) -> str:
    """Medians of seconds, and of ratios to JAX's import in the same repetition."""
    rows: list[tuple[Any, ...]] = []
    for name, seconds in imports.items():
        ratio = statistics.median(a / b for a, b in zip(seconds, imports["import jax"], strict=True))
        rows.append((f"`{name}`", f"{statistics.median(seconds):.2f}", f"{ratio:.2f}"))
    first = _report.table(("a fresh process", "median s", "/ import jax"), rows)
    columns = ("initialize", "first round", "second round")
    rows = [
        (name, *(f"{statistics.median(each[column] for each in found):.2f}" for column in columns))
        for name, found in trainings.items()
    ]
    return f"{first}\n\n{_report.table(('10 clients, two workers', *columns), rows)}"


if __name__ == "__main__":
    main()

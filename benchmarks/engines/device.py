"""A round's time in stacks on devices, against one client after another on the same device, in one run.

    python -m benchmarks.engines.device [--cohorts 10 100 1000] [--rounds 5] [--model cnn] [--examples 100]

Clients hold different numbers of examples, log-normal as users do; all take part in each round. Engines run in
turn in each repetition; a ratio is the median of each repetition's. The first round, which compiles, is left out.
Values do not matter to the time, so they are noise.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from benchmarks import _report
from laconic import data, engines, learning
from laconic.engines._stacks import padding_share
from laconic.federated import Engine

RATE = 0.1
BATCH_SIZE = 20
WARM_UP = 1
RESULTS = Path(__file__).parent / "results"
ONE_BY_ONE, THREADS, STACKS = "one after another", "threads", "stacks"
COMPRESSIONS = {"fp32": None, "balanced": learning.presets.balanced()}
MODELS = {"cnn": learning.models.fedavg_cnn, "perceptron": lambda: learning.models.perceptron(28 * 28, (32,))}


def clients_of(count: int, mean_examples: float) -> data.BatchedClientData:
    """Clients of noise, whose numbers of examples are log-normal with a deviation of a factor of two."""
    generator = np.random.default_rng(0)
    sigma = np.log(2.0)
    sizes = np.maximum(1, generator.lognormal(np.log(mean_examples) - sigma**2 / 2, sigma, count)).astype(int)
    pool = generator.random((sizes.max(), 28, 28), np.float32)
    labels = generator.integers(10, size=sizes.max()).astype(np.int32)
    examples = {f"client{i:05d}": {"x": pool[:size], "y": labels[:size]} for i, size in enumerate(sizes)}
    return data.from_arrays(examples).batched(BATCH_SIZE)


def measure(
    batched: data.BatchedClientData, model: learning.Model, compression: learning.Compression | None, rounds: int
) -> dict[str, list[float]]:
    """Seconds of each round, by engine."""
    used: dict[str, Engine] = {ONE_BY_ONE: engines.local(1), THREADS: engines.local(), STACKS: engines.device()}
    processes = {
        name: learning.fed_avg(model, optax.sgd(RATE), compression=compression, engine=engine)
        for name, engine in used.items()
    }
    states = {name: process.initialize(seed=0) for name, process in processes.items()}
    cohort = batched.cohort(batched.client_ids)
    seconds: dict[str, list[float]] = {name: [] for name in processes}
    for _ in range(rounds + WARM_UP):
        for name, process in processes.items():
            started = time.perf_counter()
            states[name], _result = jax.block_until_ready(process.next(states[name], cohort))
            seconds[name].append(time.perf_counter() - started)
    return {name: each[WARM_UP:] for name, each in seconds.items()}


def rows_of(count: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The results for one size of cohort."""
    batched = clients_of(count, arguments.examples)
    cohort = batched.cohort(batched.client_ids)
    sizes = [client.num_batches for client in cohort]
    examples = sum(client.num_examples for client in cohort)
    found = []
    for compression in arguments.compressions:
        seconds = measure(batched, MODELS[arguments.model](), COMPRESSIONS[compression], arguments.rounds)
        for name, each in seconds.items():
            median = statistics.median(each)
            ratios = [base / own for base, own in zip(seconds[ONE_BY_ONE], each, strict=True)]
            padding = padding_share(engines.device().plan(sizes), sizes) if name == STACKS else 0.0
            found.append(
                {"clients": count, "updates": compression, "engine": name, "median_seconds": median,
                 "examples_per_second": examples / median, "padding_share": padding,
                 "times_as_fast": statistics.median(ratios), "seconds": each}
            )  # fmt: skip
    return found


def main() -> None:
    """Measures, prints a table and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohorts", type=int, nargs="+", default=[10, 100, 1000], help="clients in a round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds to measure")
    parser.add_argument("--model", choices=MODELS, default="cnn", help="what to train")
    parser.add_argument("--examples", type=float, default=100, help="mean examples of a client")
    parser.add_argument("--compressions", choices=COMPRESSIONS, nargs="+", default=list(COMPRESSIONS))
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder for device.json and device.md")
    arguments = parser.parse_args()
    if min(*arguments.cohorts, arguments.rounds) < 1 or arguments.examples <= 0:
        parser.error("--cohorts and --rounds must be at least 1, and --examples above 0")
    found = [row for count in arguments.cohorts for row in rows_of(count, arguments)]
    rows = [
        (row["clients"], row["updates"], row["engine"], f"{row['median_seconds']:.3f}",
         f"{row['examples_per_second']:,.0f}", f"{row['padding_share']:.1%}", f"{row['times_as_fast']:.2f}")
        for row in found
    ]  # fmt: skip
    header = ("clients", "updates", "engine", "median s", "examples / s", "padding", "times as fast")
    text = _report.table(header, rows)
    print(text)
    devices = [f"{device.platform} {device.device_kind}" for device in jax.local_devices()]
    _report.write(
        arguments.results / "device.json",
        {"devices": devices, "model": arguments.model, "rounds": arguments.rounds, "examples": arguments.examples,
         "results": found},
    )  # fmt: skip
    (arguments.results / "device.md").write_text(f"On {', '.join(devices)}:\n\n{text}\n")


if __name__ == "__main__":
    main()

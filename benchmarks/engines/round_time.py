"""A round's time against the bare loop of its training steps, in fp32 and compressed, in one run.

    python -m benchmarks.engines.round_time [--rounds 30] [--workers 2] [--data PATH] [--name round_time]

The bare loop is the least that any engine can do: the same threads, the same batches already in memory, steps that are
compiled as the engine's are, with donated buffers, and nothing else: no metrics, no mean, no traffic. All run in turn
in each repetition, so that a change of the machine's speed touches all of them; a ratio is the median of each
repetition's. Pages are those that the system had to clear or map in a round. With GLIBC_TUNABLES=glibc.malloc.check=0
in the environment, which says nothing, the engine leaves glibc's allocator as it is.
"""

import argparse
import functools
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks import _report
from laconic import codecs, data, engines, learning
from laconic.codecs._undivided import Undivided

RATE = 0.1
BASES = ("bare loop", "fp32")
RESULTS = Path(__file__).parent / "results"


def bare_loop(model: learning.Model, weights: Any, workers: int) -> Callable[[Sequence[Any]], None]:
    """A function that trains each client of a cohort from `weights`."""
    optimizer = optax.sgd(RATE)

    def step(carry: Any, batch: Any) -> Any:
        weights, state = carry

        def loss(weights: Any) -> Any:
            losses = model.loss(model.predict(weights, batch.x), batch.y)
            return (losses * batch.mask).sum() / batch.mask.sum()

        steps, state = optimizer.update(jax.grad(loss)(weights), state, weights)
        return optax.apply_updates(weights, steps), state

    compiled = Undivided(step, donate_argnums=0)
    start = Undivided(lambda weights: (jax.tree.map(jnp.copy, weights), optimizer.init(weights)))

    def train(batches: Sequence[Any]) -> None:
        carry = start(weights)
        for batch in batches:
            carry = compiled(carry, batch)
        jax.block_until_ready(carry)

    def run(cohort: Sequence[Any]) -> None:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(train, cohort))

    return run


def eight_bit(spec: codecs.TensorSpec) -> codecs.Codec:
    """As in the tutorial."""
    return codecs.uniform_quantization(8) if spec.size > 10_000 else codecs.identity()


def compressions() -> dict[str, learning.Compression | None]:
    """What is compared."""
    return {
        "fp32": None,
        "8 bit": learning.Compression("8 bit", learning.encoded_broadcast(eight_bit), learning.encoded_mean(eight_bit)),
        "balanced": learning.presets.balanced(),
    }


def page_faults() -> int:
    """Of this process so far, without reading a disk."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def measure(train: data.ClientData, rounds: int, workers: int) -> tuple[dict[str, list[float]], dict[str, list[int]]]:
    """Seconds and page faults of each round, by name."""
    model = learning.models.fedavg_cnn()
    batched = train.batched(20, shuffle=True)
    processes = {
        name: learning.fed_avg(model, optax.sgd(RATE), compression=compression, engine=engines.local(workers))
        for name, compression in compressions().items()
    }
    states = {name: process.initialize(seed=0) for name, process in processes.items()}
    bare = bare_loop(model, states["fp32"].weights, workers)
    seconds: dict[str, list[float]] = {name: [] for name in ("bare loop", *processes)}
    faults: dict[str, list[int]] = {name: [] for name in seconds}
    for round_number in range(rounds + 2):
        cohort = batched.sample(10, seed=0, round_number=round_number)
        ready = [list(client) for client in cohort]
        runs: dict[str, Callable[[], Any]] = {"bare loop": lambda ready=ready: bare(ready)}  # type: ignore[misc]
        for name, process in processes.items():
            runs[name] = functools.partial(process.next, states[name], cohort)
        for name, run in runs.items():
            before, started = page_faults(), time.perf_counter()
            result = jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - started)
            faults[name].append(page_faults() - before)
            if name in states:
                states[name] = result[0]
    # The first rounds compile.
    return {name: each[2:] for name, each in seconds.items()}, {name: each[2:] for name, each in faults.items()}


def main() -> None:
    """Measures, prints a table and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="rounds to measure")
    parser.add_argument("--workers", type=int, default=2, help="threads")
    parser.add_argument("--data", type=_report.data_file, help="a data file; the embedded digits if left out")
    parser.add_argument("--name", default="round_time", help="of the files with the results")
    arguments = parser.parse_args()
    train, _ = data.load(arguments.data) if arguments.data else data.digits.load(num_clients=15)
    seconds, faults = measure(train, arguments.rounds, arguments.workers)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    ratios = {
        name: {base: statistics.median(a / b for a, b in zip(each, seconds[base], strict=True)) for base in BASES}
        for name, each in seconds.items()
    }
    rows = [
        (name, f"{median:.3f}", *(f"{ratios[name][base]:.3f}" for base in BASES),
         f"{statistics.median(faults[name]):,.0f}")
        for name, median in medians.items()
    ]  # fmt: skip
    text = _report.table(("a round of 10 clients", "median s", "/ bare loop", "/ fp32", "pages"), rows)
    print(text)
    _report.write(
        RESULTS / f"{arguments.name}.json",
        {"rounds": arguments.rounds, "workers": arguments.workers,
         "data": arguments.data.name if arguments.data else "digits",
         "median_seconds": medians, "median_ratios": ratios, "seconds": seconds, "pages": faults},
    )  # fmt: skip
    (RESULTS / f"{arguments.name}.md").write_text(text + "\n")


if __name__ == "__main__":
    main()

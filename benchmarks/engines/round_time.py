"""A round's time against the bare loop of its training steps, in fp32 and compressed, in one run.

    python -m benchmarks.engines.round_time [--processes 5] [--rounds 10] [--workers 2] [--data PATH]
        [--name round_time]

The bare loop is the least that any engine can do: the same threads, the same batches already in memory, steps that are
compiled as the engine's are, with donated buffers, and nothing else: no metrics, no mean, no traffic. All run in turn
in each repetition, another one first each time, so that a change of the machine's speed touches all of them; a ratio is
the median of each repetition's. What a process gets hangs on where its memory happens to lie, so several measure, one
after the other: ratios are of the rounds of all, and beside them are the lowest and the highest that one process
found. Pages are those that the system had to clear or map in a round. With GLIBC_TUNABLES=glibc.malloc.check=0 in the
environment, which says nothing, the engine leaves glibc's allocator as it is.
"""

import argparse
import functools
import itertools
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
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


def measure(path: Path | None, rounds: int, workers: int) -> tuple[dict[str, list[float]], dict[str, list[int]]]:
    """Seconds and page faults of each round, by name."""
    train, _ = data.load(path) if path else data.digits.load(num_clients=15)
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
        for name in turned(list(runs), round_number):
            run = runs[name]
            before, started = page_faults(), time.perf_counter()
            result = jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - started)
            faults[name].append(page_faults() - before)
            if name in states:
                states[name] = result[0]
    # The first rounds compile.
    return {name: each[2:] for name, each in seconds.items()}, {name: each[2:] for name, each in faults.items()}


def turned(names: Sequence[str], by: int) -> Sequence[str]:
    """The names, beginning with another one each time."""
    by %= len(names)
    return [*names[by:], *names[:by]]


def main() -> None:
    """Measures, prints a table and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=5, help="that measure, one after the other")
    parser.add_argument("--rounds", type=int, default=10, help="rounds to measure in each")
    parser.add_argument("--workers", type=int, default=2, help="threads")
    parser.add_argument("--data", type=_report.data_file, help="a data file; the embedded digits if left out")
    parser.add_argument("--name", default="round_time", help="of the files with the results")
    arguments = parser.parse_args()
    for name in ("processes", "rounds", "workers"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(arguments, name)}")
    measured = []
    for _ in range(arguments.processes):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            measured.append(pool.submit(measure, arguments.data, arguments.rounds, arguments.workers).result())
    names = list(measured[0][0])
    seconds = {name: [each[name] for each, _ in measured] for name in names}
    pages = {name: [each[name] for _, each in measured] for name in names}
    ratios = {name: {base: ratio(seconds[name], seconds[base]) for base in BASES} for name in names}
    rows = [
        (name, f"{middle(seconds[name]):.3f}", *(cell for base in BASES for cell in cells(*ratios[name][base])),
         f"{middle(pages[name]):,.0f}")
        for name in names
    ]  # fmt: skip
    header = ("a round of 10 clients", "median s", "/ bare loop", "by process", "/ fp32", "by process", "pages")
    text = _report.table(header, rows)
    print(text)
    _report.write(
        RESULTS / f"{arguments.name}.json",
        {"processes": arguments.processes, "rounds": arguments.rounds, "workers": arguments.workers,
         "data": arguments.data.name if arguments.data else "digits",
         "ratios": ratios, "seconds": seconds, "pages": pages},
    )  # fmt: skip
    (RESULTS / f"{arguments.name}.md").write_text(text + "\n")


def middle(by_process: Sequence[Sequence[float]]) -> float:
    """The median over the rounds of all processes."""
    return statistics.median(itertools.chain(*by_process))


def ratio(seconds: list[list[float]], base: list[list[float]]) -> tuple[float, float, float]:
    """The median over the rounds of all processes, and the lowest and highest median of one."""
    by_process = [[a / b for a, b in zip(*own, strict=True)] for own in zip(seconds, base, strict=True)]
    medians = list(map(statistics.median, by_process))
    return middle(by_process), min(medians), max(medians)


def cells(median: float, lowest: float, highest: float) -> tuple[str, str]:
    """A ratio, and what single processes found."""
    return f"{median:.3f}", f"{lowest:.2f} to {highest:.2f}"


if __name__ == "__main__":
    main()

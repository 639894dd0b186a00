"""What it costs that XLA cuts loops into pieces, one for each processor, where all of these have work of their own.

    python -m benchmarks.engines.divided [--data PATH] [--repetitions 15]

The tutorial's training steps, four in one call, and the encoding of an update, compiled by `jax.jit` and as clients'
work is compiled (`laconic.codecs._undivided`): one call at a time, and as many as there are processors, each on a
thread. Milliseconds a call, of the clock and of processors; all run in turn in each repetition, and figures are
medians; ratios are medians of each repetition's, undivided over divided. Results must have the same bits.

Writes results/divided.md and .json.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
import optax

from benchmarks import _report
from benchmarks.engines.round_time import RATE, RESULTS, eight_bit
from laconic import codecs, data, learning
from laconic.codecs._undivided import Undivided

CALLS = 4  # of each thread in a repetition
KEY = codecs.random.key(7)
Work = Callable[[], Any]


def training(batches: list[Any], compile_: Callable[..., Any]) -> Work:
    """Four steps of the tutorial's CNN."""
    model, optimizer = learning.models.fedavg_cnn(), optax.sgd(RATE)
    weights = model.init(KEY)

    def step(weights: Any, batch: Any) -> Any:
        def loss(weights: Any) -> Any:
            return (model.loss(model.predict(weights, batch.x), batch.y) * batch.mask).sum() / batch.mask.sum()

        steps, _ = optimizer.update(jax.grad(loss)(weights), optimizer.init(weights), weights)
        return optax.apply_updates(weights, steps)

    def four(weights: Any, batches: list[Any]) -> Any:
        for batch in batches:
            weights = step(weights, batch)
        return weights

    compiled = compile_(four)
    return lambda: compiled(weights, batches)


def encoding(codec: codecs.CodecFor, compile_: Callable[..., Any]) -> Work:
    """Of an update like the tutorial's CNN."""
    generator = np.random.default_rng(0)
    weights = learning.models.fedavg_cnn().init(KEY)
    update = jax.tree.map(lambda w: jax.numpy.asarray(generator.standard_normal(w.shape, np.float32) ** 3), weights)
    bound = codecs.bind(codec, update)
    leaves, keys = jax.tree.leaves(update), bound._keys(KEY)
    parameters, memory = bound.encode_parameters(bound.initial_state()), bound.initial_memory()
    compiled = compile_(lambda keys, leaves: bound._compiled.trace_encode(keys, leaves, parameters, memory))
    return lambda: compiled(keys, leaves)


def measured(work: Work, threads: int) -> tuple[float, float]:
    """Milliseconds of the clock and of processors that a call takes, on each of so many threads."""

    def calls(_: int) -> None:
        for _ in range(CALLS):
            jax.block_until_ready(work())

    with ThreadPoolExecutor(threads) as pool:
        clock, processor = time.perf_counter(), time.process_time()
        list(pool.map(calls, range(threads)))
        clock, processor = time.perf_counter() - clock, time.process_time() - processor
    return 1e3 * clock / (CALLS * threads), 1e3 * processor / (CALLS * threads)


def main() -> None:
    """Measures, prints a table and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=_report.data_file, help="a data file; the embedded digits if left out")
    parser.add_argument("--repetitions", type=int, default=15, help="of all")
    arguments = parser.parse_args()
    train, _ = data.load(arguments.data) if arguments.data else data.digits.load(num_clients=15)
    batches = list(train.batched(20, shuffle=True).sample(1, seed=0, round_number=0)[0])
    batches = [batches[i % len(batches)] for i in range(4)]
    makers: dict[str, Callable[[Callable[..., Any]], Work]] = {
        "four training steps": lambda compile_: training(batches, compile_),
        "encoding an update, 8 bit": lambda compile_: encoding(eight_bit, compile_),
        "encoding an update, `balanced`": lambda compile_: encoding(
            codecs.concatenate(codecs.stochastic_grid(step_in_rms=40.0)), compile_
        ),
    }
    processors = len(os.sched_getaffinity(0))
    pairs = {name: (make(jax.jit), make(Undivided)) for name, make in makers.items()}
    for divided, undivided in pairs.values():
        jax.tree.map(np.testing.assert_array_equal, divided(), undivided())
    found: dict[tuple[str, int], list[tuple[float, ...]]] = {
        (name, threads): [] for name in pairs for threads in dict.fromkeys((1, processors))
    }
    for _ in range(arguments.repetitions):
        for (name, threads), each in found.items():
            each.append((*measured(pairs[name][0], threads), *measured(pairs[name][1], threads)))
    rows = []
    for (name, threads), each in found.items():
        medians = [f"{statistics.median(column):.2f}" for column in zip(*each, strict=True)]
        ratios = [statistics.median(row[i + 2] / row[i] for row in each) for i in (0, 1)]
        rows.append((name, threads, *medians, *(f"{ratio:.2f}" for ratio in ratios)))
    header = ("", "threads", "divided, ms", "processor ms", "undivided, ms", "processor ms", "ratio", "of processor ms")
    text = _report.table(header, rows)
    print(text)
    by_name = {f"{name}, {threads} threads": each for (name, threads), each in found.items()}
    _report.write(RESULTS / "divided.json", {"processors": processors, "milliseconds": by_name})
    (RESULTS / "divided.md").write_text(text + "\n")


if __name__ == "__main__":
    main()

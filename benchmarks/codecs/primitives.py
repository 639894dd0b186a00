"""What encoding and decoding the tutorial's model costs, and the random generator against JAX's own.

    python -m benchmarks.codecs.primitives [--repetitions 30]

All run in turn in each repetition; medians.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import _report
from laconic import codecs, learning

RESULTS = Path(__file__).parent / "results"


def codec_for(spec: codecs.TensorSpec) -> codecs.Codec:
    """The tutorial's choice: 8 bits for large tensors."""
    return codecs.uniform_quantization(8) if spec.size > 10_000 else codecs.identity()


def tasks() -> dict[str, Callable[[], Any]]:
    """What is timed, by name."""
    key = codecs.random.key(0)
    weights = learning.models.fedavg_cnn().init(key)
    words = 1_605_632
    ours = jax.jit(lambda key: codecs.random.bits(key, words))
    theirs = jax.jit(lambda key: jax.random.bits(key, (words,)))
    jax_key = jax.random.key(0)
    timed: dict[str, Callable[[], Any]] = {
        f"{words} random words, Laconic's Threefry": lambda: ours(key),
        f"{words} random words, jax.random": lambda: theirs(jax_key),
    }
    for name, codec in (("fp32", codecs.identity()), ("8 bit", codec_for)):
        bound = codecs.bind(codec, weights)
        blob = bound.encode_contribution(weights, key=key).blob
        timed[f"encode the CNN, {name}"] = lambda bound=bound: bound.encode_contribution(weights, key=key)  # type: ignore[misc]
        timed[f"decode the CNN, {name}"] = lambda bound=bound, blob=blob: bound.read_contribution(blob)  # type: ignore[misc]
    return timed


def main() -> None:
    """Measures, prints a table and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=30)
    arguments = parser.parse_args()
    timed = tasks()
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(arguments.repetitions + 2):
        for name, task in timed.items():
            started = time.perf_counter()
            jax.block_until_ready(task())
            seconds[name].append(time.perf_counter() - started)
    rows = [(name, f"{1e3 * statistics.median(each[2:]):.2f}") for name, each in seconds.items()]
    text = _report.table(("task", "median ms"), rows)
    print(text)
    medians = {name: float(np.median(each[2:])) for name, each in seconds.items()}
    _report.write(RESULTS / "primitives.json", {"repetitions": arguments.repetitions, "median_seconds": medians})
    (RESULTS / "primitives.md").write_text(text + "\n")


if __name__ == "__main__":
    main()

"""A training step of the tutorial's CNN with its second convolution by Winograd's method, and as a plain sum.

    python -m benchmarks.engines.convolution [--times 15]

Both in turn, in one thread and in two at a time, each on a core; medians.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import _report
from laconic import codecs, learning
from laconic.learning.models import _classic

RESULTS = Path(__file__).parent / "results"
BATCH_SIZE = 20
STEPS = 24
THREADS = (1, 2)


def trainer(few: int) -> Callable[[], None]:
    """A function that trains for `STEPS` steps, where Winograd's method is for batches of up to `few` examples."""
    model = learning.models.fedavg_cnn()
    start = model.init(codecs.random.key(0))
    generator = np.random.default_rng(0)
    images = jnp.asarray(generator.random((BATCH_SIZE, 28, 28)), jnp.float32)
    labels = jnp.asarray(generator.integers(0, 10, BATCH_SIZE), jnp.int32)

    def step(weights: Any) -> Any:
        gradient = jax.grad(lambda weights: model.loss(model.predict(weights, images), labels).mean())(weights)
        return jax.tree.map(lambda weight, slope: weight - 0.1 * slope, weights, gradient)

    usual, _classic._FEW = _classic._FEW, few
    try:
        compiled = jax.jit(step, donate_argnums=0).lower(start).compile()
    finally:
        _classic._FEW = usual

    def train() -> None:
        weights = jax.tree.map(jnp.copy, start)
        for _ in range(STEPS):
            weights = compiled(weights)
        jax.block_until_ready(weights)

    return train


def main() -> None:
    """Measures, prints a table and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=15, help="how often each is measured")
    arguments = parser.parse_args()
    if arguments.times < 1:
        parser.error(f"--times must be at least 1, got {arguments.times}")
    trainers = {"plain sum": trainer(0), "Winograd": trainer(BATCH_SIZE)}
    milliseconds: dict[tuple[str, int], list[float]] = {(name, threads): [] for name in trainers for threads in THREADS}
    with ThreadPoolExecutor(max(THREADS)) as pool:
        for _ in range(arguments.times + 1):
            for (name, threads), measured in milliseconds.items():
                started = time.perf_counter()
                list(pool.map(lambda train: train(), [trainers[name]] * threads))
                measured.append(1000 * (time.perf_counter() - started) / STEPS)
    # The first time of each is a warm-up.
    medians = {key: statistics.median(measured[1:]) for key, measured in milliseconds.items()}
    rows = [
        (name, *(f"{medians[name, threads]:.1f}" for threads in THREADS),
         *(f"{medians[name, threads] / medians['plain sum', threads]:.2f}" for threads in THREADS))
        for name in trainers
    ]  # fmt: skip
    text = _report.table(("second convolution", "ms a step", "of each of two", "ratio", "of each of two"), rows)
    print(text)
    _report.write(
        RESULTS / "convolution.json",
        {"times": arguments.times,
         "median_milliseconds": [{"convolution": name, "threads": threads, "milliseconds": median}
                                 for (name, threads), median in medians.items()]},
    )  # fmt: skip
    (RESULTS / "convolution.md").write_text(text + "\n")


if __name__ == "__main__":
    main()

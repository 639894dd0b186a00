"""A training step of the tutorial's CNN: as users of Keras or Flax have it, and as it is built in.

    python -m benchmarks.engines.steps [--times 15]

Layers in the usual order, with pooling by `reduce_window`, and the same as `local_training` traces them; the built-in
model with its second convolution as a plain sum, and by Winograd's method. All in turn, in one thread and in two at a
time, each on a core; medians.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import _report
from laconic import codecs, learning
from laconic.learning._pooling import with_fast_pooling
from laconic.learning.models import _classic

RESULTS = Path(__file__).parent / "results"
BATCH_SIZE = 20
STEPS = 24
THREADS = (1, 2)
USUAL = "layers as of Keras or Flax"

BUILT_IN = learning.models.fedavg_cnn()


def usual_layers(weights: Any, images: Any) -> Any:
    """The same model, as other libraries' layers compute it."""
    x = images.reshape(-1, 28, 28, 1)
    window = (1, 2, 2, 1)
    for name in ("conv1", "conv2"):
        layout = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, weights[name]["kernel"], (1, 1), "SAME", dimension_numbers=layout)
        x = jax.lax.reduce_window(
            jax.nn.relu(x + weights[name]["bias"]), -jnp.inf, jax.lax.max, window, window, "VALID"
        )
    x = jax.nn.relu(x.reshape(len(x), -1) @ weights["dense1"]["kernel"] + weights["dense1"]["bias"])
    return x @ weights["dense2"]["kernel"] + weights["dense2"]["bias"]


def trainer(predict: Callable[[Any, Any], Any]) -> Callable[[], None]:
    """A function that trains for `STEPS` steps."""
    start = BUILT_IN.init(codecs.random.key(0))
    generator = np.random.default_rng(0)
    images = jnp.asarray(generator.random((BATCH_SIZE, 28, 28)), jnp.float32)
    labels = jnp.asarray(generator.integers(0, 10, BATCH_SIZE), jnp.int32)

    def step(weights: Any) -> Any:
        gradient = jax.grad(lambda weights: BUILT_IN.loss(predict(weights, images), labels).mean())(weights)
        return jax.tree.map(lambda weight, slope: weight - 0.1 * slope, weights, gradient)

    compiled = jax.jit(step, donate_argnums=0).lower(start).compile()

    def train() -> None:
        weights = jax.tree.map(jnp.copy, start)
        for _ in range(STEPS):
            weights = compiled(weights)
        jax.block_until_ready(weights)

    return train


@contextmanager
def plain_sums() -> Iterator[None]:
    """What is traced within has no convolution by Winograd's method."""
    usual, _classic._FEW = _classic._FEW, 0
    try:
        yield
    finally:
        _classic._FEW = usual


def trainers() -> dict[str, Callable[[], None]]:
    """What is compared."""
    usual, fast = trainer(usual_layers), trainer(with_fast_pooling(usual_layers))
    with plain_sums():
        plain = trainer(BUILT_IN.predict)
    return {
        USUAL: usual,
        "the same, as `local_training` traces it": fast,
        "built in, second convolution as a plain sum": plain,
        "built in": trainer(BUILT_IN.predict),
    }


def main() -> None:
    """Measures, prints a table and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=15, help="how often each is measured")
    arguments = parser.parse_args()
    if arguments.times < 1:
        parser.error(f"--times must be at least 1, got {arguments.times}")
    compared = trainers()
    milliseconds: dict[tuple[str, int], list[float]] = {(name, threads): [] for name in compared for threads in THREADS}
    with ThreadPoolExecutor(max(THREADS)) as pool:
        for _ in range(arguments.times + 1):
            for (name, threads), measured in milliseconds.items():
                started = time.perf_counter()
                list(pool.map(lambda train: train(), [compared[name]] * threads))
                measured.append(1000 * (time.perf_counter() - started) / STEPS)
    # The first time of each is a warm-up.
    medians = {key: statistics.median(measured[1:]) for key, measured in milliseconds.items()}
    rows = [
        (name, *(f"{medians[name, threads]:.1f}" for threads in THREADS),
         *(f"{medians[name, threads] / medians[USUAL, threads]:.2f}" for threads in THREADS))
        for name in compared
    ]  # fmt: skip
    text = _report.table(("layers", "ms a step", "of each of two", "ratio", "of each of two"), rows)
    print(text)
    _report.write(
        RESULTS / "steps.json",
        {"times": arguments.times,
         "median_milliseconds": [{"layers": name, "threads": threads, "milliseconds": median}
                                 for (name, threads), median in medians.items()]},
    )  # fmt: skip
    (RESULTS / "steps.md").write_text(text + "\n")


if __name__ == "__main__":
    main()

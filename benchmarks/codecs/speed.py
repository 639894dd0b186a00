"""How fast codecs are on one core, as a share of copying their fp32 input, and where the time goes.

    python -m benchmarks.codecs.speed [--repetitions 30] [--core 0] [--data ../shared/data/femnist_digits.npz]

The process pins itself to one core before anything is imported, and turns threads off. All tasks run in turn in each
repetition, with the copy among them: 256 MB of fp32, far more than any cache holds. MB are of fp32 values, 10^6 bytes,
whatever the codec makes of them; a share is MB/s over the copy's MB/s. Medians.

Parts: `compiled` is the stages under jit alone, `coder` the coder on their integers, `joining` what puts sections and
checksum together; `rest` is what is left of the whole, such as checks, keys and transfers.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import _report

RESULTS = Path(__file__).parent / "results"
PINNED = "LACONIC_BENCHMARK_PINNED"
COPIED_BYTES = 256 * 2**20
COPY = "copy"
# Share of the copy's speed that was asked for: MB/s on a machine that copies at 10 GB/s.
ASKED = {
    "8 bit uniform, in": 300 / 10_000,
    "8 bit uniform, out": 130 / 10_000,
    "0.05 bit grid, in": 400 / 10_000,
    "Hadamard": 1_000 / 10_000,
}


class Task(NamedTuple):
    """What is timed: `run`, for `nbytes` of fp32."""

    name: str
    nbytes: int
    run: Callable[[], Any]


def pin(core: int) -> None:
    """Starts the program over on one core, with threads turned off; returns at once in that second life."""
    if os.environ.get(PINNED):
        return
    os.sched_setaffinity(0, {core})
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", PINNED), "1")
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false".strip()
    os.execve(
        sys.executable,
        [sys.executable, "-m", "benchmarks.codecs.speed", *sys.argv[1:]],
        {**os.environ, **single, "XLA_FLAGS": flags},
    )


def tasks(data: Path | None) -> Iterator[Task]:
    """Everything that is timed; codecs that the library lacks are named on the way."""
    import numpy as np

    from benchmarks.codecs import our_codecs, vectors
    from laconic import codecs

    source, target = np.ones(COPIED_BYTES // 4, np.float32), np.zeros(COPIED_BYTES // 4, np.float32)
    yield Task(COPY, COPIED_BYTES, lambda: np.copyto(target, source))
    x = vectors.vector("gaussian", max(vectors.SIZES))
    inputs = {"": x}
    if data:
        inputs[", update"] = vectors.vector("update_30", max(vectors.SIZES), data)
    for suffix, values in inputs.items():
        makers: dict[str, Callable[[], codecs.Codec]] = {
            "8 bit uniform": lambda: (
                our_codecs.Entry("uniform_quantization", (("bits", 8), ("packing", "entropy"))).codec
            ),
            "0.05 bit grid": lambda values=values: _fixed_grid(values),  # type: ignore[misc]
            "0.05 bit grid, searched": lambda: (
                our_codecs.Entry("stochastic_grid", (("bits_per_parameter", 0.05),)).codec
            ),
            "dithered, nmse 0.1": lambda: our_codecs.Entry("dithered", (("nmse", 0.1),)).codec,
        }
        for name, make in makers.items():
            yield from _codec_tasks(name, suffix, make(), values)
    yield from _hadamard_tasks(x)


def _fixed_grid(values: Any) -> Any:
    """The grid that takes 0.05 bit, without looking for it: its step is read off what the searched one decodes to."""
    import numpy as np

    from benchmarks.codecs import our_codecs
    from benchmarks.codecs.round_trips import round_trip
    from laconic import codecs

    searched = our_codecs.Entry("stochastic_grid", (("bits_per_parameter", 0.05),)).codec
    decoded = np.abs(round_trip(codecs.bind(searched, values), values, 0).decoded)
    step = float(decoded[decoded > 0].min())
    rms = float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
    return our_codecs.Entry("stochastic_grid", (("step_in_rms", step / rms),)).codec


def _codec_tasks(name: str, suffix: str, codec: Any, values: Any) -> Iterator[Task]:
    """There and back, and the parts of it."""
    import jax
    import jax.numpy as jnp

    from benchmarks.codecs import our_codecs
    from laconic import codecs

    key, x = codecs.random.key(0), jnp.asarray(values)
    bound = codecs.bind(codec, x)
    payload, _ = bound.encode(x, key=key)
    blob = payload.blob
    yield Task(f"{name}, in{suffix}", values.nbytes, lambda: bound.encode(x, key=key)[0].blob)
    yield Task(f"{name}, out{suffix}", values.nbytes, lambda: jax.block_until_ready(bound.decode(blob)))
    yield Task(f"{name}, in{suffix}: joining", values.nbytes, lambda: _fresh(payload).blob)
    if codec.is_searched:
        return
    coder, encode = our_codecs.lowered(codec)
    last, codes, contexts = our_codecs.coded(codec, x, 0)
    spec = codecs.TensorSpec("", codes.shape, codes.dtype)
    coded = bytes(last.encode(codes, contexts))
    yield Task(f"{name}, in{suffix}: compiled", values.nbytes, lambda: jax.block_until_ready(encode(key, x)))
    yield Task(f"{name}, in{suffix}: coder", values.nbytes, lambda: coder.encode(codes, contexts))
    yield Task(f"{name}, out{suffix}: coder", values.nbytes, lambda: coder.decode(memoryview(coded), spec, contexts))


def _fresh(payload: Any) -> Any:
    """The same payload, not yet joined."""
    import dataclasses

    return dataclasses.replace(payload)


def _hadamard_tasks(values: Any) -> Iterator[Task]:
    import jax
    import jax.numpy as jnp

    from benchmarks.codecs import our_codecs
    from laconic import codecs

    stages = our_codecs.Entry("hadamard_quantization", (("bits", 8),)).codec.stages
    stage = next(each for each in stages if "hadamard" in each.name)
    key, x = codecs.random.key(0), jnp.asarray(values)
    spec = codecs.TensorSpec("", x.shape, x.dtype)
    encode = jax.jit(lambda key, x: stage.encode(key, x, {}))
    regenerated = jax.jit(lambda key: stage.regenerate(key, spec))(key)
    decode = jax.jit(lambda encoded: stage.decode(encoded, {}, num_summands=1, spec=spec))
    encoded = {**encode(key, x), **regenerated}
    yield Task("Hadamard", values.nbytes, lambda: jax.block_until_ready(encode(key, x)))
    yield Task("Hadamard, back", values.nbytes, lambda: jax.block_until_ready(decode(encoded)))


def timed(chosen: list[Task], repetitions: int) -> dict[str, float]:
    """Each task's median seconds, all in turn."""
    seconds: dict[str, list[float]] = {task.name: [] for task in chosen}
    for repetition in range(repetitions + 2):
        for task in chosen:
            started = time.perf_counter()
            task.run()
            if repetition >= 2:
                seconds[task.name].append(time.perf_counter() - started)
    return {name: statistics.median(each) for name, each in seconds.items()}


def main() -> None:
    """Measures, prints tables and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=30)
    parser.add_argument("--core", type=int, default=min(os.sched_getaffinity(0)), help="which one to run on")
    parser.add_argument(
        "--data", type=_report.data_file, help="a data file, such as femnist_digits.npz, for a real update too"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write to")
    arguments = parser.parse_args()
    pin(arguments.core)

    chosen = list(tasks(arguments.data))
    medians = timed(chosen, arguments.repetitions)
    rates = {task.name: task.nbytes / medians[task.name] for task in chosen}
    rows = [_row(name, rate, rates[COPY], medians) for name, rate in rates.items() if ":" not in name]
    text = _report.table(("task", "MB/s", "share of the copy", "asked", "", "parts, ms"), rows)
    speed = f"{rates[COPY] / 1e9:.2f} GB/s"
    text = f"One core, medians of {arguments.repetitions} runs in turn; the copy runs at {speed}.\n\n{text}"
    print(text)
    arguments.results.mkdir(parents=True, exist_ok=True)
    (arguments.results / "speed.md").write_text(f"# Speed\n\n{text}\n")
    _report.write(
        arguments.results / "speed.json",
        {"repetitions": arguments.repetitions, "median_seconds": medians, "bytes_per_second": rates},
    )


def _row(name: str, rate: float, copy: float, medians: dict[str, float]) -> tuple[Any, ...]:
    parts = {part.split(": ")[1]: value for part, value in medians.items() if part.startswith(f"{name}: ")}
    if parts:
        parts["rest"] = medians[name] - sum(parts.values())
    asked = ASKED.get(name.removesuffix(", update"))
    verdict = "" if asked is None else "holds" if rate / copy >= asked else "**does not hold**"
    return (
        name,
        f"{rate / 1e6:,.0f}",
        f"{100 * rate / copy:.2f} %",
        "" if asked is None else f"{100 * asked:g} %",
        verdict,
        ", ".join([f"{1e3 * medians[name]:.2f} in all", *(f"{key} {1e3 * value:.2f}" for key, value in parts.items())]),
    )


if __name__ == "__main__":
    main()

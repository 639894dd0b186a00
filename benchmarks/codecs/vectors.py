"""The test vectors: five distributions, and real client updates.

    python -m benchmarks.codecs.vectors --data ../shared/data/femnist_digits.npz

Each is float32, and the same in every run with the same NumPy:

* `gaussian`, `laplace`, `lognormal` (of a standard normal, so all positive), `student_t3`: independent entries.
* `sparse_1pct`: exactly one entry in a hundred is Gaussian, the others are 0.
* `update_1`, `update_30`, `update_120`: the first client's update of that round of the tutorial's training
  (benchmarks/codecs/training.py): all 1,663,370 parameters in one vector; for smaller d, d entries at equal distances,
  so that every layer has its share.
* `update_R_dense` (not among the vectors, for codecs of matrices): the dense layer's 3136 x 512 kernel of that update.
"""

import argparse
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import _report
from benchmarks.codecs import training

SIZES = (1_000, 100_000, 1_663_370)
GAUSSIAN_SIZES = (*SIZES[:2], 2**20, SIZES[2])
UPDATES = tuple(f"update_{round_number}" for round_number in training.ROUNDS)


def _sparse(generator: np.random.Generator, size: int) -> np.ndarray:
    x = np.zeros(size)
    positions = generator.choice(size, size // 100, replace=False)
    x[positions] = generator.standard_normal(positions.size)
    return x


DISTRIBUTIONS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "gaussian": lambda generator, size: generator.standard_normal(size),
    "laplace": lambda generator, size: generator.laplace(size=size),
    "lognormal": lambda generator, size: generator.lognormal(size=size),
    "student_t3": lambda generator, size: generator.standard_t(3, size),
    "sparse_1pct": _sparse,
}
NAMES = (*DISTRIBUTIONS, *UPDATES)


def sizes(name: str) -> tuple[int, ...]:
    """The sizes that a vector of this name is measured at."""
    return GAUSSIAN_SIZES if name == "gaussian" else SIZES


def vector(name: str, size: int, data_file: Path | None = None) -> np.ndarray:
    """float32[size]; an update needs the data to train on, unless it is in the cache.

    Raises:
      ValueError: if the name is unknown, or an update is asked for without data.
    """
    if name in DISTRIBUTIONS:
        generator = np.random.Generator(np.random.PCG64([zlib.crc32(name.encode()), size]))
        return DISTRIBUTIONS[name](generator, size).astype(np.float32)
    tensors = _update(name, data_file)
    whole = training.as_vector(tensors)
    return whole[np.arange(size) * whole.size // size]


def dense_layer(name: str, data_file: Path | None = None) -> np.ndarray:
    """float32[3136, 512]: the largest tensor of an update."""
    return max(_update(name, data_file).values(), key=lambda tensor: tensor.size)


def tensors(name: str, data_file: Path | None = None) -> training.Tensors:
    """An update's tensors by name."""
    return _update(name, data_file)


def _update(name: str, data_file: Path | None) -> training.Tensors:
    if name not in UPDATES:
        raise ValueError(f"a vector's name is one of {', '.join(NAMES)}; got {name!r}")
    if data_file is None:
        raise ValueError(f"{name} is a client's update; it needs --data")
    return training.captured(data_file, "fp32")["update", int(name.split("_")[1])]


def stored(names: list[str], max_size: int, data_file: Path | None) -> list[dict[str, str | int]]:
    """Writes the vectors for peers to read: name, size and path of each."""
    entries: list[dict[str, str | int]] = []
    for name in names:
        for size in (each for each in sizes(name) if each <= max_size):
            path = training.CACHE / "vectors" / f"{name}-{size}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, vector(name, size, data_file), allow_pickle=False)
            entries.append({"name": name, "size": size, "path": str(path)})
    return entries


def main() -> None:
    """Prints what the vectors are like."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=_report.data_file, help="a data file, such as femnist_digits.npz; without it, no updates"
    )
    arguments = parser.parse_args()
    names = NAMES if arguments.data else tuple(DISTRIBUTIONS)
    rows = []
    for name in names:
        for size in sizes(name):
            x = vector(name, size, arguments.data).astype(np.float64)
            rms, peak = np.sqrt(np.mean(x**2)), np.abs(x).max()
            kurtosis = np.mean(x**4) / rms**4
            rows.append((name, size, f"{x.mean():.2e}", f"{rms:.3e}", f"{peak / rms:.1f}", f"{kurtosis:.1f}",
                         f"{np.mean(x == 0):.4f}"))  # fmt: skip
    print(_report.table(("vector", "d", "mean", "rms", "largest / rms", "kurtosis", "zeros"), rows))


if __name__ == "__main__":
    main()

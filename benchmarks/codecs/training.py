"""Real client updates and models from the tutorial's training, captured once and kept.

    python -m benchmarks.codecs.training --data ../shared/data/femnist_digits.npz

Federated Averaging of the tutorial's CNN as in benchmarks/tutorial/accuracy.py: 10 clients a round, one epoch, batch
20, client SGD 0.1, server SGD 1.0, seed 0; once in fp32 and once with 8 bits both ways. From rounds 1, 30 and 120 are
kept the model that is broadcast and the update of the round's first client: trained minus received weights. Two files
in benchmarks/codecs/.cache, which git ignores; 120 rounds take about two minutes each.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from benchmarks import _report
from laconic import codecs, data, learning

CACHE = Path(__file__).parent / ".cache"
ROUNDS = (1, 30, 120)
SEED = 0
CLIENTS_PER_ROUND = 10
RUNS = ("fp32", "8bit")

Tensors = dict[str, np.ndarray]


def tutorial_codec(spec: codecs.TensorSpec) -> codecs.Codec:
    """The tutorial's choice: 8 bits for large tensors."""
    return codecs.uniform_quantization(8) if spec.size > 10_000 else codecs.identity()


def captured(data_file: Path, run: str) -> dict[tuple[str, int], Tensors]:
    """("update" or "model", round) -> tensors by name, in the tree's order; trains if the file is not there yet."""
    path = CACHE / f"training-{data_file.stem}-{run}.npz"
    if not path.exists():
        _capture(data_file, run, path)
    tensors: dict[tuple[str, int], Tensors] = {}
    with np.load(path, allow_pickle=False) as archive:
        for entry in archive.files:
            kind, round_number, name = entry.split("|")
            tensors.setdefault((kind, int(round_number)), {})[name] = archive[entry]
    return tensors


def as_vector(tensors: Mapping[str, np.ndarray]) -> np.ndarray:
    """All tensors in one vector."""
    return np.concatenate([tensor.reshape(-1) for tensor in tensors.values()])


def _capture(data_file: Path, run: str, path: Path) -> None:
    train, _ = data.load(data_file)
    batched = train.batched(20, shuffle=True, seed=SEED)
    codec = tutorial_codec if run == "8bit" else None
    process, first_client = _process(codec), _first_client_process(codec)
    state = process.initialize(seed=SEED)
    arrays: Tensors = {}
    for index in range(max(ROUNDS)):
        cohort = batched.sample(CLIENTS_PER_ROUND, seed=SEED, round_number=index)
        if index + 1 in ROUNDS:
            arrays |= _named(f"model|{index + 1}", state.weights)
            updated, _ = first_client.next(state, cohort[:1])
            arrays |= _named(f"update|{index + 1}", updated.weights)
        if index + 1 < max(ROUNDS):
            state, result = process.next(state, cohort)
            print(f"{run}: round {index + 1}, {result.metrics}", flush=True)
    CACHE.mkdir(exist_ok=True)
    np.savez(path, **arrays)  # type: ignore[arg-type]
    print(f"written to {path}")


def _process(codec: Any) -> learning.LearningProcess:
    return learning.fed_avg(
        learning.models.fedavg_cnn(),
        client_optimizer=optax.sgd(0.1),
        server_optimizer=optax.sgd(1.0),
        distributor=learning.encoded_broadcast(codec),
        aggregator=learning.encoded_mean(codec),
    )


def _first_client_process(codec: Any) -> learning.LearningProcess:
    """Gives the mean update of a cohort in the place of the next weights; of a cohort of one, its update."""
    return learning.compose(
        learning.encoded_broadcast(codec),
        learning.local_training(learning.models.fedavg_cnn(), optax.sgd(0.1)),
        learning.encoded_mean(),
        learning.Finalizer(lambda weights: (), lambda state, weights, update: (state, update)),  # noqa: ARG005
    )


def _named(prefix: str, tree: Any) -> Tensors:
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {f"{prefix}|{jax.tree_util.keystr(path)}": np.asarray(leaf) for path, leaf in paths}


def main() -> None:
    """Captures what is not there yet, and says what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=_report.data_file, required=True, help="a data file, such as femnist_digits.npz")
    arguments = parser.parse_args()
    for run in RUNS:
        for (kind, round_number), tensors in captured(arguments.data, run).items():
            vector = as_vector(tensors)
            rms = float(np.sqrt(np.mean(np.square(vector, dtype=np.float64))))
            print(f"{run} {kind} of round {round_number}: {vector.size} parameters, rms {rms:.3e}, "
                  f"largest {np.abs(vector).max():.3e}")  # fmt: skip


if __name__ == "__main__":
    main()

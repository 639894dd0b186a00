"""Test accuracy of the tutorial's training, in fp32 and with 8 bits both ways, over several seeds.

    python -m benchmarks.tutorial.accuracy --data ../shared/data/femnist_digits.npz [--rounds 120] [--seeds 0 1 2]

The tutorial's CNN on federated EMNIST digits: 10 clients a round, one epoch, batch 20, client SGD 0.1, server SGD 1.0.
"""

import argparse
import csv
import statistics
import time
from pathlib import Path
from typing import Any

import optax

from benchmarks import _report
from laconic import codecs, data, learning

RESULTS = Path(__file__).parent / "results"
CLIENTS_PER_ROUND = 10


def codec_for(spec: codecs.TensorSpec) -> codecs.Codec:
    """The tutorial's choice: 8 bits for large tensors."""
    return codecs.uniform_quantization(8) if spec.size > 10_000 else codecs.identity()


CODECS: dict[str, Any] = {"fp32": None, "8 bit": codec_for}


def train_once(
    train: data.ClientData, test: list[data.Batch], name: str, seed: int, rounds: int
) -> list[dict[str, Any]]:
    """One training; a row for every tenth round."""
    model = learning.models.fedavg_cnn()
    process = learning.fed_avg(
        model,
        client_optimizer=optax.sgd(0.1),
        server_optimizer=optax.sgd(1.0),
        distributor=learning.encoded_broadcast(CODECS[name]),
        aggregator=learning.encoded_mean(CODECS[name]),
    )
    evaluation = learning.evaluation(model)
    batched = train.batched(20, shuffle=True, seed=seed)
    state = process.initialize(seed=seed)
    rows = []
    down = up = 0
    started = time.perf_counter()
    for round_number in range(rounds):
        cohort = batched.sample(CLIENTS_PER_ROUND, seed=seed, round_number=round_number)
        state, result = process.next(state, cohort)
        down += result.traffic.broadcast_bytes
        up += result.traffic.aggregate_bytes
        if (round_number + 1) % 10 == 0 or round_number + 1 == rounds:
            accuracy = evaluation.central(state.weights, test)["accuracy"]
            rows.append({"codec": name, "seed": seed, "round": round_number + 1, "test_accuracy": round(accuracy, 5),
                         "bytes_down": down, "bytes_up": up})  # fmt: skip
            print(f"{name:6} seed {seed} round {round_number + 1:4} test accuracy {accuracy:.4f} "
                  f"({time.perf_counter() - started:.0f} s)", flush=True)  # fmt: skip
    return rows


def main() -> None:
    """Trains, prints a table and writes every row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=_report.data_file, required=True, help="a data file, such as femnist_digits.npz")
    parser.add_argument("--rounds", type=int, default=120)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    train, held_out = data.load(arguments.data)
    test = data.batches(held_out.examples(), 500)
    rows = [
        row
        for seed in arguments.seeds
        for name in CODECS
        for row in train_once(train, test, name, seed, arguments.rounds)
    ]
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "accuracy.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    last = {(row["codec"], row["seed"]): row for row in rows}
    cells = []
    for name in CODECS:
        ends = [last[name, seed] for seed in arguments.seeds]
        accuracies = [end["test_accuracy"] for end in ends]
        cells.append((name, *(f"{accuracy:.4f}" for accuracy in accuracies), f"{statistics.mean(accuracies):.4f}",
                      f"{ends[0]['bytes_down'] / 1e6:.0f}", f"{ends[0]['bytes_up'] / 1e6:.0f}"))  # fmt: skip
    header = ("codec", *(f"seed {seed}" for seed in arguments.seeds), "mean", "MB down", "MB up")
    text = f"Test accuracy after {arguments.rounds} rounds on {arguments.data.name}\n\n{_report.table(header, cells)}"
    print(text)
    (RESULTS / "accuracy.md").write_text(text + "\n")
    _report.write(RESULTS / "accuracy.json", {"data": arguments.data.name, "rounds": arguments.rounds, "rows": rows})


if __name__ == "__main__":
    main()

"""Federated Averaging with a compressed model and compressed updates.

The counterpart of TensorFlow Federated's tutorial "Model and Update Compression": the same network, optimizers, batches
and rounds, trained twice, once as it is and once with 8 bits for each number of the large tensors, down and up.

    python examples/compression_tutorial.py
    tensorboard --logdir compression-tutorial

Needs `laconic[experiments]`. docs/from-tff.md puts the two tutorials side by side.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Literal

import optax
import tyro

from laconic import codecs, data, experiments, learning
from laconic.errors import LaconicError
from laconic.federated import format_tff_bits

# Each run with what TFF's tutorial printed for its first round of ten clients.
RUNS = {"original": "507.62 Mibit in round 0", "compression": "146.46 Mibit in round 0: it packs 28 bits into 32"}


@dataclasses.dataclass(frozen=True)
class Options:
    """Trains a digit classifier twice, uncompressed and with 8 bits both ways, and prints what travels."""

    data: str = "digits"
    """digits (embedded), emnist (about 170 MB to download), or a file: SQLite of TFF or FedJAX, LEAF's JSON, .npz."""
    rounds: int = 10
    """Rounds of each training."""
    clients_per_round: int = 10
    """Clients that take part in a round."""
    logdir: Path = Path("compression-tutorial")
    """For the TensorBoard logs, in original/ and compression/; those of an earlier run there are replaced."""
    seed: int = 0
    """Of all that is random; the same seed gives the same figures."""
    packing: Literal["dense", "tff"] = "dense"
    """dense: 8 bits take 8 bits, and real messages are counted. tff: packed and counted as TFF does, to compare."""


def load(source: str) -> data.ClientData:
    """The clients to train with."""
    if source == "digits":
        train, _ = data.digits.load()
    elif source == "emnist":
        train, _ = data.emnist.load(only_digits=True)
    else:
        train, _ = data.load(source)
    return train


class RoundPrinter:
    """Prints each round as TFF's tutorial does, with the right unit: what it called MiB were Mibit."""

    def __init__(self, packing: str):
        self.packing = packing

    def write(self, record: experiments.RoundRecord) -> None:
        """Prints one round; what travels adds up over the rounds."""
        sent = record.cumulative
        if self.packing == "tff":
            down, up = sent.broadcast_tensor_bits, sent.aggregate_tensor_bits
        else:
            down, up = 8 * sent.broadcast_bytes, 8 * sent.aggregate_bytes
        metrics = {name: round(value, 4) for name, value in record.train.items()}
        print(
            f"round {record.round_number:2d}, metrics={metrics}, "
            f"broadcasted={format_tff_bits(down)}, aggregated={format_tff_bits(up)}"
        )

    def close(self) -> None:
        """Leaves nothing to be done."""


def main(options: Options) -> list[experiments.History]:
    """Trains twice; the codec is the only difference."""

    def codec_for(spec: codecs.TensorSpec) -> codecs.Codec:  # called once for each tensor of the model
        if spec.size > 10_000:
            return codecs.uniform_quantization(bits=8, packing=options.packing)
        return codecs.identity()

    train = load(options.data).batched(batch_size=20, epochs=1, shuffle=True, seed=options.seed)
    histories = []
    for run, printed_by_tff in RUNS.items():
        counted = {
            "dense": f"8 x the bytes of real messages (TFF printed {printed_by_tff})",
            "tff": "elements x bits, as TFF counts",
        }
        print(f"{run}, all clients together: {counted[options.packing]}")
        codec = codec_for if run == "compression" else codecs.identity()
        process = learning.fed_avg(
            learning.models.fedavg_cnn(num_classes=10),
            client_optimizer=optax.sgd(0.02),
            server_optimizer=optax.sgd(1.0),
            distributor=learning.encoded_broadcast(codec),
            aggregator=learning.encoded_mean(codec),
        )
        history = experiments.run(
            process,
            train,
            rounds=options.rounds,
            clients_per_round=options.clients_per_round,
            seed=options.seed,
            writers=[
                RoundPrinter(options.packing),
                experiments.TensorBoardWriter(options.logdir / run, if_exists="overwrite"),
            ],
            progress=False,
            name=run,
        )
        histories.append(history)
    print(f"compare the curves: tensorboard --logdir {options.logdir}")
    return histories


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except KeyboardInterrupt:
        sys.exit("interrupted; the logs of the rounds so far are complete")
    except LaconicError as error:
        sys.exit(f"error: {error}")

"""What is trained: the tutorial's task, and variations of it that a default has to hold on."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optax

from laconic import data, learning


@dataclasses.dataclass(frozen=True)
class Task:
    """A training, but for what travels.

    Attributes:
      label: for people.
      load: from the digits' file to training clients and test examples.
      model: makes the model.
      rounds: of the training.
      clients: of a cohort.
      optimizer: makes the clients' optimizer.
      batch_size: of the clients' batches.
      epochs: of the clients, in each round.
      server: makes the server's optimizer.
    """

    label: str
    load: Callable[[Path], tuple[Any, Any]]
    model: Callable[[], learning.Model]
    rounds: int = 300
    clients: int = 10
    optimizer: Callable[[], optax.GradientTransformation] = lambda: optax.sgd(0.1)
    batch_size: int = 20
    epochs: int = 1
    server: Callable[[], optax.GradientTransformation] = lambda: optax.sgd(1.0)


def _digits(path: Path) -> tuple[Any, Any]:
    train, test = data.load(path)
    return train, test.examples()


def _python_sources(path: Path) -> tuple[Any, Any]:
    del path
    train, test = data.python_sources()
    return train, {name: values[::8] for name, values in test.examples().items()}


def _fed_adam() -> optax.GradientTransformation:
    # Reddi et al. 2021, "Adaptive Federated Optimization", tables 1 and 8: beta 0.9 and 0.99, tau 1e-3.
    return optax.adam(10**-2.5, b1=0.9, b2=0.99, eps=1e-3)


def _clipped_sgd(rate: float) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(rate))


def _decaying_sgd(rounds: int) -> Callable[[], optax.GradientTransformation]:
    return lambda: optax.sgd(optax.cosine_decay_schedule(1.0, rounds))


CNN = Task("tutorial's CNN", _digits, learning.models.fedavg_cnn)
TEXT = Task(
    "character LSTM, Python's own sources",
    _python_sources,
    learning.models.character_lstm,
    rounds=200,
    optimizer=lambda: _clipped_sgd(10.0),
    batch_size=8,
)

TASKS: dict[str, Task] = {
    "cnn": CNN,
    "cnn_5_clients": dataclasses.replace(CNN, label="CNN, 5 clients a round", clients=5),
    "cnn_100_clients": dataclasses.replace(CNN, label="CNN, 100 clients a round", clients=100, rounds=60),
    "cnn_5_epochs": dataclasses.replace(CNN, label="CNN, 5 local epochs", epochs=5, rounds=60),
    "cnn_fed_adam": dataclasses.replace(CNN, label="CNN, FedAdam", server=_fed_adam),
    "perceptron": dataclasses.replace(
        CNN,
        label="perceptron, 784-200-10",
        model=lambda: learning.models.perceptron(784),
        optimizer=lambda: optax.sgd(0.01),  # at 0.1 it does not learn: the images' background is 1
    ),
    "resnet": dataclasses.replace(
        CNN,
        label="residual network, group normalisation",
        model=learning.models.resnet,
        optimizer=lambda: _clipped_sgd(0.3),
        rounds=200,
    ),
    "text": TEXT,
    "text_decay": dataclasses.replace(
        TEXT,
        label="character LSTM, the server's rate falling to zero over 200 rounds (cosine)",
        server=_decaying_sgd(TEXT.rounds),
    ),
    "text_wide": dataclasses.replace(
        TEXT,
        label="character LSTM of 512 units",
        model=lambda: learning.models.character_lstm(hidden_sizes=(512,)),
        rounds=100,
    ),
    "transformer": dataclasses.replace(
        TEXT,
        label="character transformer, Python's own sources",
        model=learning.models.character_transformer,
        optimizer=lambda: _clipped_sgd(1.0),
    ),
    "transformer_wide": dataclasses.replace(
        TEXT,
        label="character transformer of 256 units",
        model=lambda: learning.models.character_transformer(width=256),
        optimizer=lambda: _clipped_sgd(1.0),
        rounds=100,
    ),
}

"""What runs in a competitor's process: it trains a round whenever it is told to, and says how long that took.

    python -m benchmarks.peers.exchange MODULE VARIANT TASK.npz

The driver writes lines and reads one line of JSON for each:

    (nothing)     {"versions": {...}, "python": "3.9.18"}, once training can begin
    round 3       {"seconds": 1.234}
    save PATH     {"saved": PATH}: the weights, as .npz

Whatever fails is answered with {"error": "ValueError: ..."} and ends the process; the end of the input ends it, too.
What frameworks print goes to standard error, so that it is not taken for an answer.

The task holds `images` [rounds, clients, examples, 28, 28], `labels` and `client_ids` of each round's cohort, and the
weights to start from (`weights_0` ...): kernel and bias of both convolutions, height first and channels last, and of
both dense layers, [inputs, outputs].

Runs in peers' environments, from Python 3.9 on: NumPy only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np

BATCH_SIZE = 20
CLIENT_RATE = 0.1
SERVER_RATE = 1.0
EIGHT_BIT_ABOVE = 10_000
"""Where 8 bits are asked for, tensors with more elements than this are quantized."""
NUM_WEIGHTS = 8

Prepare = Callable[[int], Callable[[], None]]
"""From a round's number to the function that trains it; what is done before that function is called is not timed."""
Weights = Callable[[], "list[np.ndarray]"]


@dataclasses.dataclass(frozen=True)
class Task:
    """What to train.

    Attributes:
      variant: which of a module's ways, such as "fp32".
      path: the file, for processes that the framework starts by itself.
      images: float32 [rounds, clients, examples, 28, 28].
      labels: int32 [rounds, clients, examples].
      client_ids: [rounds, clients].
      weights: to start from.
    """

    variant: str
    path: Path
    images: np.ndarray
    labels: np.ndarray
    client_ids: np.ndarray
    weights: list[np.ndarray]


def save_task(
    path: Path, images: np.ndarray, labels: np.ndarray, client_ids: np.ndarray, weights: list[np.ndarray]
) -> None:
    """Writes a task."""
    named: dict[str, Any] = {f"weights_{i}": array for i, array in enumerate(weights)}
    np.savez(path, images=images, labels=labels, client_ids=client_ids, **named)


def load_task(path: Path, variant: str = "fp32") -> Task:
    """Reads what `save_task` wrote."""
    with np.load(path, allow_pickle=False) as file:
        weights = [file[f"weights_{i}"] for i in range(NUM_WEIGHTS)]
        return Task(variant, path, file["images"], file["labels"], file["client_ids"], weights)


def load_weights(path: Path) -> list[np.ndarray]:
    """Reads what a process saved when it was told to."""
    with np.load(path, allow_pickle=False) as file:
        return [file[f"arr_{i}"] for i in range(NUM_WEIGHTS)]


class Channel:
    """The process's end of the conversation."""

    def __init__(self, lines: TextIO, answers: TextIO):
        self._lines = lines
        self._answers = answers

    def serve(self, packages: tuple[str, ...], prepare: Prepare, weights: Weights) -> None:
        """Does what it is told until there is no more to read.

        Args:
          packages: whose versions matter; the framework itself comes first.
          prepare: see `Prepare`.
          weights: the weights now, in the order and the layout of a task's.
        """
        # Here besides, since a framework that calls back may keep errors to itself.
        with self.errors_answered():
            versions = {name: importlib.metadata.version(name) for name in packages}
            self._answer({"versions": versions, "python": platform.python_version()})
            for line in self._lines:
                self._answer(_done(line, prepare, weights))

    @contextlib.contextmanager
    def errors_answered(self) -> Iterator[None]:
        """Tells the driver of what fails within."""
        try:
            yield
        except Exception as error:
            self._answer({"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]})
            raise

    def _answer(self, answer: dict[str, Any]) -> None:
        self._answers.write(json.dumps(answer) + "\n")
        self._answers.flush()


def _done(line: str, prepare: Prepare, weights: Weights) -> dict[str, Any]:
    what, _, argument = line.strip().partition(" ")
    if what == "round":
        return {"seconds": _seconds(prepare(int(argument)))}
    if what == "save":
        np.savez(argument, *[np.asarray(array) for array in weights()])
        return {"saved": argument}
    raise ValueError(f"a line must start with 'round' or 'save', got {line!r}")


def _seconds(run: Callable[[], None]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _own_channel() -> Channel:
    """The channel over standard input and output; from here on, what others print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return Channel(sys.stdin, answers)


def main() -> None:
    """Trains as one of the modules does."""
    module, variant, path = sys.argv[1:]
    channel = _own_channel()
    with channel.errors_answered():
        importlib.import_module(f"benchmarks.peers.{module}").train(load_task(Path(path), variant), channel)


if __name__ == "__main__":
    main()

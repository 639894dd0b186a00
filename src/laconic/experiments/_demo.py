"""The demonstration behind `laconic demo`: one training, as it is, with 8 bits both ways, and as `presets.balanced`."""

import dataclasses
import importlib.util
import itertools
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import optax

from laconic import codecs, data, engines, learning
from laconic.codecs import Codec, TensorSpec
from laconic.data import ClientData
from laconic.errors import require
from laconic.experiments._csv import CSVWriter
from laconic.experiments._evaluation import central_evaluation
from laconic.experiments._lines import LineWriter
from laconic.experiments._plot import plot_curves
from laconic.experiments._records import History
from laconic.experiments._run import RunInterrupted, check_positive, run
from laconic.experiments._table import comparison_table
from laconic.experiments._tensorboard import TensorBoardWriter
from laconic.experiments._writers import Writer, make_directory
from laconic.federated import Engine
from laconic.learning import LearningProcess

_NEEDED = ("rich", "matplotlib", "tensorboardX", "sklearn")
_MODEL = learning.models.fedavg_cnn()
_BATCH_SIZE = 5
_LEARNING_RATE = 0.05
_LARGE = 10_000  # numbers; smaller tensors are not worth compressing
_LINES = 6  # of each training, where there is no terminal for a progress bar


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the user may choose; `cli.demo` explains it."""

    rounds: int
    clients_per_round: int
    seed: int
    logdir: Path
    workers: int | None
    engine: Literal["auto", "local", "device", "ray"] = "auto"


def demo(settings: Settings) -> bool:
    """Trains three times, and prints what came of it.

    Returns:
      Whether Ctrl-C ended it.

    Raises:
      ArgumentError: if a setting is out of its range, or the directory cannot be made.
      MissingExtraError: if an optional dependency is not installed.
    """
    # All of them now: nobody should learn after the training that there is nothing to draw its curves with.
    for module in _NEEDED:
        require(module, extra="experiments", purpose="the demo")
    for name in ("rounds", "clients_per_round"):
        check_positive(getattr(settings, name), name)
    engine = _engine(settings)
    console = require("rich.console", extra="experiments", purpose="the demo").Console(highlight=False)
    train, test = data.digits.load()
    settings = dataclasses.replace(settings, logdir=_fresh_directory(settings.logdir))
    console.print(_introduction(train, test, settings), soft_wrap=True)
    histories: list[History] = []
    interrupted = False
    try:
        for compression in _compressions():
            process = learning.fed_avg(
                _MODEL, client_optimizer=optax.sgd(_LEARNING_RATE), compression=compression, engine=engine
            )
            histories.append(_train(compression.name, process, train, test, settings))
    except KeyboardInterrupt as interrupt:
        interrupted = True
        if isinstance(interrupt, RunInterrupted):
            histories.append(interrupt.history)
        console.print("\nInterrupted.")
    _report(console, [history for history in histories if history.records], settings.logdir)
    return interrupted


def _engine(settings: Settings) -> Engine:
    match settings.engine:
        case "local":
            return engines.local(settings.workers)
        case "device":
            return engines.device(workers=settings.workers)
        case "ray":
            return engines.ray(workers=settings.workers)
        case "auto":
            return engines.auto(settings.workers)


def _compressions() -> list[learning.Compression]:
    return [
        learning.Compression("fp32", learning.encoded_broadcast(), learning.encoded_mean()),
        learning.Compression(
            "8 bit", learning.encoded_broadcast(_eight_bits_if_large), learning.encoded_mean(_eight_bits_if_large)
        ),
        learning.presets.balanced(),
    ]


def _eight_bits_if_large(spec: TensorSpec) -> Codec:
    return codecs.uniform_quantization(bits=8) if spec.size > _LARGE else codecs.identity()


def _train(name: str, process: LearningProcess, train: ClientData, test: ClientData, settings: Settings) -> History:
    return run(
        process,
        train.batched(_BATCH_SIZE, shuffle=True, seed=settings.seed),
        rounds=settings.rounds,
        clients_per_round=settings.clients_per_round,
        seed=settings.seed,
        evaluate=central_evaluation(_MODEL, test),
        writers=_writers(name, settings),
        name=name,
    )


def _writers(name: str, settings: Settings) -> list[Writer]:
    csv_file = _csv_file(name, settings.logdir)
    writers: list[Writer] = [TensorBoardWriter(csv_file.with_suffix("")), CSVWriter(csv_file)]
    if not sys.stderr.isatty():
        writers.append(LineWriter(name, every=math.ceil(settings.rounds / _LINES)))
    return writers


def _csv_file(name: str, logdir: Path) -> Path:
    return logdir / f"{name.replace(' ', '-')}.csv"


def _introduction(train: ClientData, test: ClientData, settings: Settings) -> str:
    weights = jax.eval_shape(_MODEL.init, codecs.random.key(0))
    size = sum(leaf.size for leaf in jax.tree.leaves(weights))
    return f"""\
[bold]One federated training, run three times; what differs is what travels.[/bold]
  data     {train.statistics().examples:,} handwritten digits at {len(train)} clients, {test.statistics().examples:,} \
more for testing
  model    a convolutional network of {size:,} weights
  rounds   {settings.rounds}, of {settings.clients_per_round} clients each; seed {settings.seed}
  fp32     every weight travels as 32 bits, down to the clients and back up
  8 bit    tensors above {_LARGE:,} weights travel as 8 bits a weight, both ways
  balanced learning.presets.balanced(): what training changed, rounded to coarse grids and entropy-coded
"""


def _report(console: Any, histories: Sequence[History], logdir: Path) -> None:
    console.print()
    if not histories:
        console.print("No round was completed, so there is nothing to compare.")
        return
    table = comparison_table(histories)
    console.print(table if console.is_terminal else str(table), soft_wrap=True)
    console.print("MB are lengths of real messages, of all rounds and clients together.\n", soft_wrap=True)
    results = {
        "curves": plot_curves(histories, logdir / "curves.png"),
        "every round": ", ".join(str(_csv_file(history.name, logdir)) for history in histories),
        "TensorBoard": _tensorboard_command(logdir),
    }
    for title, where in results.items():
        console.print(f"{title:<13}{where}", soft_wrap=True, markup=False)


def _tensorboard_command(logdir: Path) -> str:
    command = f"tensorboard --logdir {shlex.quote(str(logdir))}"
    is_installed = importlib.util.find_spec("tensorboard") is not None
    return command if is_installed else f"{command}   (after: pip install tensorboard)"


def _fresh_directory(wanted: Path) -> Path:
    """Makes the directory; where it is taken, one beside it, so that no earlier result is lost or mixed with this one.

    Raises:
      ArgumentError: if it cannot be made.
    """
    candidates = itertools.chain([wanted], (wanted.with_name(f"{wanted.name}-{i}") for i in itertools.count(2)))
    return make_directory(next(path for path in candidates if not _is_taken(path)), "logdir")


def _is_taken(path: Path) -> bool:
    return path.is_dir() and any(path.iterdir())

"""The command line: `laconic demo`."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import laconic
from laconic.errors import LaconicError, require

_DESCRIPTION = (
    "Laconic: federated learning in as few bytes as the task allows, and every byte counted. "
    "`laconic demo --help` explains the demonstration's options; `laconic --version` prints the version."
)
_FAILED = 1
_INTERRUPTED = 130  # as shells report a process that Ctrl-C ended


def demo(
    rounds: int = 30,
    clients_per_round: int = 10,
    seed: int = 0,
    logdir: Path = Path("laconic-demo"),
    workers: int = 0,
    engine: Literal["auto", "local", "device", "ray"] = "auto",
) -> int:
    """Trains a digit classifier uncompressed, with 8 bits and with `balanced`; compares accuracy and traffic.

    Real handwriting, dealt to 30 clients; no network is needed. It takes about a minute on two cores.

    Args:
      rounds: rounds of each training.
      clients_per_round: how many of the 30 clients take part in a round.
      seed: of all that is random; the same seed gives the same result.
      logdir: for curves, TensorBoard logs and CSV files; where it is not empty, logdir-2 is used, and so on.
      workers: threads that work on clients, or Ray's processes; 0 takes as many as the environment variable
        LACONIC_WORKERS says, or else one for each processor core.
      engine: where clients train: "local" in threads, "device" many at once on an accelerator, "ray" in processes of
        the cluster that RAY_ADDRESS names or of a new one, "auto" on an accelerator if there is one, else in threads.
    """
    # Here, and not above: JAX takes most of a second to load, which `--help` should not.
    from laconic.experiments import _demo

    interrupted = _demo.demo(_demo.Settings(rounds, clients_per_round, seed, logdir, workers or None, engine))
    return _INTERRUPTED if interrupted else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; `arguments` are those after the program's name, by default the process's.

    Returns:
      The exit status: 0, 1 after an error that can be explained, 130 after Ctrl-C. What is no argument at all ends the
      process with 2.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if list(arguments) == ["--version"]:
        print(f"laconic {laconic.__version__}")
        return 0
    try:
        return _run(arguments)
    except BrokenPipeError:
        # The reader of the output, such as `head`, has seen enough; Python must not try to write the rest when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED
    except (LaconicError, OSError) as error:
        print(f"laconic: {error}", file=sys.stderr)
        return _FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED


def _run(arguments: Sequence[str]) -> int:
    tyro = require("tyro", extra="experiments", purpose="the command line")
    app = tyro.extras.SubcommandApp()
    app.command(demo)
    try:
        return int(app.cli(prog="laconic", description=_DESCRIPTION, args=arguments))
    finally:
        sys.stdout.flush()  # so that nobody's reading it is found out here


if __name__ == "__main__":
    sys.exit(main())

"""Who runs, and a running process as the driver sees it."""

import contextlib
import dataclasses
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks._environments import ROOT, Environment, last_line


class CompetitorError(Exception):
    """A competitor cannot go on; the message says why."""


@dataclasses.dataclass(frozen=True)
class Competitor:
    """One line of the table.

    Attributes:
      name: as the table calls it.
      peer: whose environment it runs in; None for this one.
      module: what trains, in this package.
      variant: which of the module's ways.
      variables: environment variables, besides the environment's.
    """

    name: str
    peer: str | None
    module: str
    variant: str = "fp32"
    variables: tuple[tuple[str, str], ...] = ()


BASES = ("Laconic", "Laconic, 8 bit both ways")
COMPETITORS = (
    Competitor(BASES[0], None, "laconic_round"),
    Competitor(BASES[1], None, "laconic_round", "8 bit"),
    Competitor("Laconic, `presets.balanced()`", None, "laconic_round", "balanced"),
    Competitor("TFF", "TFF", "tff_round"),
    Competitor("TFF, 8 bit both ways", "TFF", "tff_round", "8 bit"),
    Competitor("FedJAX", "FedJAX", "fedjax_round"),
    # PyTorch's threads spin while they wait, which is slow as soon as anything else runs; so it runs in three ways.
    Competitor("pfl", "pfl", "pfl_round"),
    Competitor("pfl, threads that do not spin", "pfl", "pfl_round", variables=(("OMP_WAIT_POLICY", "passive"),)),
    Competitor("pfl, one thread", "pfl", "pfl_round", variables=(("OMP_NUM_THREADS", "1"),)),
    Competitor("Flower, simulation", "Flower", "flower_round"),
    Competitor("Flower, simulation, one processor a client", "Flower", "flower_round", "one processor a client"),
)


class Process:
    """A competitor's process, which runs `benchmarks.peers.exchange` and is stopped while it has nothing to do.

    Attributes:
      about: its versions.
    """

    about: dict[str, Any]

    def __init__(self, command: list[str], variables: dict[str, str], limit_seconds: float = 600.0):
        self._limit = limit_seconds
        self._errors = tempfile.TemporaryFile(mode="w+", errors="replace")  # noqa: SIM115
        # A group of its own can be stopped and ended with most of what it starts; in our session, so that the system
        # ends a stopped one if we die.
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            process_group=0, bufsize=0,
        )  # fmt: skip
        try:
            self.about = self._answer()
        except CompetitorError:
            self.end()
            raise

    def ask(self, line: str) -> dict[str, Any]:
        """Sends a line and waits for its answer.

        Raises:
          CompetitorError: the process ended, or took too long.
        """
        assert self._process.stdin is not None
        self._signal(signal.SIGCONT)
        try:
            self._process.stdin.write(line.encode() + b"\n")
        except BrokenPipeError:
            raise CompetitorError(self._reason()) from None
        answer = self._answer()
        self._pause()
        return answer

    def end(self) -> None:
        """Ends it and all that it started."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._signal(signal.SIGCONT)
        self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], self._limit)[0]:
            raise CompetitorError(f"no answer within {self._limit:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise CompetitorError(self._reason())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise CompetitorError(answer["error"])
        return answer

    def _reason(self) -> str:
        """Why it ended without a word."""
        self._process.wait(60)
        self._errors.seek(0)
        return last_line(self._errors.read()) or f"exit status {self._process.returncode}"

    def _pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def start(competitor: Competitor, environments: dict[str, Environment], task: Path) -> Process:
    """Starts a competitor.

    Raises:
      CompetitorError: it is not installed here, or fails at once.
    """
    python, variables = Path(sys.executable), dict(os.environ)
    if competitor.peer is not None:
        environment = environments[competitor.peer]
        if trouble := environment.trouble():
            raise CompetitorError(trouble)
        python, variables = environment.python, environment.process_variables
    command = [str(python), "-m", "benchmarks.peers.exchange", competitor.module, competitor.variant, str(task)]
    return Process(command, variables | dict(competitor.variables))

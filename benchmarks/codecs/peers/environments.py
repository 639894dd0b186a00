"""The peers, and the environment that each one runs in."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
FOLDER = Path(__file__).parents[1] / ".peers"


@dataclasses.dataclass(frozen=True)
class Peer:
    """Somebody else's package.

    Attributes:
      name: as tables call it.
      requirements: what pip installs, pinned.
      check: a statement that must run for the peer to be of use.
      runner: the module that measures it; None for one that has never come so far.
      environment: environment variables that it needs.
    """

    name: str
    requirements: tuple[str, ...]
    check: str
    runner: str | None
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def folder(self) -> Path:
        """Where its environment is."""
        return FOLDER / self.name

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.folder / "bin" / "python"


PEERS = (
    Peer(
        "tensor_encoding",
        ("tensorflow-cpu==2.15.1", "tf-keras==2.15.1", "tensorflow-model-optimization==0.8.0"),
        "from tensorflow_model_optimization.python.core.internal import tensor_encoding",
        "benchmarks.codecs.peers.run_tensor_encoding",
        (("TF_CPP_MIN_LOG_LEVEL", "3"), ("CUDA_VISIBLE_DEVICES", "")),
    ),
    Peer(
        "fedjax",
        ("fedjax==0.0.17", "jax==0.10.2", "jaxlib==0.10.2"),
        "import fedjax",
        "benchmarks.codecs.peers.run_fedjax",
    ),
    # The only release of EDEN's authors. Its archives lack two of its own packages, which is found out here again.
    Peer("cmprs-eden", ("torch==2.13.0", "cmprs-eden==0.1a3"), "import cmprs_eden", None),
)


def setup(peer: Peer) -> str | None:
    """Makes the environment anew; what went wrong, or None."""
    print(f"{peer.name}: {' '.join(peer.requirements)}", flush=True)
    steps = (
        [sys.executable, "-m", "venv", "--clear", str(peer.folder)],
        [str(peer.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *peer.requirements],
        [str(peer.python), "-c", peer.check],
    )
    trouble = None
    for what, step in zip(("its environment", "its installation", "its import"), steps, strict=True):
        done = _run(peer, step)
        if done.returncode:
            trouble = f"{what} fails: {_last_line(done.stderr) or f'exit status {done.returncode}'}"
            break
    if trouble is None and peer.runner is None:
        trouble = "imports by now, but nothing measures it"
    peer.folder.mkdir(parents=True, exist_ok=True)
    state = {"requirements": peer.requirements, "trouble": trouble}
    (peer.folder / "setup.json").write_text(json.dumps(state) + "\n")
    return trouble


def trouble_with(peer: Peer) -> str | None:
    """Why the peer cannot be measured here, or None."""
    file = peer.folder / "setup.json"
    if not file.exists():
        return "not set up; run: python -m benchmarks.codecs.peers setup"
    state: dict[str, Any] = json.loads(file.read_text())
    if tuple(state["requirements"]) != peer.requirements:
        return "set up with other versions; run: python -m benchmarks.codecs.peers setup"
    return state["trouble"]


def measure(peer: Peer, job: dict[str, Any]) -> dict[str, Any]:
    """Runs the peer on a job (see `exchange`); its results, or {"trouble": why there are none}."""
    trouble = trouble_with(peer)
    if trouble is not None or peer.runner is None:
        return {"trouble": trouble}
    request, reply = peer.folder / "request.json", peer.folder / "reply.json"
    request.write_text(json.dumps(job) + "\n")
    reply.unlink(missing_ok=True)
    done = _run(peer, [str(peer.python), "-m", peer.runner, str(request), str(reply)])
    if done.returncode or not reply.exists():
        return {"trouble": f"its run fails: {_last_line(done.stderr) or f'exit status {done.returncode}'}"}
    results: dict[str, Any] = json.loads(reply.read_text())
    return results


def _run(peer: Peer, command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        command, check=False, cwd=ROOT, env=environment | dict(peer.environment), text=True, stderr=subprocess.PIPE
    )


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1] if lines else ""

"""The peers, and the environment that each one runs in."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from benchmarks._environments import Environment, last_line

FOLDER = Path(__file__).parents[1] / ".peers"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Peer(Environment):
    """Somebody else's package.

    Attributes:
      runner: the module that measures it; None for one that has never come so far.
    """

    runner: str | None


def _peer(name: str, **others: Any) -> Peer:
    return Peer(name=name, folder=FOLDER / name, made_by="python -m benchmarks.codecs.peers setup", **others)


PEERS = (
    _peer(
        "tensor_encoding",
        requirements=("tensorflow-cpu==2.15.1", "tf-keras==2.15.1", "tensorflow-model-optimization==0.8.0"),
        check="from tensorflow_model_optimization.python.core.internal import tensor_encoding",
        runner="benchmarks.codecs.peers.run_tensor_encoding",
        variables=(("TF_CPP_MIN_LOG_LEVEL", "3"), ("CUDA_VISIBLE_DEVICES", "")),
    ),
    _peer(
        "fedjax",
        requirements=("fedjax==0.0.17", "jax==0.10.2", "jaxlib==0.10.2"),
        check="import fedjax",
        runner="benchmarks.codecs.peers.run_fedjax",
    ),
    # The only release of EDEN's authors. Its archives lack two of its own packages, which is found out here again.
    _peer("cmprs-eden", requirements=("torch==2.13.0", "cmprs-eden==0.1a3"), check="import cmprs_eden", runner=None),
)


def setup(peer: Peer) -> str | None:
    """Makes the environment anew; what went wrong, or None."""
    trouble = peer.make()
    if trouble is None and peer.runner is None:
        trouble = "imports by now, but nothing measures it"
        peer.record(trouble)
    return trouble


def measure(peer: Peer, job: dict[str, Any]) -> dict[str, Any]:
    """Runs the peer on a job (see `exchange`); its results, or {"trouble": why there are none}."""
    trouble = peer.trouble()
    if trouble is not None or peer.runner is None:
        return {"trouble": trouble}
    request, reply = peer.folder / "request.json", peer.folder / "reply.json"
    request.write_text(json.dumps(job) + "\n")
    reply.unlink(missing_ok=True)
    done = peer.run([str(peer.python), "-m", peer.runner, str(request), str(reply)])
    if done.returncode or not reply.exists():
        return {"trouble": f"its run fails: {last_line(done.stderr) or f'exit status {done.returncode}'}"}
    results: dict[str, Any] = json.loads(reply.read_text())
    return results

"""How a peer's process is told what to measure, and tells what it found: JSON, and vectors as .npy files.

The job: {"vectors": [{"name", "size", "path"}, ...], "seeds": [0, 1, ...]}. The reply: {"versions": {...}, "rows":
[...], "trouble": null}, a row being what one codec did to one vector:

    codec           its label
    vector, size    which
    bytes           what it would send, side information included; null where the peer makes nothing that could be sent
    reported_bytes  what the peer itself says it would send, by its formula; null where it says nothing
    nmse            for each seed
    unbiased        whether it is meant to be
    error           instead of the figures, if it fails

Runs in peers' environments: NumPy only.
"""

import importlib.metadata
import json
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.codecs import measure


class Outcome(NamedTuple):
    """What one encoding and decoding gave."""

    decoded: np.ndarray
    nbytes: int | None
    reported_bytes: float | None = None


class Method(NamedTuple):
    """A peer's codec: `prepare(size)` gives a function of (vector, seed)."""

    label: str
    unbiased: bool
    prepare: Callable[[int], Callable[[np.ndarray, int], Outcome]]


def serve(methods: list[Method], packages: tuple[str, ...]) -> None:
    """Does the job named on the command line and writes the reply."""
    request, reply = map(Path, sys.argv[1:])
    job = json.loads(request.read_text())
    rows = list(_rows(methods, job))
    versions = {name: importlib.metadata.version(name) for name in (*packages, "numpy")}
    reply.write_text(json.dumps({"versions": versions, "rows": rows, "trouble": None}) + "\n")


def _rows(methods: list[Method], job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    sizes = sorted({vector["size"] for vector in job["vectors"]})
    for method in methods:
        for size in sizes:
            run: Callable[[np.ndarray, int], Outcome] | None = None
            for vector in (each for each in job["vectors"] if each["size"] == size):
                row = {"codec": method.label, "vector": vector["name"], "size": size, "unbiased": method.unbiased}
                try:
                    run = run or method.prepare(size)
                    yield row | _figures(run, np.load(vector["path"], allow_pickle=False), job["seeds"])
                except Exception as error:
                    traceback.print_exc()
                    yield row | {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}


def _figures(run: Callable[[np.ndarray, int], Outcome], x: np.ndarray, seeds: list[int]) -> dict[str, Any]:
    outcomes = [run(x, seed) for seed in seeds]
    distortions = [measure.nmse(x, outcome.decoded) for outcome in outcomes]
    return {"bytes": outcomes[0].nbytes, "reported_bytes": outcomes[0].reported_bytes, "nmse": distortions}

"""The check that decoding needs nothing of the process that encoded: another one decodes the bytes."""

import inspect
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from laconic import codecs
from laconic.codecs import Stage
from laconic.testing import _process
from laconic.testing._report import Failed, NotApplicable
from laconic.testing._subject import Subject, first_difference, same_bits
from laconic.testing._sums import later_state

_TIMEOUT_S = 300


def check_other_process(subject: Subject) -> str:
    """Another process, which has only the class's source and the bytes, decodes the same bits."""
    if not subject.in_other_process:
        raise NotApplicable("other_process=False")
    if subject.stage.has_receiver_memory:
        raise NotApplicable("decoding depends on what the receiver remembers")
    if (source := _source(subject.stage)) is None:
        raise NotApplicable(
            f"{type(subject.stage).__qualname__} is at the top level of no module that another process could import"
        )
    payloads = dict(_payloads(subject))
    with tempfile.TemporaryDirectory(prefix="laconic-") as name:
        directory = Path(name)
        for i, blob in enumerate(payloads.values()):
            _process.payload_file(directory, i).write_bytes(blob)
        request = source | {"payloads": len(payloads)}
        _process.request_file(directory).write_text(json.dumps(request), "utf-8")
        _run(directory)
        for i, (kind, blob) in enumerate(payloads.items()):
            decoded = codecs.decode(_process.answer_file(directory, i).read_bytes())
            _compare(subject, kind, subject.bound.decode(blob), decoded)
    return f"{len(payloads)} payloads decode to the same bits"


def _payloads(subject: Subject) -> Iterator[tuple[str, bytes]]:
    for kind, tree in subject.inputs:
        yield kind, codecs.encode(tree, subject.codec, seed=subject.seed)
    if subject.stage.is_adaptive:
        tree = next(iter(subject.inputs.trees.values()))
        payload, _ = subject.bound.encode(tree, key=subject.key("later"), state=later_state(subject), described=True)
        yield "second round's", payload.blob


def _source(stage: Stage) -> dict[str, Any] | None:
    """Where another process finds the class, or None for one that was made in a function, a notebook or a prompt."""
    cls = type(stage)
    module = sys.modules.get(cls.__module__)
    if getattr(module, cls.__qualname__, None) is not cls:
        return None
    try:
        file = Path(inspect.getfile(cls)).resolve()
    except (TypeError, OSError):
        return None
    return {"module": cls.__module__, "file": str(file)} if file.is_file() else None


def _run(directory: Path) -> None:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # this process may hold most of the GPU's memory
        _process.MARK: "1",
    }
    if jax.default_backend() == "cpu":
        environment["JAX_PLATFORMS"] = "cpu"
    command = [sys.executable, "-m", _process.__name__, str(directory)]
    try:
        # The command is this interpreter and our own module; nothing of it comes from outside.
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise Failed("another process to decode the bytes", f"no answer within {_TIMEOUT_S} s") from None
    if done.returncode:
        last_line = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Failed(
            "another process, which imports the stage's module, to decode the bytes",
            last_line,
            "decode must need nothing but the encoding, the parameters and the stage's fields",
        )


def _compare(subject: Subject, kind: str, expected: Any, decoded: Any) -> None:
    for name in expected:
        if not same_bits(expected[name], decoded[name]):
            raise Failed(
                f"another process to decode {subject.inputs.specs[name]} ({kind}) to the same bits",
                first_difference(np.asarray(expected[name]), decoded[name]),
                "decode must need nothing but the encoding, the parameters and the stage's fields",
            )

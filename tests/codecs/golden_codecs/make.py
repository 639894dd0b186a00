"""Writes the golden payloads of every codec; run it by hand after adding one, and never to make a test pass.

A payload that is there already stays as it is: old bytes must keep their meaning.
"""

import hashlib
import json
import sys
from pathlib import Path

import jax
import numpy as np

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))

from catalogue import LOSSLESS, LOSSY  # noqa: E402

from laconic import codecs  # noqa: E402

CODECS = LOSSLESS | LOSSY
INEXACT = (
    "hadamard_quantization",
    "kashin_quantization",
    "eden_1",
    "eden_fraction",
    "eden_sparse",
    "drive",
    "low_rank",
    "karhunen_loeve",
)
"""Decoded by matrix products, the last places of which differ between processors."""
TREE = {
    "kernel": (np.sin(np.arange(60.0)).reshape(6, 10) * np.linspace(0.1, 3, 60).reshape(6, 10)).astype(np.float32),
    "bias": np.cos(np.arange(5.0)),
}
"""A float32 and a float64 tensor."""


def payload(name):
    """The tree's payload."""
    return codecs.encode(TREE, CODECS[name], seed=11)


def digest(tree):
    """A hash of bytes, or of arrays with their shapes and dtypes."""
    if isinstance(tree, bytes):
        return hashlib.sha256(tree).hexdigest()[:16]
    parts = [(str(np.shape(x)), str(np.asarray(x).dtype), np.asarray(x).tobytes().hex()) for x in jax.tree.leaves(tree)]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _digests():
    file = FOLDER / "digests.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


DIGESTS = _digests()

if __name__ == "__main__":
    for each in CODECS:
        target = FOLDER / f"{each}.bin"
        if not target.exists():
            target.write_bytes(payload(each))
            decoded = codecs.decode(target.read_bytes())
            DIGESTS[each] = digest(decoded)
            if each in INEXACT:
                (FOLDER / f"{each}.decoded").write_bytes(codecs.encode(decoded, codecs.identity()))
    (FOLDER / "digests.json").write_text(json.dumps(DIGESTS, indent=1) + "\n", encoding="utf-8")

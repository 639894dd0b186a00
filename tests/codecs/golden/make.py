"""Writes golden files of wire format 1 that are not there yet.

    PYTHONPATH=src python tests/codecs/golden/make.py

Run it after adding a case, and commit the new file. It never touches a file that exists: where one no longer agrees
with the code, payloads that users have stored would not decode either, and it is the code that must change, or the
version.
"""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))

from codec_support import LargestSeen, Split, Trim  # noqa: E402

from laconic import codecs  # noqa: E402


class Layer(NamedTuple):
    """A node that bytes cannot name."""

    kernel: Any
    bias: Any


# No element is near the middle between two codes, where another rounding of the last place could change the bytes.
WAVE = np.array([-1.0, -0.75, -0.3, -0.0, 0.0, 0.1, 0.2, 0.45, 0.7, 1.0, 1.3, 1.6, 2.0], np.float32)

TREES = {
    "dtypes": {
        "bool": np.array([True, False]),
        "int8": np.array([-128, 127], np.int8),
        "int16": np.array([-(2**15), 2**15 - 1], np.int16),
        "int32": np.array([-(2**31), 2**31 - 1], np.int32),
        "int64": np.array([-(2**63), 2**63 - 1]),
        "uint8": np.array([0, 255], np.uint8),
        "uint16": np.array([0, 2**16 - 1], np.uint16),
        "uint32": np.array([0, 2**32 - 1], np.uint32),
        "uint64": np.array([0, 2**64 - 1], np.uint64),
        "float16": np.array([-0.0, 65504, 6e-8], np.float16),
        "bfloat16": np.array([-0.0, 1.5, -3e38], ml_dtypes.bfloat16),
        "float32": np.array([-0.0, 0.1, 3.4e38, 1e-45], np.float32),
        "float64": np.array([-0.0, 0.1, 1.7e308, 5e-324]),
    },
    "trees": [
        None,
        (np.int8(1), [], {}),
        {"": np.float32(0.5), "ü": {-3: np.zeros((0, 2), np.int16), 200: np.ones((2, 1, 2), np.uint8)}},
    ],
    "single": np.float64(2.5),
    "empty": {},
    "named_tuple": [Layer(np.int8(1), None), Layer(np.int8(2), np.int8(3))],
    "stochastic": {"w": WAVE, "b": WAVE.reshape(13, 1)},
    "nearest": WAVE,
    "given_range": WAVE,
    "precisions": [WAVE.astype(dtype) for dtype in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)],
    "split": np.array([0.0, 1.0, 0.0, 2.0, 0.0, 3.0, 0.0], np.float32),
}

CODECS = {
    "stochastic": codecs.uniform_quantization(5),
    "nearest": codecs.uniform_quantization(3, stochastic=False),
    "given_range": codecs.uniform_quantization(4, value_range=(-1, 1.45), stochastic=False, packing="tff"),
    "precisions": codecs.uniform_quantization(11, stochastic=False),
    "split": codecs.branch(Split(), even=codecs.chain(codecs.Identity(), Trim()), odd=Trim()),
}


def adaptive() -> dict[str, bytes]:
    """A broadcast and a contribution in the second round of an adaptive codec; a payload without description."""
    bound = codecs.bind(codecs.chain(codecs.Flatten(), LargestSeen()), WAVE)
    _, state = bound.encode(2 * WAVE)
    contribution = bound.encode_contribution(WAVE, parameters=bound.encode_parameters(state), described=True)
    return {
        "adaptive_broadcast": bound.encode(WAVE, state=state, described=True)[0].blob,
        "adaptive_contribution": contribution.blob,
        "without_description": codecs.bind(codecs.identity(), WAVE).encode(WAVE)[0].blob,
    }


def payloads() -> dict[str, bytes]:
    """The bytes that each golden file must hold."""
    return {
        name: codecs.encode(tree, CODECS.get(name, codecs.identity()), seed=7) for name, tree in TREES.items()
    } | adaptive()


if __name__ == "__main__":
    for name, blob in payloads().items():
        file = FOLDER / f"{name}.bin"
        if not file.exists():
            file.write_bytes(blob)
            sys.stdout.write(f"wrote {file.name}, {len(blob)} bytes\n")

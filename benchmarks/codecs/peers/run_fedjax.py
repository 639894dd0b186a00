"""FedJAX's quantizers.

FedJAX makes nothing that could be sent: its aggregators quantize, decode and average floats in one step, and add up
bits by a formula. The formula is the reported figure. For the bytes its codes are counted at fixed width, by the levels
that it uses and the length that it rotates (padded to a power of two), with the floats it needs besides and, where it
rotates, a seed of eight bytes.
"""

import importlib
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks._fedjax import restore_dropped_names
from benchmarks.codecs.peers.exchange import Method, Outcome, serve

jax: Any = restore_dropped_names()
compression: Any = importlib.import_module("fedjax.aggregators.compression")

SEED_BYTES = 8


def _prepared(
    make: Callable[[Any], Any], nbytes: Callable[[int], int | None]
) -> Callable[[int], Callable[[np.ndarray, int], Outcome]]:
    def prepare(size: int) -> Callable[[np.ndarray, int], Outcome]:
        def run(x: np.ndarray, seed: int) -> Outcome:
            aggregator = make(jax.random.PRNGKey(seed))
            mean, state = aggregator.apply([(b"client", {"x": x}, 1.0)], aggregator.init())
            return Outcome(np.asarray(mean["x"]), nbytes(size), float(state.num_bits) / 8)

        return run

    return prepare


def _uniform(levels: int, algorithm: str | None, key: Any) -> Any:
    return compression.uniform_stochastic_quantizer(levels, key, algorithm)


def _rotated(levels: int, key: Any) -> Any:
    return compression.rotated_uniform_stochastic_quantizer(levels, key)


def _packed(bits: int, size: int) -> int:
    return math.ceil(size * bits / 8) + 8


def _packed_after_padding(bits: int, size: int) -> int:
    return _packed(bits, 2 ** math.ceil(math.log2(size))) + SEED_BYTES


def _drive_bytes(size: int) -> int:
    return _packed_after_padding(1, size) - 4


def _terngrad_bytes(size: int) -> int:
    """Five values of three fit in a byte."""
    return math.ceil(size / 5) + 4


def _unknown(size: int) -> None:
    del size


def _methods() -> list[Method]:
    methods = []
    for bits in (1, 2, 4, 8):
        uniform, coded = (partial(_uniform, 2**bits, algorithm) for algorithm in (None, "arithmetic"))
        methods += [
            Method(f"uniform {bits} bit", True, _prepared(uniform, partial(_packed, bits))),
            Method(f"uniform {bits} bit, arithmetic coding by formula", True, _prepared(coded, _unknown)),
            Method(
                f"rotated uniform {bits} bit",
                True,
                _prepared(partial(_rotated, 2**bits), partial(_packed_after_padding, bits)),
            ),
        ]
    return [
        *methods,
        Method("structured DRIVE", True, _prepared(compression.structured_drive_quantizer, _drive_bytes)),
        # It clips at 2.5 standard deviations, which biases it.
        Method("TernGrad", False, _prepared(compression.terngrad_quantizer, _terngrad_bytes)),
    ]


if __name__ == "__main__":
    serve(_methods(), ("fedjax", "jax"))

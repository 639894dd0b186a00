"""TFF's tensor_encoding, as it lives on inside tensorflow-model-optimization.

What it would send: all tensors of `SimpleEncoder.encode`'s structure, codes, ranges, seeds and shapes, as they are.
"""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.codecs.peers.exchange import Method, Outcome, serve

tf: Any = importlib.import_module("tensorflow")
te: Any = importlib.import_module("tensorflow_model_optimization.python.core.internal.tensor_encoding")


def _prepared(make: Callable[[], Any]) -> Callable[[int], Callable[[np.ndarray, int], Outcome]]:
    def prepare(size: int) -> Callable[[np.ndarray, int], Outcome]:
        encoder = te.encoders.as_simple_encoder(make(), tf.TensorSpec((size,), tf.float32))

        def run(x: np.ndarray, seed: int) -> Outcome:
            # Its graphs draw unseeded; this only helps where an operation looks at the global seed.
            tf.random.set_seed(seed)
            encoded, _ = encoder.encode(x)
            nbytes = sum(tensor.numpy().nbytes for tensor in tf.nest.flatten(encoded))
            return Outcome(encoder.decode(encoded).numpy(), nbytes)

        return run

    return prepare


def _composed(bits: int, *parents: Any) -> Callable[[], Any]:
    """Bit packing below the parents, innermost first, each by its one compressible output."""

    def make() -> Any:
        composer = te.core.EncoderComposer(te.stages.BitpackingEncodingStage(bits))
        for parent in parents:
            stage = parent()
            composer = composer.add_parent(stage, stage.compressible_tensors_keys[0])
        return composer.make()

    return make


def _methods() -> list[Method]:
    stages, research = te.stages, te.stages.research
    methods = [Method("identity", True, _prepared(te.encoders.identity))]
    for bits in (1, 2, 4, 8):
        uniform = lambda bits=bits: te.encoders.uniform_quantization(bits)  # noqa: E731
        hadamard = lambda bits=bits: te.encoders.hadamard_quantization(bits)  # noqa: E731
        dithered = _composed(
            bits, lambda bits=bits: research.PRNGUniformQuantizationEncodingStage(bits), stages.FlattenEncodingStage
        )
        kashin = _composed(
            bits,
            lambda bits=bits: stages.UniformQuantizationEncodingStage(bits),
            research.KashinHadamardEncodingStage,
            stages.FlattenEncodingStage,
        )
        methods += [
            Method(f"uniform {bits} bit", True, _prepared(uniform)),
            Method(f"hadamard {bits} bit", True, _prepared(hadamard)),
            Method(f"dithered (PRNG) {bits} bit", True, _prepared(dithered)),
            Method(f"kashin {bits} bit", False, _prepared(kashin)),
        ]
    return methods


if __name__ == "__main__":
    serve(_methods(), ("tensorflow-model-optimization", "tensorflow-cpu"))

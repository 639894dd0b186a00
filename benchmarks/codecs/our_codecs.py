"""Laconic's codecs as the benchmarks call them: the one place to change a call.

An entry names a factory of `laconic.codecs` and its arguments; the codec is made when it is needed.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

import laconic.codecs


@dataclasses.dataclass(frozen=True)
class Entry:
    """A codec in the table.

    Attributes:
      factory: name in `laconic.codecs`.
      arguments: keyword arguments.
      family: the curve that it belongs to in plots; by default the factory.
      takes_matrices: whether it makes sense for matrices only.
      in_rms: an argument that is given in root mean squares of the vector.
    """

    factory: str
    arguments: tuple[tuple[str, Any], ...] = ()
    family: str = ""
    takes_matrices: bool = False
    in_rms: str = ""

    @property
    def label(self) -> str:
        """The codec as the table names it: how to call it."""
        arguments = [f"{name}={value!r}{' rms' * (name == self.in_rms)}" for name, value in self.arguments]
        return f"{self.factory}({', '.join(arguments)})"

    @property
    def curve(self) -> str:
        """The family."""
        return self.family or self.factory

    @functools.cached_property
    def codec(self) -> Any:
        """The codec."""
        return self._made(dict(self.arguments))

    def codec_for(self, x: np.ndarray) -> Any:
        """The codec for a vector."""
        if not self.in_rms:
            return self.codec
        arguments = dict(self.arguments)
        arguments[self.in_rms] *= float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))
        return self._made(arguments)

    def _made(self, arguments: dict[str, Any]) -> Any:
        return getattr(laconic.codecs, self.factory)(**arguments)


RATES = (1.0, 2.0, 3.0, 4.0)
LOW_RATES = (0.02, 0.05, 0.1, 0.25, 0.5)
CLAIMED_NMSE = (0.55, 0.0976, 0.0227, 0.0056)
CLAIMED_NMSE_AT_RATE = dict(zip(RATES, (0.565, 0.101, 0.0235, 0.0059), strict=True))
EDEN_NMSE_AT_RATE = dict(zip(RATES, (0.571, 0.133, 0.036, 0.0096), strict=True))
"""What EDEN's authors' formula gives at that many bits, D / (1 - D) of the Lloyd-Max quantizer."""


def each(factory: str, argument: str, values: tuple[Any, ...], *, family: str = "", **others: Any) -> Iterator[Entry]:
    """An entry for each value of an argument."""
    for value in values:
        yield Entry(factory, ((argument, value), *others.items()), family)


def entries() -> list[Entry]:
    """All of them, in the table's order."""
    return [
        Entry("identity"),
        *each("cast", "dtype", ("bfloat16", "float16")),
        Entry("natural"),
        # Unbiased.
        *each("dithered", "nmse", CLAIMED_NMSE, family="dithered"),
        *each("dithered", "bits_per_parameter", (*LOW_RATES, *RATES, 6.0), family="dithered"),
        *each("dithered", "nmse", CLAIMED_NMSE, family="dithered E8", lattice="E8"),
        *each("stochastic_grid", "bits_per_parameter", (*LOW_RATES, 1.0, 2.0)),
        *each("stochastic_grid", "nmse", (1.0, 10.0)),
        *each("uniform_quantization", "bits", (1, 2, 4, 8)),
        *each("uniform_quantization", "bits", (1, 2, 4, 8), family="uniform_quantization, entropy", packing="entropy"),
        *each("hadamard_quantization", "bits", (1, 2, 4, 8)),
        *each("kashin_quantization", "bits", (1, 2, 4, 8)),
        *each("eden", "bits", (0.1, 0.25, 0.5, 1, 1.5, 2, 3, 4)),
        *each("eden", "bits", (0.1, 0.25, 0.5, 1, 2, 3, 4), family="eden, entropy", entropy_coded=True),
        Entry("drive"),
        Entry("ternary", (("clip", 2.5),), "ternary, clipped"),
        *(Entry("qsgd", (("levels", levels), ("bucket_size", 128))) for levels in (1, 7, 15, 127)),
        Entry("ternary"),
        *each("random_k", "fraction", (0.001, 0.01, 0.1)),
        *each("auto", "bits_per_parameter", (0.05, 0.25, 1.0, 2.0, 4.0), family="auto"),
        *each("auto", "nmse", (1.0, 0.1, 0.01), family="auto"),
        # Biased.
        *each("lloyd_max", "bits", (1, 2, 3, 4)),
        Entry("sign"),
        *each("top_k", "fraction", (0.001, 0.01, 0.1)),
        *(Entry("threshold", (("value", value),), in_rms="value") for value in (1.5, 3.0, 6.0)),
        *each("sparse_ternary", "fraction", (0.001, 0.01, 0.04, 0.1)),
        # For matrices.
        *(Entry("per_channel_quantization", (("bits", bits),), takes_matrices=True) for bits in (1, 2, 4, 8)),
        *(Entry("low_rank", (("rank", rank),), takes_matrices=True) for rank in (1, 2, 4, 16)),
    ]


ENTROPY_CODERS = ("Huffman", "Rice", "EliasGamma")
"""Coders of integers besides the one that `dithered` ends in."""


def entropy_coder() -> laconic.codecs.Coder:
    """The coder of the library's integers: the one that `dithered` ends in."""
    codec: Any = Entry("dithered", (("nmse", 0.1),)).codec
    while isinstance(codec, laconic.codecs.Codec):
        codec = dict(codec.children)[codec.stage.compressible[0]]
    return codec


def other_coder(name: str) -> laconic.codecs.Coder:
    """A coder by its class."""
    return getattr(laconic.codecs, name)()


def tutorial_codec(packing: str) -> Callable[[laconic.codecs.TensorSpec], laconic.codecs.Codec]:
    """The tutorial's choice, 8 bits for tensors above 10,000 elements, with its codes packed one way or the other."""
    large = Entry("uniform_quantization", (("bits", 8), ("packing", packing)))
    return lambda spec: large.codec if spec.size > 10_000 else laconic.codecs.identity()


class Lowered(NamedTuple):
    """A codec taken apart where arrays become bytes.

    Attributes:
      coder: the last one, on the path of each stage's first compressible output.
      encode: compiled: key, x -> the integers that the coder takes, and their contexts or None.
    """

    coder: laconic.codecs.Coder
    encode: Callable[[Any, Any], tuple[Any, Any]]


def lowered(codec: laconic.codecs.Codec) -> Lowered:
    """A codec's stages in one compiled function, and its last coder. For codecs that are not told anything."""
    stages: list[laconic.codecs.Stage] = []
    child: Any = codec
    while isinstance(child, laconic.codecs.Codec):
        stages.append(child.stage)
        child = dict(child.children)[child.stage.compressible[0]]

    def encode(key: Any, x: Any) -> tuple[Any, Any]:
        contexts: Mapping[str, Any] = {}
        for stage in stages:
            spec = laconic.codecs.TensorSpec("", x.shape, x.dtype)
            if stage.num_contexts > 1 and child.uses_contexts:
                contexts = stage.contexts(stage.regenerate(key, spec))
            else:
                contexts = {}
            x = stage.encode(key, x, {})[stage.compressible[0]]
        return x, contexts.get(stages[-1].compressible[0])

    return Lowered(child, jax.jit(encode))


def coded(codec: laconic.codecs.Codec, x: Any, seed: int) -> tuple[laconic.codecs.Coder, np.ndarray, np.ndarray | None]:
    """A codec's last coder with the integers and contexts that it is given for `x`."""
    coder, encode = lowered(codec)
    codes, contexts = encode(laconic.codecs.random.key(seed), x)
    return coder, np.asarray(codes), None if contexts is None else np.asarray(contexts)

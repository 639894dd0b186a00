"""What is compared: Laconic's presets, and compressors of the literature as their papers use them."""

from collections.abc import Callable
from typing import NamedTuple

from laconic import codecs, learning
from laconic.codecs import Codec, CodecFor, TensorSpec

LARGE = 10_000  # numbers; TFF's tutorial compresses tensors above that


class Method(NamedTuple):
    """A line of the table."""

    label: str
    by: str
    make: Callable[[], learning.Compression]


def _large(codec: Codec) -> CodecFor:
    """The codec for large tensors, the others as they are: what TFF's tutorial does."""

    def choose(spec: TensorSpec) -> Codec:
        return codec if spec.size > LARGE else codecs.identity()

    return choose


def _both(down: CodecFor | None, up: CodecFor | None) -> Callable[[], learning.Compression]:
    return lambda: learning.Compression("", learning.encoded_broadcast(down), learning.encoded_mean(up))


def _remembering(codec: Codec) -> Codec:
    return codecs.error_feedback(codec)


OURS = "Laconic"
TENSORFLOW = "TFF's tutorial"

METHODS: dict[str, Method] = {
    "fp32": Method("fp32", "", _both(None, None)),
    "lossless": Method("lossless()", OURS, learning.presets.lossless),
    "careful": Method("careful()", OURS, learning.presets.careful),
    "balanced": Method("balanced()", OURS, learning.presets.balanced),
    "frugal": Method("frugal()", OURS, learning.presets.frugal),
    # What `balanced` takes for small models with plain SGD, for whatever model.
    "coarse": Method(
        "E8 lattice of 1.9 down, EDEN at 0.31 bits up",
        OURS,
        lambda: learning.Compression(
            "",
            learning.reference_broadcast(codec=codecs.concatenate(codecs.dithered(step_in_rms=1.9, lattice="E8"))),
            learning.encoded_mean(codecs.concatenate(codecs.eden(0.31, entropy_coded=True))),
        ),
    ),
    "tff_8_bit": Method(
        "8 bit both ways, TFF's packing",
        TENSORFLOW,
        _both(*[_large(codecs.uniform_quantization(8, packing="tff"))] * 2),
    ),
    "hadamard_8_bit": Method(
        "Hadamard, 8 bit both ways",
        "Konečný et al. 2016; Caldas et al. 2018",
        _both(*[_large(codecs.hadamard_quantization(8))] * 2),
    ),
    "hadamard_2_bit_up": Method(
        "Hadamard, 8 bit down, 2 bit up",
        "Konečný et al. 2016; Caldas et al. 2018",
        _both(_large(codecs.hadamard_quantization(8)), _large(codecs.hadamard_quantization(2))),
    ),
    "caldas_4_bit_down": Method(
        "Kashin, 4 bit down, 4 bit up",
        "Caldas et al. 2018",
        _both(_large(codecs.kashin_quantization(4)), _large(codecs.kashin_quantization(4))),
    ),
    "drive": Method("DRIVE, 1 bit up", "Vargaftik et al. 2021", _both(None, _large(codecs.drive()))),
    "eden": Method("EDEN, 1 bit up", "Vargaftik et al. 2022", _both(None, _large(codecs.eden(1)))),
    "qsgd": Method("QSGD, 1 level, buckets of 128, up", "Alistarh et al. 2017", _both(None, _large(codecs.qsgd(1)))),
    "terngrad": Method("TernGrad up", "Wen et al. 2017", _both(None, _large(codecs.ternary(2.5)))),
    "top_k": Method("top 1 % up", "Aji and Heafield 2017", _both(None, _large(codecs.top_k(0.01)))),
    "top_k_ef": Method(
        "top 1 % up, error feedback",
        "Stich et al. 2018",
        _both(None, _large(_remembering(codecs.top_k(0.01)))),
    ),
    "stc": Method("STC, 1 % up", "Sattler et al. 2019", _both(None, _large(codecs.sparse_ternary(0.01)))),
    "stc_ef": Method(
        "STC, 1 % up, error feedback",
        "Sattler et al. 2019",
        _both(None, _large(_remembering(codecs.sparse_ternary(0.01)))),
    ),
}

"""Ready-made codecs that rotate first, or fit their levels to Gaussian entries.

Rates and errors in the docstrings are for n independent Gaussian entries, unless they say that they hold for any.
"""

from laconic.codecs._codec import Codec, branch, chain
from laconic.codecs.coders._coder import FixedWidth
from laconic.codecs.coders._entropy_coder import EntropyCoder
from laconic.codecs.stages._codebooks import MAX_BITS, uniform_step
from laconic.codecs.stages._eden import MIN_BITS, Eden, EdenUniform, LloydMax, checked_rate
from laconic.codecs.stages._hadamard import Hadamard
from laconic.codecs.stages._kashin import Kashin
from laconic.codecs.stages._uniform_quantizers import BlockQuantizer, PerChannelQuantizer, UniformQuantizer

_BLOCK = 2**13  # large enough to make any entries Gaussian; smaller ones would follow the vector's scale more closely


def hadamard_quantization(bits: int = 8, *, seed: int = 0, stochastic: bool = True) -> Codec:
    """A randomized Hadamard transform in blocks of 8,192, then uniform quantization of each within its own range.

    y = H D x, then as `uniform_quantization`. Spreads what single entries hold over a block, so that outliers do not
    stretch its range: about +-sqrt(2 ln 2b) root mean squares of the block's b entries, whatever they are.
    Rate: `bits` bits per element, and 64 bits for each block's range; nothing is padded. Error for any x of many
    blocks: nmse about 13, 1.1, 0.20 and 0.043 with 1, 2, 3 and 4 bits, then a quarter for each further bit.
    Unbiased if stochastic. Does not commute with the sum, since clients' ranges differ.
    Source: Suresh et al. 2017, "Distributed mean estimation with limited communication", section 3; TFF's
    `tensor_encoding.encoders.hadamard_quantization`, which pads to a power of two.

    Args:
      bits: width of a code, 1 to 16.
      seed: of the signs, the same for all; 0 to 2**63 - 1.
      stochastic: whether to round stochastically; else half to even.

    Raises:
      ArgumentError: if an argument is out of range.
    """
    return chain(Hadamard(seed, _BLOCK), BlockQuantizer(bits, _BLOCK, stochastic), FixedWidth(bits))


def kashin_quantization(bits: int = 8, *, seed: int = 0, stochastic: bool = True) -> Codec:
    """Kashin's representation, then uniform quantization between the least and the largest coefficient.

    P coefficients for n entries, P a power of two and 1.18 to 2.35 times n, none of them much larger than two root mean
    squares.
    Rate: `bits` P / n bits per element, and 64 bits for the range. Error for any x: with 1 bit nmse about 3.8 at
    P / n = 1.26 and 1.3 at 2, falling fourfold and more with each further bit. Unbiased if stochastic. Does not commute
    with the sum, since clients' ranges differ.
    Source: Lyubarskii and Vershynin 2010, "Uncertainty principles and vector quantization". For TFF's parameters
    chain a `Kashin(3, 0.9, 1.0, rounds=1)` of your own.

    Args:
      bits: width of a code, 1 to 16.
      seed: of the signs, the same for all; 0 to 2**63 - 1.
      stochastic: whether to round stochastically; else half to even.

    Raises:
      ArgumentError: if an argument is out of range.
    """
    return chain(Kashin(seed=seed), UniformQuantizer(bits, stochastic=stochastic), FixedWidth(bits))


def per_channel_quantization(bits: int = 8, *, stochastic: bool = True) -> Codec:
    """Uniform quantization with each channel's own minimum and maximum; channels are indices of the last axis.

    Rate: `bits` bits per element, and 64 bits per channel for the ranges. Error: with step s = (high - low) / (2**bits
    - 1) of the channel, at most s (stochastic) or s / 2 (half to even). Unbiased if stochastic. Does not commute with
    the sum, since clients' ranges differ.
    Source: Krishnamoorthi 2018, "Quantizing deep convolutional networks for efficient inference", section 2.4; TFF's
    `tensor_encoding` per-channel stage.

    Args:
      bits: width of a code, 1 to 16.
      stochastic: whether to round stochastically; else half to even.

    Raises:
      ArgumentError: if bits is out of range.
    """
    return chain(PerChannelQuantizer(bits, stochastic), FixedWidth(bits))


def lloyd_max(bits: int = 4) -> Codec:
    """The 2**bits levels with the least mean squared error for Gaussian entries, scaled to the tensor.

    x^_i = s c(x_i sqrt(n) / |x|) with the nearest centroid c and s = <x, c> / |c|^2.
    Rate: `bits` bits per element, and 32 bits for the scale. Error: nmse 0.363, 0.117, 0.0345 and 0.0095 with 1 to 4
    bits, then nearly fourfold less with each; heavier tails cost more, see `eden`. Biased, towards zero. Does not
    commute with the sum, since clients' scales differ.
    Source: Lloyd 1982, "Least squares quantization in PCM"; Max 1960, "Quantizing for minimum distortion".

    Args:
      bits: width of a code, 1 to 8.

    Raises:
      ArgumentError: if bits is out of range.
    """
    return chain(LloydMax(bits), FixedWidth(bits))


def eden(bits: float = 1.0, *, unbiased: bool = True, entropy_coded: bool = False) -> Codec:
    """EDEN: a random rotation, Lloyd-Max levels, and a scale that makes the estimate unbiased; at any rate.

    y = R x, z = y sqrt(n) / |y|, q = c(z), x^ = S R^T q with S = |y|^2 / <y, q>, for each block of at most 65,536.
    Rate: `bits` bits per element, and 32 bits for each block and 64 for the key. Error for any x: nmse D / (1 - D),
    that is 14.7, 2.14, 0.571, 0.133, 0.0358 and 0.0096 with 0.1, 0.5, 1, 2, 3 and 4 bits, and 0.0025, 0.00064 with 5,
    6. Entropy-coded: 9.93, 1.61, 0.535, 0.0976, 0.0227 and 0.0056. Not unbiased: D, the mean squared error of the
    levels. Unbiased, unlike with a single Hadamard rotation, for sparse vectors too: two to three rounds bring the bias
    below what can be measured. Does not commute with the sum: each encoding has its own rotation, without which
    clients' errors would not average out.
    Source: Vargaftik et al. 2022, "EDEN: Communication-efficient and robust distributed mean estimation for federated
    learning".

    Args:
      bits: bits per element, 0.01 to 8.
      unbiased: whether the scale makes the estimate unbiased; if not, closest.
      entropy_coded: whether to take levels of one distance and code their indices by their entropy; the least bytes
        below one bit.

    Raises:
      ArgumentError: if bits is out of range.
    """
    if entropy_coded:
        step = uniform_step(checked_rate(bits, MIN_BITS, MAX_BITS, "bits"))
        return chain(EdenUniform(step, unbiased), EntropyCoder())
    stage = Eden(bits, unbiased)
    return branch(stage, codes=FixedWidth(stage.code_bits), rest=FixedWidth(max(stage.rest_bits, 1)))


def drive(*, unbiased: bool = True) -> Codec:
    """DRIVE: the signs of the randomly rotated vector, and a scale: `eden` with one bit.

    x^ = S R^T sign(R x) with S = |x|^2 / |R x|_1; not unbiased: |R x|_1 / n. For each block of at most 65,536.
    Rate: 1 bit per element, and 32 bits for each block and 64 for the key. Error for any x: nmse pi / 2 - 1 = 0.571;
    not unbiased 1 - 2 / pi = 0.363. Does not commute with the sum: each encoding has its own rotation.
    Source: Vargaftik et al. 2021, "DRIVE: One-bit distributed mean estimation", section 4.

    Args:
      unbiased: whether the scale makes the estimate unbiased; if not, closest.
    """
    return eden(1, unbiased=unbiased)

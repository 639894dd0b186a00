"""Ready-made codecs."""

from laconic.codecs._codec import Codec, chain
from laconic.codecs._coders import FixedWidth, Raw
from laconic.codecs._stages import Identity, UniformQuantizer


def identity() -> Codec:
    """The array as it is: lossless, `8 * itemsize` bits per element, any dtype; commutes with the sum."""
    return chain(Identity(), Raw())


def uniform_quantization(
    bits: int = 8,
    *,
    value_range: tuple[float, float] | None = None,
    stochastic: bool = True,
    packing: str = "dense",
) -> Codec:
    """Uniform quantization to `2**bits` levels, then `bits` bits per element.

    Rate: `bits` bits per element, and 64 bits for the range unless it is given; with `packing="tff"` `bits * 32 / 28`.
    Error: with step s = (high - low) / (2**bits - 1), at most s (stochastic) or s / 2 (half to even); mean square about
    s**2 / 6 or s**2 / 12. Unbiased if stochastic and no range is given. Commutes with the sum only with a given range.
    Source: Suresh et al. 2017, "Distributed Mean Estimation with Limited Communication", section 2; TFF's
    `tensor_encoding.encoders.uniform_quantization`.

    Args:
      bits: width of a code, 1 to 16.
      value_range: (low, high) to quantize over, to which values are clipped; None for each tensor's own minimum and
        maximum.
      stochastic: whether to round stochastically; else half to even.
      packing: "dense", or "tff" for tensor_encoding's 28-bit limbs.

    Raises:
      ArgumentError: if an argument is out of range.
    """
    return chain(UniformQuantizer(bits, value_range, stochastic), FixedWidth(bits, packing))

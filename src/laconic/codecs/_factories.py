"""Where to start: codecs for a whole model, and the ones that need nothing but arithmetic."""

from laconic.codecs._arguments import only_one_given
from laconic.codecs._codec import Codec, branch, chain
from laconic.codecs._stage import Stage
from laconic.codecs._units import Concatenate
from laconic.codecs.coders._coder import FixedWidth, Raw
from laconic.codecs.coders._e8_coder import E8Coder
from laconic.codecs.coders._entropy_coder import EntropyCoder
from laconic.codecs.coders._row_column import RowColumn
from laconic.codecs.stages._adaptive import AdaptiveDithered, AdaptiveStochasticGrid
from laconic.codecs.stages._basic import Identity
from laconic.codecs.stages._e8 import DitheredLattice
from laconic.codecs.stages._grid import Dithered, StochasticGrid
from laconic.codecs.stages._karhunen_loeve import KarhunenLoeve
from laconic.codecs.stages._uniform_quantizers import UniformQuantizer
from laconic.errors import ArgumentError

# Where random rounding takes over from the dither: for clients' updates at about 0.9 bit and nmse 0.2, for Gaussian
# vectors at about 0.15 bit and nmse 30 (benchmarks/codecs/rate_distortion.py).
_LOW_RATE = 0.75
_HIGH_NMSE = 1.0


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

    Rate: `bits` bits per element, and 64 bits for the range unless it is given; with `packing="tff"` `bits * 32 / 28`;
    with `packing="entropy"` the entropy of the levels, which is seldom more than half of it.
    Error: with step s = (high - low) / (2**bits - 1), at most s (stochastic) or s / 2 (half to even); mean square about
    s**2 / 6 or s**2 / 12. Unbiased if stochastic and no range is given. Commutes with the sum only with a given range.
    Source: Suresh et al. 2017, "Distributed Mean Estimation with Limited Communication", section 2; TFF's
    `tensor_encoding.encoders.uniform_quantization`.

    Args:
      bits: width of a code, 1 to 16.
      value_range: (low, high) to quantize over, to which values are clipped; None for each tensor's own minimum and
        maximum.
      stochastic: whether to round stochastically; else half to even.
      packing: "dense", "tff" for tensor_encoding's 28-bit limbs, or "entropy" for an entropy coder.

    Raises:
      ArgumentError: if an argument is out of range.
    """
    coder = EntropyCoder() if packing == "entropy" else FixedWidth(bits, packing)
    return chain(UniformQuantizer(bits, value_range, stochastic), coder)


def dithered(
    *,
    step: float | None = None,
    step_in_rms: float | None = None,
    nmse: float | None = None,
    bits_per_parameter: float | None = None,
    lattice: str = "cubic",
) -> Codec:
    """Subtractive dithered quantization, entropy-coded given the dither (ECDQ): the choice for half a bit and more.

    q = Q(x / step - u); x^ = (q + u) step. With the cubic lattice Q rounds each entry, and u is uniform in
    [-1/2, 1/2). With E8, the best lattice known in eight dimensions, Q gives the nearest point for each eight entries,
    and u is uniform over its Voronoi cell. Both ends know u.
    Rate: above the least that any unbiased codec needs, log2(1 + 1 / nmse) / 2, at most 0.255 bit per parameter with
    the cubic lattice and about 0.15 with E8, for Gaussian values; less for values with structure. E8 takes two to three
    times as long.
    Error: nmse = G step**2 d / |x|^2 for every x, G being 1/12 or 929/12960. Unbiased for every x. Commutes with the
    sum if `step` is given.
    Source: Zamir and Feder 1992, "On universal quantization by randomized uniform/lattice quantizers", theorem 1.

    Args: one of the first four
      step: the step itself, common to all tensors and senders. One point of E8 has the volume step**8.
      step_in_rms: the step over the tensor's root mean square.
      nmse: the expected error over |x|^2.
      bits_per_parameter: the rate, the tensor's header and tables included.
      lattice: "cubic" or "E8".

    Raises:
      ArgumentError: if not exactly one of the first four is given, it is not above zero, or the lattice is unknown.
    """
    if lattice not in ("cubic", "E8"):
        raise ArgumentError(f"lattice must be 'cubic' or 'E8', got {lattice!r}")
    if lattice == "E8":
        return chain(DitheredLattice(step, step_in_rms, nmse, bits_per_parameter), E8Coder())
    return chain(Dithered(step, step_in_rms, nmse, bits_per_parameter), EntropyCoder())


def karhunen_loeve(step: float, *, rank: int = 32) -> Codec:
    """`dithered`, in the coordinates of a matrix's principal directions: for what training has changed in large layers.

    Of the matrix's singular vectors those travel that save more than they cost; what is left is coded by rows and
    columns (`RowColumn`). Arrays of fewer than two dimensions are dithered as they are.
    Rate: what 20 rounds of training have changed in a wide LSTM and a wide transformer takes 29 and 41 % fewer bytes
    than dithered and coded by rows and columns alone, in the tutorial's CNN 58 %
    (benchmarks/accuracy_per_byte/directions.py); matrices without structure take about as many, those of
    few different magnitudes, as after Adam's first step, up to two fifths more. Error: nmse = step**2 d / 12 / |x|^2,
    and unbiased, for every x. Does not commute with the sum.
    Source: Zamir and Feder 1992, as for `dithered`; the directions' rate is theirs, too (`KarhunenLoeve`).

    Args:
      step: in the unit of the entries.
      rank: directions at most, 1 to 256.

    Raises:
      ArgumentError: if an argument is out of range.
      ArgumentTypeError: if one is of the wrong kind.
    """
    below = chain(Dithered(step), RowColumn())
    return branch(KarhunenLoeve(rank, step * step / 12), values=below, basis=RowColumn())


def stochastic_grid(
    *,
    step: float | None = None,
    step_in_rms: float | None = None,
    nmse: float | None = None,
    bits_per_parameter: float | None = None,
) -> Codec:
    """Stochastic rounding to an unbounded grid, entropy-coded: the choice below half a bit per parameter.

    q = floor(x / step + v) with v uniform in [0, 1); x^ = q step. With a step of 64 root mean squares, updates of the
    tutorial's model take about 0.05 bit per parameter.
    Rate: found by the coder; falls with the step. Error: step**2 sum f (1 - f) with f the fractional part of x / step;
    step |x|_1 - |x|^2 once the step exceeds all entries. Unbiased for every x. Commutes with the sum if `step` is
    given.
    Source: the rounding is that of QSGD (Alistarh et al. 2017, section 3.1), on a grid without end.

    Args: as for `dithered`.

    Raises:
      ArgumentError: if not exactly one is given, or it is not above zero.
    """
    return chain(StochasticGrid(step, step_in_rms, nmse, bits_per_parameter), EntropyCoder())


def adaptive(
    quantizer: str = "dithered",
    *,
    nmse: float | None = None,
    bits_per_parameter: float | None = None,
    rate_penalty: float | None = None,
    decay: float | None = None,
    initial_step: float | None = None,
) -> Codec:
    """`dithered` or `stochastic_grid` with one step for all clients, which the server moves after each round.

    The aim is one of: an error (`nmse`), after which the step follows errors that clients report; a rate
    (`bits_per_parameter`), after which it follows the bytes that the server counts; the cheapest of error plus
    `rate_penalty` times rate, for which each client votes between a finer, the same and a coarser step (Mitchell et al.
    2022, "Optimizing the Communication-Accuracy Trade-off in Federated Learning with Rate-Distortion Theory", section
    4); or a schedule, `initial_step * decay**round`. A step never moves more than sixteenfold in one round.

    Rate, error and bias are those of the quantizer; a client also reports 16 bytes, and is told 4. Commutes with the
    sum if `initial_step` is given; if not, clients take steps of their own in the first round.

    Args:
      quantizer: "dithered" or "stochastic_grid".
      nmse: the expected error over |x|^2 to hold.
      bits_per_parameter: the rate to hold.
      rate_penalty: what a bit per parameter is worth, in nmse.
      decay: what the step is multiplied by after each round.
      initial_step: of the first round.

    Raises:
      ArgumentError: if the quantizer is unknown, there is not exactly one aim, or a number is not above zero.
    """
    stages = {"dithered": AdaptiveDithered, "stochastic_grid": AdaptiveStochasticGrid}
    if quantizer not in stages:
        raise ArgumentError(f"quantizer must be one of {', '.join(map(repr, stages))}, got {quantizer!r}")
    return chain(stages[quantizer](initial_step, nmse, bits_per_parameter, rate_penalty, decay), EntropyCoder())


def concatenate(codec: Codec | Stage, *, group: int = 0) -> Codec:
    """Encodes all tensors that are given this codec as one vector: one step, one table, one header for all.

    Rate, error, bias and whether it commutes with the sum are those of `codec`. One step for all tensors is also what
    divides a given rate best among them (reverse water-filling; Cover and Thomas 2006, section 10.3.3).

    Args:
      codec: of the vector.
      group: tensors whose codecs differ in it make different vectors.
    """
    return chain(Concatenate(group), chain(codec) if isinstance(codec, Stage) else codec)


def auto(*, bits_per_parameter: float | None = None, nmse: float | None = None) -> Codec:
    """The codec to begin with: for a whole model, at a promised rate or error.

    All tensors as one vector, rounded without bias with one step, entropy-coded: `stochastic_grid` where few bits are
    to be spent, else `dithered` (docs/choosing-a-codec.md has the curves).
    Rate: `bits_per_parameter` within 3 %, real bytes with all headers and tables, in expectation: what few numbers take
    varies by chance, of 1,000 by some bytes; vectors too small for the rate take as little as they can. Or error:
    `nmse` in expectation. Unbiased for every input. Does not commute with the sum, since the step follows the values.

    Args: one of
      bits_per_parameter: bits per parameter of the whole model.
      nmse: E|x^ - x|^2 / |x|^2 over the whole model.

    Raises:
      ArgumentError: if not exactly one is given, or it is not above zero.
    """
    only_one_given("auto", {"bits_per_parameter": bits_per_parameter, "nmse": nmse})
    is_low = bits_per_parameter < _LOW_RATE if bits_per_parameter is not None else (nmse or 0) > _HIGH_NMSE
    quantization = stochastic_grid if is_low else dithered
    return concatenate(quantization(nmse=nmse, bits_per_parameter=bits_per_parameter))

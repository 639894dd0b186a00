"""Ready-made codecs of the literature's quantizers and sparsifiers.

Rates and errors in the docstrings are for n independent Gaussian entries; what they leave out are a few bytes of side
information and coding tables.
"""

from laconic.codecs._codec import Codec, branch, chain
from laconic.codecs._stage import Stage
from laconic.codecs.coders._coder import Coder, FixedWidth, Raw
from laconic.codecs.coders._entropy_coder import EntropyCoder
from laconic.codecs.coders._sparse_values import SparseValues
from laconic.codecs.stages._classic_quantizers import Cast, Natural, Qsgd, Sign, Ternary
from laconic.codecs.stages._count_sketch import CountSketch
from laconic.codecs.stages._low_rank import LowRank
from laconic.codecs.stages._sparsifiers import RandomK, SharedRandomK, SparseTernary, Threshold, TopK
from laconic.errors import ArgumentTypeError

Values = str | Stage | Codec | Coder | None
"""How a sparsifier's values travel: as they are (None), cast to a dtype, or by any stage, codec or coder."""


def cast(dtype: str = "bfloat16", *, stochastic: bool = False) -> Codec:
    """Floats in a narrower dtype; those that are as narrow already stay as they are.

    Rate: 16 bits per element, or 32. Error: |x^ - x| <= 2**-p |x| with p = 11, 8 or 24 for float16, bfloat16 or
    float32 (twice that if stochastic); nmse 0.045 * 4**(1 - p), 4.3e-8, 2.8e-6 or 6.4e-16. float16 errs by up to 3e-8
    more below 6e-5, and values that the dtype cannot hold are an error. Biased, unless stochastic. Commutes with the
    sum, which is kept in 32 bits or more.
    Source: IEEE 754; Gupta et al. 2015, "Deep learning with limited numerical precision", section 3, for stochastic
    rounding.

    Args:
      dtype: "float16", "bfloat16" or "float32".
      stochastic: whether to round to one of the two neighbours at random; for bfloat16.

    Raises:
      ArgumentError: if the dtype is none of these, or stochastic not for bfloat16.
    """
    return chain(Cast(dtype, stochastic), Raw())


def qsgd(levels: int = 15, bucket_size: int | None = 128) -> Codec:
    """QSGD: magnitudes over their bucket's L2 norm, rounded at random to multiples of 1 / levels, entropy-coded.

    x^_i = |x|_2 sign(x_i) q_i / levels with E[q_i] = levels |x_i| / |x|_2, for each bucket.
    Rate: for buckets of 128 and levels 1, 7, 15 and 127, 0.69, 1.87, 2.77 and 5.79 bits, the norms' 32 / 128 bits
    included. Error: at most min(b / levels**2, sqrt(b) / levels) |x|^2 for a bucket of b; for these levels nmse 8.0,
    0.435, 0.095 and 0.00132. Unbiased. Does not commute with the sum, since clients' norms differ.
    Source: Alistarh et al. 2017, "QSGD: Communication-efficient SGD via gradient quantization and encoding",
    section 3.1 and lemma 3.1.

    Args:
      levels: steps from 0 to the norm, 1 to 32767.
      bucket_size: consecutive entries that share a norm, which travels as a float; None for all of the tensor.

    Raises:
      ArgumentError: if an argument is out of range.
    """
    return chain(Qsgd(levels, bucket_size), EntropyCoder())


def ternary(clip: float | None = None) -> Codec:
    """TernGrad: each entry becomes zero or sign(x_i) max|x|, the latter with probability |x_i| / max|x|.

    Rate: entropy of -1, 0, 1 with that probability, less the larger max|x|: 0.82 bits at n = 1e6; with clip=2.5, 1.22.
    Error: max|x| |x|_1 - |x|^2; nmse 3.0 at n = 1e6; with clip=2.5, 1.0. Unbiased, but biased with clip. Does not
    commute with the sum, since clients' scales differ.
    Source: Wen et al. 2017, "TernGrad: Ternary gradients to reduce communication in distributed deep learning",
    equation 3, and section 4 for clipping.

    Args:
      clip: entries are clipped to this many root mean squares first (the paper: 2.5 standard deviations); None for
        no clipping.

    Raises:
      ArgumentError: if clip is not above zero.
    """
    return chain(Ternary(clip), EntropyCoder())


def sign() -> Codec:
    """One bit per element: the sign times the mean magnitude |x|_1 / n.

    Rate: 1 bit. Error: |x|^2 - |x|_1^2 / n; nmse 1 - 2 / pi = 0.363. Biased: use it with error feedback. Does not
    commute with the sum.
    Source: Karimireddy et al. 2019, "Error feedback fixes SignSGD and other gradient compression schemes", section 4;
    Seide et al. 2014, "1-bit stochastic gradient descent".
    """
    return chain(Sign(), FixedWidth(1))


def natural() -> Codec:
    """Natural compression: |x| rounded at random to one of the powers of two around it, entropy-coded.

    Rate: 9 bits fixed (sign and exponent of float32); 3.6 entropy-coded. Error: at most |x|^2 / 8; nmse 0.082.
    Unbiased. Does not commute with the sum.
    Source: Horváth et al. 2019, "Natural compression for distributed deep learning", definition 1 and theorem 1.
    """
    return chain(Natural(), EntropyCoder())


def top_k(fraction: float = 0.01, *, values: Values = None) -> Codec:
    """The k = max(1, round(fraction n)) entries of largest magnitude; zero for the others.

    Rate: with q = k / n, H(q) bits for positions and q times those of a value: with float32, 3.67, 0.40 and 0.043 bits
    for q = 0.1, 0.01 and 0.001. Error: at most (1 - q) |x|^2; nmse 0.56, 0.916 and 0.987. Biased: use it with error
    feedback. Does not commute with the sum.
    Source: Aji and Heafield 2017, "Sparse communication for distributed gradient descent"; Stich et al. 2018,
    "Sparsified SGD with memory", equation 7 for the bound.

    Args:
      fraction: above 0, up to 1.
      values: "float32", "float16" or "bfloat16", or a stage, codec or coder for the vector of the k values; None for
        the values as they are.

    Raises:
      ArgumentError: if the fraction is out of range, or the dtype unknown.
      ArgumentTypeError: if values is something else.
    """
    return branch(TopK(fraction), gaps=EntropyCoder(), values=values_codec(values))


def threshold(value: float, *, values: str | None = None) -> Codec:
    """Entries of magnitude above a value; zero for the others. The bytes depend on how many there are.

    Rate: with q the share that is kept, H(q) bits for positions and q times those of a value. Error: the energy of
    what is left out, at most n value**2. Biased: use it with error feedback. Commutes with the sum.
    Source: Strom 2015, "Scalable distributed DNN training using commodity GPU cloud computing", section 3; Sahu et
    al. 2021, "Rethinking gradient sparsification as total error minimization".

    Args:
      value: 0 or more; 0 leaves out zeros alone.
      values: "float32", "float16" or "bfloat16"; None for the values as they are.

    Raises:
      ArgumentError: if the value is negative or not finite, or the dtype unknown.
    """
    stages = [Threshold(value)] if values is None else [Threshold(value), Cast(values)]
    return chain(*stages, SparseValues())


def random_k(fraction: float = 0.01, *, seed: int | None = None, values: Values = None) -> Codec:
    """Random entries, k = max(1, round(fraction n)) of them, times n / k; both ends draw the positions.

    Rate: with q = k / n, q times the bits of a value: 32 q for float32; 8 bytes a payload for the key.
    Error: (1 / q - 1) |x|^2, for every x.

    Without a seed every client draws its own positions from its key: unbiased, with errors that average out over
    clients; does not commute with the sum. With a seed, all clients of a round share positions, drawn from the seed
    and the round's number, which the server tells: encodings commute with the sum, as secure aggregation needs, but
    errors average out over rounds only, and no single decoding is called unbiased.
    Source: Konečný et al. 2016, "Federated learning: Strategies for improving communication efficiency", section 2
    (random mask); Wangni et al. 2018, "Gradient sparsification for communication-efficient distributed optimization".

    Args:
      fraction: above 0, up to 1.
      seed: 0 or more, below 2**63; None for each client's own positions.
      values: "float32", "float16" or "bfloat16", or a stage, codec or coder for the vector of the k values; None for
        the values as they are.

    Raises:
      ArgumentError: if an argument is out of range.
      ArgumentTypeError: if values is something else.
    """
    stage = RandomK(fraction) if seed is None else SharedRandomK(fraction, seed)
    return branch(stage, values=values_codec(values))


def sparse_ternary(fraction: float = 0.01) -> Codec:
    """Sparse ternary compression: the k largest entries as sign(x_i) mu, mu their mean magnitude.

    k = max(1, round(fraction n)). Rate: with q = k / n, H(q) + q bits: 0.58, 0.092 and 0.0125 for q = 0.1, 0.01 and
    0.001. Error: |x|^2 - k mu^2; nmse 0.575, 0.916 and 0.987. Biased: use it with error feedback. Does not commute
    with the sum.
    Source: Sattler et al. 2019, "Robust and communication-efficient federated learning from non-i.i.d. data",
    algorithm 1.

    Args:
      fraction: above 0, up to 1.

    Raises:
      ArgumentError: if the fraction is out of range.
    """
    return chain(SparseTernary(fraction), EntropyCoder())


def low_rank(rank: int = 2, *, iterations: int = 1, warm_start: bool = False, values: Values = None) -> Codec:
    """PowerSGD: a matrix M [m, n] as P Q^T, P orthonormal [m, rank], by power iteration.

    Dimensions but the last are joined to one; arrays of fewer than two dimensions, or of no more entries than P and Q,
    travel as they are. Rate: rank (m + n) / (m n) times the bits of a value. Error: |M - P P^T M|^2, no less than the
    energy of all but the `rank` largest singular values. Biased: use it with error feedback. Does not commute with
    the sum, since each client has its own P.
    Source: Vogels et al. 2019, "PowerSGD: Practical low-rank gradient compression for distributed optimization",
    algorithm 1, and section 4.2 for the warm start.

    Args:
      rank: 1 or more.
      iterations: 1 or more.
      warm_start: whether each client begins with the Q of its last encoding, its memory between rounds; otherwise Q
        is random.
      values: "float32", "float16" or "bfloat16", or a stage, codec or coder for P and Q each; None for both as they
        are, in float32 or wider.

    Raises:
      ArgumentError: if an argument is out of range.
      ArgumentTypeError: if an argument is of the wrong kind.
    """
    factor = values_codec(values)
    return branch(LowRank(rank, iterations, warm_start), left=factor, right=factor)


def count_sketch(
    rows: int = 5,
    *,
    columns: int | None = None,
    fraction: float = 0.1,
    keep: float = 0.01,
    momentum: float = 0.0,
    seed: int = 0,
    values: Values = None,
) -> Codec:
    """FetchSGD: clients send a count sketch; the server takes the largest entries out of the sum, and keeps the rest.

    Row j adds entry i times a random sign to column h_j(i); the server's estimate is the median over rows. It holds
    momentum and error as sketches, so clients keep nothing. Rate: rows columns / n times the bits of a value: 32
    fraction for float32. Error of an estimate: at most about 2 |x| / sqrt(columns) for most entries; what is not
    taken out comes in later rounds. Biased in each round. Encodings commute with the sum: sketches add. The decoded
    sum is no sum of decodings, and depends on earlier sums, so there must be one receiver: not for broadcasts. Join
    all tensors with `chain(Concatenate(), count_sketch())`.
    Source: Rothchild et al. 2020, "FetchSGD: Communication-efficient federated learning with sketching", algorithm 1;
    Charikar et al. 2002, "Finding frequent items in data streams".

    Args:
      rows: estimates to take the median of, 1 to 63.
      columns: of each row; None for `fraction`.
      fraction: the sketch's size over the tensor's, where columns are not given.
      keep: share of entries that the server takes out of a sum.
      momentum: 0 to below 1; the server's, in place of the clients'.
      seed: of signs and columns, the same for all clients and rounds.
      values: "float32", "float16" or "bfloat16", or a stage, codec or coder for the sketch; None for the sketch as it
        is, in float32 or wider.

    Raises:
      ArgumentError: if an argument is out of range.
      ArgumentTypeError: if an argument is of the wrong kind.
    """
    return branch(CountSketch(rows, columns, fraction, keep, momentum, seed), sketch=values_codec(values))


def values_codec(values: Values) -> Codec | Coder:
    """What encodes a vector of values: nothing, a cast, or what was given.

    Raises:
      ArgumentError: if it names an unknown dtype.
      ArgumentTypeError: if it is none of the kinds.
    """
    if values is None:
        return Raw()
    if isinstance(values, str):
        return chain(Cast(values), Raw())
    if isinstance(values, Stage):
        return chain(values)
    if isinstance(values, (Codec, Coder)):
        return values
    raise ArgumentTypeError(
        "values must be the name of a dtype, a stage, codec or coder, got "
        f"{values!r:.60} of type {type(values).__name__}"
    )

"""What was promised of the codecs, and what is measured: a line each.

    python -m benchmarks.codecs.claims --data ../shared/data/femnist_digits.npz [--only low-rate coder ...]

Sizes are of payloads between ends that have bound the same codec, headers, tables and seed included, unless a line says
`described`. Rates are bits per parameter. Exits with status 1 if something does not hold.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import _report
from benchmarks.codecs import measure, our_codecs, training, vectors
from benchmarks.codecs.our_codecs import Entry
from benchmarks.codecs.round_trips import Trip, round_trip
from laconic import codecs

RESULTS = Path(__file__).parent / "results"
LARGE = 2**20
LOW_RATE = 0.05
PROMISE = 0.03
WORD = 4  # bytes of which an entropy coder's output is made
SMALLEST = 16  # bytes of an empty payload: frame and key
EXACT = 1e-10  # of nmse: what float32 itself loses, more or less
GAP, LATTICE_GAP = 0.27, 0.17
RATIO = 4.5
AUTO_RATES = (0.05, 0.25, 1.0, 2.0, 4.0)
AUTO_NMSE = (1.0, 0.1, 0.01)


class Claim(NamedTuple):
    """A line: what was asked, what came out, and whether that is enough; None where it could not be measured."""

    subject: str
    asked: str
    measured: str
    holds: bool | None


class Options(NamedTuple):
    """What the command line says."""

    data: Path | None
    seeds: range
    max_size: int


def _trips(codec: Any, x: Any, seeds: range) -> tuple[codecs.BoundCodec, list[Trip]]:
    bound = codecs.bind(codec, x)
    return bound, [round_trip(bound, x, seed) for seed in seeds]


def _means(x: np.ndarray, trips: list[Trip]) -> tuple[float, float]:
    """Bits per parameter, and NMSE."""
    rate = 8 * float(np.mean([trip.nbytes for trip in trips])) / x.size
    return rate, float(np.mean([measure.nmse(x, trip.decoded) for trip in trips]))


def gap(options: Options) -> Iterator[Claim]:
    """Unbiased, at R >= 1: the distance from 1/2 log2(1 + 1/nmse) on Gaussian data."""
    x = vectors.vector("gaussian", LARGE)
    for limit, others, name in ((GAP, {}, "dithered"), (LATTICE_GAP, {"lattice": "E8"}, "E8 lattice (stretch)")):
        for distortion in our_codecs.CLAIMED_NMSE:
            subject = f"{name}, nmse {distortion}, Gaussian, d = 2^20"
            asked = f"unbiased, within {limit} bit of the bound"
            with _Guard(subject, asked) as guard:
                codec = Entry("dithered", (("nmse", distortion), *others.items())).codec
                bound, trips = _trips(codec, x, options.seeds)
                rate, measured = _means(x, trips)
                distance = rate - measure.shannon_rate(measured, unbiased=True)
                unbiased = bound.codecs[0].is_unbiased
                guard.found(
                    f"{distance:.4f} bit ({rate:.4f} bits, nmse {measured:.5f})", distance <= limit and unbiased
                )
            yield guard.claim


def error_at_rate(options: Options) -> Iterator[Claim]:
    """The error at 1, 2, 3 and 4 bits, against EDEN's."""
    x = vectors.vector("gaussian", LARGE)
    for rate, limit in our_codecs.CLAIMED_NMSE_AT_RATE.items():
        eden = our_codecs.EDEN_NMSE_AT_RATE[rate]
        with _Guard(f"dithered at {rate:g} bits, Gaussian, d = 2^20", f"nmse at most {limit} (EDEN {eden})") as guard:
            codec = Entry("dithered", (("bits_per_parameter", rate),)).codec
            _, trips = _trips(codec, x, options.seeds)
            bits, distortion = _means(x, trips)
            guard.found(f"nmse {distortion:.5f} at {bits:.4f} bits", distortion <= limit and bits <= 1.005 * rate)
        yield guard.claim


def coder(options: Options) -> Iterator[Claim]:
    """The coder's bytes, tables included, over the empirical entropy given the dither."""
    choices = [
        *(Entry("dithered", (("nmse", distortion),)) for distortion in (3.0, *our_codecs.CLAIMED_NMSE, 0.0003)),
        *(Entry("stochastic_grid", (("nmse", distortion),)) for distortion in (0.1, 1.0, 10.0, 50.0)),
    ]
    for size, limit in ((LARGE, 0.01), (100_000, 0.03)):
        x = vectors.vector("gaussian", size)
        for entry in choices:
            with _Guard(f"coder under {entry.label}, d = {size:,}", f"{100 * limit:g} % above the entropy") as guard:
                guard.found(*_over_entropy(entry.codec, x, limit))
            yield guard.claim
        with _Guard(f"coder under 8-bit uniform, d = {size:,}", f"{100 * limit:g} % above the entropy") as guard:
            codec = Entry("uniform_quantization", (("bits", 8), ("packing", "entropy"))).codec
            guard.found(*_over_entropy(codec, x, limit))
        yield guard.claim
    del options


def _over_entropy(codec: codecs.Codec, x: np.ndarray, limit: float) -> tuple[str, bool]:
    last, codes, contexts = our_codecs.coded(codec, x, 0)
    nbytes = len(last.encode(codes, contexts))
    ideal = measure.entropy(codes, contexts) / 8
    excess = nbytes / ideal - 1
    return f"{100 * excess:.3f} % ({nbytes:,} bytes, {8 * nbytes / x.size:.4f} bits)", excess <= limit


def small(options: Options) -> Iterator[Claim]:
    """A tensor of 100 elements: what the coder adds to codes of fixed width."""
    x = vectors.vector("gaussian", 100_000)[:100]
    entries = [
        *(Entry("dithered", (("nmse", distortion),)) for distortion in (*our_codecs.CLAIMED_NMSE, 0.0003)),
        *(Entry("stochastic_grid", (("nmse", distortion),)) for distortion in (1.0, 10.0)),
    ]
    for entry in entries:
        asked = "at most 16 bytes more than its raw codes"
        with _Guard(f"coder under {entry.label}, 100 elements", asked) as guard:
            worst, report = -np.inf, ""
            bound = codecs.bind(entry.codec, x)
            for seed in range(20):
                last, codes, contexts = our_codecs.coded(entry.codec, x, seed)
                width = max(1, int(np.ptp(codes.astype(np.int64))).bit_length())
                nbytes, raw = len(last.encode(codes, contexts)), -(-100 * width // 8)
                if nbytes - raw > worst:
                    worst = nbytes - raw
                    whole = len(bound.encode(x, key=codecs.random.key(seed))[0])
                    report = (
                        f"{nbytes - raw:+d} bytes at worst of 20 seeds (coded {nbytes}, raw {raw}, payload {whole})"
                    )
            guard.found(report, worst <= 16)
        yield guard.claim
    del options


def low_rate(options: Options) -> Iterator[Claim]:
    """Real updates at 0.05 bit per parameter, all in, unbiased."""
    for factory in ("stochastic_grid", "auto"):
        entry = Entry(factory, (("bits_per_parameter", LOW_RATE),))
        for name in vectors.UPDATES:
            asked = f"{LOW_RATE} bit per parameter all in, unbiased"
            with _Guard(f"{entry.label}, {name} as one vector", asked) as guard:
                x = vectors.vector(name, max(vectors.SIZES), options.data)
                guard.found(*_low_rate(entry.codec, x))
            yield guard.claim
            with _Guard(f"concatenate({entry.label}), {name} as 8 tensors", asked) as guard:
                tensors = vectors.tensors(name, options.data)
                concatenated = Entry("concatenate", (("codec", entry.codec),)).codec
                guard.found(*_low_rate(concatenated, tensors))
            yield guard.claim


def _low_rate(codec: Any, tree: Any) -> tuple[str, bool]:
    vector = tree if isinstance(tree, np.ndarray) else training.as_vector(tree)
    bound, trips = _trips(codec, tree, range(10))
    decoded = [_as_vector(trip.decoded, tree) for trip in trips]
    distortion = float(np.mean([measure.nmse(vector, each) for each in decoded]))
    of_mean = measure.nmse(vector, np.mean(decoded, axis=0))
    rate = 8 * float(np.mean([trip.nbytes for trip in trips])) / vector.size
    # Encoded anew: the promise counts the description where it travels.
    described_nbytes = [len(codecs.encode(tree, codec, seed=seed)) for seed in range(3)]
    described = 8 * float(np.mean(described_nbytes)) / vector.size
    unbiased = all(codec.is_unbiased for codec in bound.codecs)
    report = (
        f"{rate:.5f} bit, described {described:.5f} ({trips[0].nbytes:,} and {described_nbytes[0]:,} bytes; "
        f"{32 / rate:.0f} x smaller than fp32), nmse {distortion:.2f}, of the mean of {len(trips)} draws {of_mean:.3f}"
    )
    # Independent unbiased errors: the mean's is that of one divided by how many there are, but for chance.
    averages = of_mean <= 1.25 * distortion / len(trips)
    within = rate <= LOW_RATE * 1.005 and described <= LOW_RATE * 1.005
    return report, within and unbiased and averages


def _as_vector(decoded: Any, tree: Any) -> np.ndarray:
    return decoded if isinstance(tree, np.ndarray) else training.as_vector({name: decoded[name] for name in tree})


class _Sizes(NamedTuple):
    """Bytes of a tree: in fp32, in TFF's packing, with our coder, and as the entropy of its codes allows."""

    fp32: float
    tff: float
    ours: float
    ideal: float

    def __str__(self) -> str:
        theirs, ours, ideal = (self.fp32 / each for each in self[1:])
        return f"{ours:.3f} x (TFF's packing {theirs:.3f} x, the codes' entropy allows {ideal:.3f} x)"


def tutorial(options: Options) -> Iterator[Claim]:
    """The tutorial's 8-bit codes, entropy-coded, both ways: bytes against TFF's packing, and what is decoded."""
    asked = f"at least {RATIO} x smaller than fp32, decoded values identical"
    rounds: list[_Sizes] = []
    for round_number in training.ROUNDS:
        with _Guard(f"tutorial's 8 bits, both ways in round {round_number}", asked) as guard:
            if options.data is None:
                raise ValueError("needs --data")
            captured = training.captured(options.data, "8bit")
            (down, down_same), (up, up_same) = (
                _eight_bits(captured[kind, round_number]) for kind in ("model", "update")
            )
            both = _added([down, up])
            rounds.append(both)
            holds = both.fp32 / both.ours >= RATIO and down_same and up_same
            guard.found(f"{both}; down {down}; up {up}", holds)
        yield guard.claim
    if rounds:
        total = _added(rounds)
        subject = f"tutorial's 8 bits, rounds {', '.join(map(str, training.ROUNDS))} together"
        yield Claim(subject, asked, str(total), total.fp32 / total.ours >= RATIO)


def _eight_bits(tensors: training.Tensors) -> tuple[_Sizes, bool]:
    """What the tree takes, and whether both ways of coding decode to the same."""
    theirs, ours = (
        round_trip(codecs.bind(our_codecs.tutorial_codec(packing), tensors), tensors, 0)
        for packing in ("tff", "entropy")
    )
    ideal = 0.0
    for tensor in tensors.values():
        codec = our_codecs.tutorial_codec("dense")(codecs.TensorSpec("", tensor.shape, tensor.dtype))
        ideal += tensor.nbytes if codec.is_lossless else measure.entropy(our_codecs.coded(codec, tensor, 0)[1]) / 8
    fp32 = sum(tensor.nbytes for tensor in tensors.values())
    same = all(np.array_equal(theirs.decoded[name], ours.decoded[name]) for name in tensors)
    return _Sizes(fp32, theirs.nbytes, ours.nbytes, ideal), same


def _added(sizes: list[_Sizes]) -> _Sizes:
    return _Sizes(*(sum(column) for column in zip(*sizes, strict=True)))


def auto(options: Options) -> Iterator[Claim]:
    """The promise of `auto`, over all vectors."""
    names = vectors.NAMES if options.data else tuple(vectors.DISTRIBUTIONS)
    targets = [("bits_per_parameter", rate) for rate in AUTO_RATES] + [("nmse", target) for target in AUTO_NMSE]
    for argument, target in targets:
        entry = Entry("auto", ((argument, target),))
        for size in vectors.SIZES:
            if size > options.max_size:
                continue
            asked = f"within {100 * PROMISE:g} % on {len(names)} vectors (bytes: or one coder's word, 4 bytes)"
            with _Guard(f"{entry.label}, d = {size:,}", asked) as guard:
                misses = {name: _miss(entry.codec, argument, target, name, size, options) for name in names}
                worst = max(misses, key=lambda name: abs(misses[name]))
                broken = [f"{name} {100 * miss:+.1f} %" for name, miss in misses.items() if abs(miss) > PROMISE]
                text = f"worst {100 * misses[worst]:+.2f} % ({worst})"
                guard.found(text + (f"; broken: {', '.join(broken)}" if broken else ""), not broken)
            yield guard.claim


def _miss(codec: Any, argument: str, target: float, name: str, size: int, options: Options) -> float:
    """How far off, as a share of the target; what neither can nor should be kept to is none.

    A payload's frame and key are 16 bytes, and a vector that is right to float32's precision needs no more bytes.
    """
    x = vectors.vector(name, size, options.data)
    # What few numbers take, and their error, vary with the draw: it is the expected ones that are promised.
    seeds = options.seeds if size > 10_000 else range(50)
    _, trips = _trips(codec, x, seeds)
    rate, distortion = _means(x, trips)
    if argument == "nmse":
        return distortion / target - 1
    nbytes, asked_nbytes = rate * size / 8, target * size / 8
    is_smallest = asked_nbytes < SMALLEST and nbytes <= 2 * SMALLEST
    is_exact = nbytes < asked_nbytes and distortion < EXACT
    return 0.0 if is_smallest or is_exact or abs(nbytes - asked_nbytes) <= WORD else nbytes / asked_nbytes - 1


class _Guard:
    """Makes a claim's line even if measuring it fails."""

    def __init__(self, subject: str, asked: str):
        self.claim = Claim(subject, asked, "", None)

    def found(self, measured: str, holds: bool) -> None:
        self.claim = self.claim._replace(measured=measured, holds=bool(holds))

    def __enter__(self) -> "_Guard":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        del kind, trace
        if isinstance(error, Exception):
            text = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            self.claim = self.claim._replace(measured=text, holds=None)
            return True
        return False


SECTIONS: dict[str, Callable[[Options], Iterator[Claim]]] = {
    "gap": gap,
    "error-at-rate": error_at_rate,
    "coder": coder,
    "small": small,
    "low-rate": low_rate,
    "tutorial": tutorial,
    "auto": auto,
}
VERDICTS = {True: "holds", False: "**does not hold**", None: "**not measured**"}


def main() -> None:
    """Measures, prints a line for each claim as it is known, writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=_report.data_file, help="a data file, such as femnist_digits.npz; without it, no updates"
    )
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="only these claims")
    parser.add_argument("--seeds", type=int, default=3, help="how many draws a figure is the mean of")
    parser.add_argument("--max-size", type=int, default=max(vectors.SIZES), help="of the vectors for auto")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write to")
    arguments = parser.parse_args()
    options = Options(arguments.data, range(arguments.seeds), arguments.max_size)
    claims = []
    for section in arguments.only:
        for claim in SECTIONS[section](options):
            claims.append(claim)
            print(f"{VERDICTS[claim.holds]}: {claim.subject}: asked {claim.asked}; {claim.measured}", flush=True)
    lines = [(claim.subject, claim.asked, claim.measured, VERDICTS[claim.holds]) for claim in claims]
    arguments.results.mkdir(parents=True, exist_ok=True)
    text = _report.table(("claim", "asked", "measured", ""), lines)
    if set(arguments.only) == set(SECTIONS):
        (arguments.results / "claims.md").write_text(f"# Claims\n\n{text}\n")
        _report.write(arguments.results / "claims.json", {"claims": [claim._asdict() for claim in claims]})
    failing = [claim for claim in claims if not claim.holds]
    print(f"{len(claims) - len(failing)} of {len(claims)} hold")
    sys.exit(1 if failing else 0)


if __name__ == "__main__":
    main()

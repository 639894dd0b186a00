"""Lossless coders on the same integer codes: Laconic's, constriction and zstd called directly, and the entropy.

    python -m benchmarks.codecs.coders [--data ../shared/data/femnist_digits.npz]

The codes are rint(x / step - u) of Gaussian x and dither u, whose eighths are the coders' contexts; codes of stochastic
rounding at a step of 64 root mean squares, most of them 0; and with --data, the 8-bit codes of a client's update.
Entropies are empirical: the bytes of an ideal coder that knows the histogram for nothing. constriction's tables are
counted as two bytes for each symbol between the smallest and the largest, for each context. Speeds are MB/s of the fp32
values that the codes stand for, best of the repetitions.
"""

import argparse
import csv
import importlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import _report
from benchmarks.codecs import measure, our_codecs, vectors
from laconic import codecs

# By name, since neither has types.
constriction: Any = importlib.import_module("constriction")
zstandard: Any = importlib.import_module("zstandard")

RESULTS = Path(__file__).parent / "results"
SIZES = (100, 100_000, 2**20)
CONTEXTS = 8


class Codes(NamedTuple):
    """What is coded."""

    name: str
    values: np.ndarray
    contexts: np.ndarray | None


def gaussian_codes(size: int) -> Iterator[Codes]:
    """Dithered codes at the claimed errors, and a sparse grid's."""
    generator = np.random.Generator(np.random.PCG64([1, size]))
    x = generator.standard_normal(size)
    for distortion in our_codecs.CLAIMED_NMSE:
        dither = generator.uniform(-0.5, 0.5, size)
        codes = np.rint(x / math.sqrt(12 * distortion) - dither).astype(np.int32)
        contexts = np.floor((dither + 0.5) * CONTEXTS).astype(np.uint8)
        yield Codes(f"dithered, nmse {distortion}", codes, contexts)
    yield Codes("grid of 64 rms", np.floor(x / 64 + generator.uniform(size=size)).astype(np.int32), None)


def eight_bit_codes(x: np.ndarray) -> Codes:
    """The tutorial's quantization of a tensor."""
    coder, codes, _ = our_codecs.coded(codecs.uniform_quantization(8), x, 0)
    del coder
    return Codes("8 bit, client's update in round 30", codes, None)


class Result(NamedTuple):
    """A coder's bytes, and seconds there and back."""

    nbytes: float
    encode: float = math.nan
    decode: float = math.nan


def _timed(encode: Callable[[], Any], decode: Callable[[Any], Any], size: Callable[[Any], int], count: int) -> Result:
    encoding, decoding = [], []
    for _ in range(count):
        started = time.perf_counter()
        coded = encode()
        encoding.append(time.perf_counter() - started)
        started = time.perf_counter()
        decode(coded)
        decoding.append(time.perf_counter() - started)
    return Result(size(coded), min(encoding), min(decoding))


def _laconic(coder: codecs.Coder, codes: Codes, count: int) -> Result:
    contexts = codes.contexts if coder.uses_contexts else None
    spec = codecs.TensorSpec("", codes.values.shape, codes.values.dtype)
    coder.check(spec)
    blob = bytes(coder.encode(codes.values, contexts))
    if not np.array_equal(coder.decode(memoryview(blob), spec, contexts), codes.values):
        raise AssertionError(f"{coder} does not give back {codes.name}")
    return _timed(
        lambda: bytes(coder.encode(codes.values, contexts)),
        lambda coded: coder.decode(memoryview(coded), spec, contexts),
        len,
        count,
    )


def _constriction(codes: Codes, use_contexts: bool, count: int) -> Result:
    contexts = codes.contexts if use_contexts and codes.contexts is not None else np.zeros(codes.values.shape, np.uint8)
    groups = [codes.values[contexts == context].astype(np.int32) for context in np.unique(contexts)]
    lowest = int(codes.values.min())
    groups = [group - lowest for group in groups]
    symbols = int(codes.values.max()) - lowest + 1
    if symbols < 2:
        return Result(2 * symbols * len(groups))

    def models() -> list[Any]:
        counts = [np.bincount(group, minlength=symbols) for group in groups]
        return [constriction.stream.model.Categorical(each / each.sum(), perfect=False) for each in counts]

    def encode() -> tuple[Any, list[Any]]:
        coder, made = constriction.stream.stack.AnsCoder(), models()
        for group, model in reversed(list(zip(groups, made, strict=True))):
            coder.encode_reverse(group, model)
        return coder.get_compressed(), made

    def decode(coded: tuple[Any, list[Any]]) -> None:
        coder = constriction.stream.stack.AnsCoder(coded[0])
        for group, model in zip(groups, coded[1], strict=True):
            coder.decode(model, group.size)

    return _timed(encode, decode, lambda coded: 4 * coded[0].size + 2 * symbols * len(groups), count)


def _zstd(codes: Codes, level: int, count: int) -> Result:
    small = np.abs(codes.values.astype(np.int64)).max() < 128
    data = codes.values.astype(np.int8 if small else np.int16).tobytes()
    return _timed(
        lambda: zstandard.ZstdCompressor(level=level).compress(data),
        lambda coded: zstandard.ZstdDecompressor().decompress(coded),
        len,
        count,
    )


def _fixed_width(codes: Codes) -> Result:
    symbols = int(codes.values.max()) - int(codes.values.min()) + 1
    return Result(math.ceil(codes.values.size * max(1, math.ceil(math.log2(symbols))) / 8))


def results(codes: Codes, count: int) -> dict[str, Result | str]:
    """Each coder's result, or why there is none."""
    found: dict[str, Result | str] = {"entropy": Result(measure.entropy(codes.values) / 8)}
    if codes.contexts is not None:
        found["entropy given the contexts"] = Result(measure.entropy(codes.values, codes.contexts) / 8)
    ours: dict[str, Callable[[], codecs.Coder]] = {"Laconic": our_codecs.entropy_coder}
    ours |= {f"Laconic {name}": lambda name=name: our_codecs.other_coder(name) for name in our_codecs.ENTROPY_CODERS}  # type: ignore[misc]
    for name, make in ours.items():
        found[name] = _laconic(make(), codes, count)
    found["constriction ANS"] = _constriction(codes, False, count)
    if codes.contexts is not None:
        found["constriction ANS, contexts"] = _constriction(codes, True, count)
    found["zstd 3"] = _zstd(codes, 3, count)
    found["zstd 19"] = _zstd(codes, 19, 1)
    found["fixed width"] = _fixed_width(codes)
    return found


def rows(codes: Codes, count: int) -> Iterator[dict[str, Any]]:
    """A row for each coder."""
    found = results(codes, count)
    ideal = found.get("entropy given the contexts", found["entropy"])
    assert isinstance(ideal, Result)
    for name, result in found.items():
        row = {"codes": codes.name, "size": codes.values.size, "coder": name}
        if isinstance(result, str):
            yield row | {"error": result[:150]}
            continue
        megabytes = 4 * codes.values.size / 1e6
        yield row | {
            "bytes": round(result.nbytes, 1),
            "over_entropy": result.nbytes / ideal.nbytes - 1 if ideal.nbytes else math.nan,
            "encode_MB_per_s": megabytes / result.encode,
            "decode_MB_per_s": megabytes / result.decode,
        }


def main() -> None:
    """Measures, prints a table and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=_report.data_file, help="a data file, such as femnist_digits.npz; without it, no update"
    )
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write to")
    arguments = parser.parse_args()
    sources = [codes for size in SIZES for codes in gaussian_codes(size)]
    if arguments.data:
        sources.append(eight_bit_codes(vectors.dense_layer("update_30", arguments.data)))
    table = [row for codes in sources for row in rows(codes, arguments.repetitions)]
    header = ("codes", "d", "coder", "bytes", "above entropy", "in, MB/s", "out, MB/s")
    text = _report.table(header, [_cells(row) for row in table])
    print(text)
    arguments.results.mkdir(parents=True, exist_ok=True)
    columns = ("codes", "size", "coder", "bytes", "over_entropy", "encode_MB_per_s", "decode_MB_per_s", "error")
    with (arguments.results / "coders.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=columns, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(
            {key: f"{value:.5g}" if isinstance(value, float) else value for key, value in row.items()} for row in table
        )
    (arguments.results / "coders.md").write_text(f"# Coders\n\n{text}\n")


def _cells(row: dict[str, Any]) -> tuple[Any, ...]:
    if "error" in row:
        return (row["codes"], f"{row['size']:,}", row["coder"], row["error"], "", "", "")
    speeds = (row["encode_MB_per_s"], row["decode_MB_per_s"])
    return (
        row["codes"],
        f"{row['size']:,}",
        row["coder"],
        f"{row['bytes']:,.0f}",
        f"{100 * row['over_entropy']:.2f} %",
        *("" if math.isnan(speed) else f"{speed:,.0f}" for speed in speeds),
    )


if __name__ == "__main__":
    main()

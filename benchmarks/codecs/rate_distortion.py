"""Real bytes against measured error, over vectors, sizes and codecs: Laconic's and the peers', in one run.

    python -m benchmarks.codecs.peers setup          (once; without it the peers are left out, and named)
    python -m benchmarks.codecs.rate_distortion --data ../shared/data/femnist_digits.npz

Vectors are those of benchmarks/codecs/vectors.py. Every size is the length of a byte string that was decoded again:
`bytes` is a payload between ends that have bound the same codec, headers, tables and seed included; `described` is the
same with the description that lets anybody decode it. Bits per parameter are of `bytes`. Errors are medians over seeds
of |decoded - x|^2 / |x|^2. `gap` is bits per parameter above the Gaussian bound at that error, 1/2 log2(1 + 1/nmse)
for unbiased codecs and 1/2 log2(1/nmse) for others; vectors that are not Gaussian can be coded below it.

Writes rate_distortion.csv, .md and .json and the plots into benchmarks/codecs/results.
"""

import argparse
import csv
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _report
from benchmarks.codecs import measure, our_codecs, plots, round_trips, vectors
from benchmarks.codecs.peers import environments
from laconic import codecs

RESULTS = Path(__file__).parent / "results"
OURS = "Laconic"
COLUMNS = ("by", "codec", "family", "vector", "size", "bytes", "described_bytes", "reported_bytes",
           "bits_per_parameter", "nmse", "unbiased", "gap", "encode_MB_per_s", "decode_MB_per_s", "error")  # fmt: skip

Row = dict[str, Any]


def outcome(codec: Any, x: np.ndarray, seeds: Sequence[int]) -> Row:
    """What a codec of Laconic's does to one vector: through bytes, once for each seed."""
    bound = codecs.bind(codec, x)
    trips = [round_trips.round_trip(bound, x, seed) for seed in seeds]
    return {
        "bytes": int(np.median([trip.nbytes for trip in trips])),
        "described_bytes": int(np.median([trip.described_nbytes for trip in trips])),
        "nmse": [measure.nmse(x, trip.decoded) for trip in trips],
        "unbiased": bound.codecs[0].is_unbiased,
        # The first call of a size compiles.
        "encode_MB_per_s": round(x.nbytes / 1e6 / min(trip.encode_seconds for trip in trips), 1),
        "decode_MB_per_s": round(x.nbytes / 1e6 / min(trip.decode_seconds for trip in trips), 1),
    }


def our_rows(
    entries: Sequence[our_codecs.Entry], named: dict[tuple[str, int], np.ndarray], seeds: Sequence[int]
) -> Iterator[Row]:
    """Rows of Laconic's codecs; those that the library lacks are named on the way."""
    for entry in entries:
        started = time.perf_counter()
        for (name, size), x in named.items():
            if entry.takes_matrices != (x.ndim == 2):
                continue
            row = {"by": OURS, "codec": entry.label, "family": entry.curve, "vector": name, "size": size}
            yield finished(row | outcome(entry.codec_for(x), x, seeds))
        print(f"{entry.label}: {time.perf_counter() - started:.1f} s", file=sys.stderr, flush=True)


def peer_rows(job: dict[str, Any]) -> tuple[list[Row], dict[str, Any]]:
    """All peers' rows, and each peer's versions or why it is missing."""
    rows, about = [], {}
    for peer in environments.PEERS:
        started = time.perf_counter()
        reply = environments.measure(peer, job)
        about[peer.name] = {key: value for key, value in reply.items() if key != "rows"}
        for row in reply.get("rows", []):
            family = f"{peer.name} {re.sub(r'[0-9]+ bit', '', row['codec'])}".strip().replace(" ,", ",")
            rows.append(finished({"by": peer.name, "family": family, **row}))
        trouble = reply.get("trouble")
        print(f"{peer.name}: {trouble or f'{time.perf_counter() - started:.1f} s'}", file=sys.stderr, flush=True)
    return rows, about


def finished(row: Row) -> Row:
    """The row with what follows from its figures; the median error in the place of all of them."""
    if "nmse" not in row:
        return row
    distortion = float(np.median(row["nmse"]))
    nbytes = row["bytes"] if row["bytes"] is not None else row["reported_bytes"]
    rate = 8 * nbytes / row["size"] if nbytes is not None and np.isfinite(nbytes) else None
    gap = None
    if rate is not None and np.isfinite(distortion) and distortion > 0:
        gap = rate - measure.shannon_rate(distortion, unbiased=row["unbiased"])
    return row | {"nmse": distortion, "bits_per_parameter": rate, "gap": gap}


def table(rows: Sequence[Row]) -> str:
    """All rows in Markdown, under a heading for each vector and size."""
    header = ("by", "codec", "bytes", "described", "reported", "bits/param", "NMSE", "unbiased", "gap, bits")
    parts = []
    for key in dict.fromkeys((row["vector"], row["size"]) for row in rows):
        cells = [_cells(row) for row in rows if (row["vector"], row["size"]) == key]
        parts.append(f"## {key[0]}, d = {key[1]:,}\n\n{_report.table(header, cells)}")
    return "\n\n".join(parts)


def _cells(row: Row) -> tuple[Any, ...]:
    if "error" in row:
        return (row["by"], row["codec"], "", "", "", "", row["error"], "", "")
    return (
        row["by"],
        row["codec"],
        _number(row.get("bytes"), ",d"),
        _number(row.get("described_bytes"), ",d"),
        _number(row.get("reported_bytes"), ",.0f"),
        _number(row.get("bits_per_parameter"), ".4f"),
        _number(row["nmse"], ".4g"),
        "yes" if row["unbiased"] else "no",
        _number(row.get("gap"), ".3f"),
    )


def _number(value: Any, form: str) -> str:
    return "" if value is None else format(value, form)


def named_vectors(names: Sequence[str], max_size: int, data_file: Path | None) -> dict[tuple[str, int], np.ndarray]:
    """The vectors and, with an update's, the matrix of its dense layer."""
    named = {
        (name, size): vectors.vector(name, size, data_file)
        for name in names
        for size in vectors.sizes(name)
        if size <= max_size
    }
    for name in (each for each in names if each in vectors.UPDATES):
        matrix = vectors.dense_layer(name, data_file)
        if matrix.size <= max_size:
            named[f"{name}_dense", matrix.size] = matrix
    return named


def save(rows: Sequence[Row], about: dict[str, Any], seeds: Sequence[int], folder: Path) -> None:
    """Writes CSV, Markdown, JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "rate_distortion.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=COLUMNS, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(
            {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()} for row in rows
        )
    (folder / "rate_distortion.md").write_text(f"# Rate and distortion\n\n{table(rows)}\n")
    _report.write(folder / "rate_distortion.json", {"seeds": list(seeds), "peers": about, "rows": len(rows)})


def load(folder: Path) -> list[Row]:
    """The rows that `save` wrote."""
    numbers = {"size": int, "bytes": int, "described_bytes": int, "reported_bytes": float, "bits_per_parameter": float,
               "nmse": float, "gap": float, "unbiased": lambda text: text == "True"}  # fmt: skip
    with (folder / "rate_distortion.csv").open(newline="") as file:
        return [
            {key: numbers.get(key, str)(text) for key, text in row.items() if text != ""}  # type: ignore[operator]
            for row in csv.DictReader(file)
        ]


def merged(old: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """The old rows, with new ones in their places."""

    def key(row: Row) -> tuple[Any, ...]:
        return row["by"], row["codec"], row["vector"], row["size"]

    found = {key(row): row for row in new}
    return [*(found.pop(key(row), row) for row in old), *found.values()]


def stored_about(folder: Path) -> dict[str, Any]:
    """What is known of the peers that the folder's rows are of."""
    return dict(json.loads((folder / "rate_distortion.json").read_text())["peers"])


def main() -> None:
    """Measures, prints the table, writes results and plots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=_report.data_file, help="a data file, such as femnist_digits.npz; without it, no updates"
    )
    parser.add_argument("--seeds", type=int, default=3, help="how many; errors are medians")
    parser.add_argument("--vectors", nargs="+", choices=vectors.NAMES, help="only these")
    parser.add_argument("--max-size", type=int, default=max(vectors.SIZES), help="only vectors up to this size")
    parser.add_argument("--codecs", default="", help="only codecs of Laconic's whose label matches this expression")
    parser.add_argument("--no-peers", action="store_true", help="only Laconic's codecs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write to")
    parser.add_argument("--update", action="store_true", help="keep the rows that are not measured anew")
    parser.add_argument("--plots-only", action="store_true", help="draw what the folder's CSV file holds")
    arguments = parser.parse_args()
    if arguments.plots_only:
        plots.draw(load(arguments.results), arguments.results)
        return
    names = arguments.vectors or (vectors.NAMES if arguments.data else tuple(vectors.DISTRIBUTIONS))
    seeds = range(arguments.seeds)
    named = named_vectors(names, arguments.max_size, arguments.data)
    entries = [entry for entry in our_codecs.entries() if re.search(arguments.codecs, entry.label)]
    rows = list(our_rows(entries, named, seeds))
    about: dict[str, Any] = {}
    if not arguments.no_peers:
        stored = vectors.stored(list(names), arguments.max_size, arguments.data)
        others, about = peer_rows({"vectors": stored, "seeds": list(seeds)})
        rows += others
    if arguments.update:
        rows, about = merged(load(arguments.results), rows), about or stored_about(arguments.results)
    order = {key: index for index, key in enumerate(named)}
    rows.sort(key=lambda row: order[row["vector"], row["size"]])
    print(table(rows))
    for name, state in about.items():
        if state["trouble"]:
            print(f"\n{name}: {state['trouble']}")
    save(rows, about, seeds, arguments.results)
    plots.draw(rows, arguments.results)


if __name__ == "__main__":
    main()

"""Time per client and peak memory against the number of clients in a round.

    python -m benchmarks.engines.cohorts --data PATH [--cohorts 10 100 1000 10000] [--clients 10000] [--examples 100]

Pseudo-clients of the data are written to a SQLite file first (FedJAX's layout), of which a client is read when its
turn comes. Each cohort has a process of its own, since peak memory is a process's. A client trains the tutorial's CNN
on one batch of 20: the less it trains, the more any cost by client shows.
"""

import argparse
import json
import os
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import msgpack
import numpy as np
import optax

from benchmarks import _report
from benchmarks.engines.round_time import RATE, compressions
from laconic import data, engines, learning

RESULTS = Path(__file__).parent / "results"
BATCH_SIZE = 20
LEAST_CLIENTS = 200  # trained in all, so that small cohorts have rounds enough for a median
MEBIBYTE = 2**20


def write_sqlite(path: Path, clients: data.ClientData, examples: int) -> int:
    """Writes clients of so many examples each as FedJAX does; returns the bytes of all arrays."""

    def packed(array: np.ndarray) -> msgpack.ExtType:
        return msgpack.ExtType(1, msgpack.packb((array.shape, array.dtype.name, array.tobytes())))

    total = 0
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "CREATE TABLE federated_data (client_id BLOB NOT NULL PRIMARY KEY, data BLOB NOT NULL, "
            "num_examples INTEGER NOT NULL)"
        )
        for client_id in clients.client_ids:
            rows = np.arange(examples) % clients.num_examples(client_id)
            loaded = clients.load(client_id)
            arrays = {"pixels": loaded["x"][rows], "label": loaded["y"][rows]}
            total += sum(array.nbytes for array in arrays.values())
            blob = zlib.compress(msgpack.packb({name: packed(array) for name, array in arrays.items()}), 1)
            connection.execute("INSERT INTO federated_data VALUES (?, ?, ?)", (client_id.encode(), blob, examples))
        connection.commit()
    return total


def one_batch(examples: data.Examples) -> data.Examples:
    """What a client trains on."""
    return {name: array[:BATCH_SIZE] for name, array in examples.items()}


def measure(path: Path, cohort: int, name: str) -> dict[str, Any]:
    """One cohort size, in this process."""
    train, _ = data.load(path)
    batched = train.map(one_batch).batched(BATCH_SIZE)
    process = learning.fed_avg(
        learning.models.fedavg_cnn(), optax.sgd(RATE), compression=compressions()[name], engine=engines.local()
    )
    state, _ = process.next(process.initialize(seed=0), batched.sample(10, seed=0, round_number=0))
    seconds = []
    for round_number in range(1, 1 + max(1, LEAST_CLIENTS // cohort)):
        clients = batched.sample(cohort, seed=0, round_number=round_number)
        started = time.perf_counter()
        state, result = jax.block_until_ready(process.next(state, clients))
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"cohort": cohort, "rounds": len(seconds), "seconds": seconds, "peak": peak, "counted": result.clients}


def measure_elsewhere(path: Path, cohort: int, name: str) -> dict[str, Any]:
    """The same in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.engines.cohorts", "--data", str(path), "--only", str(cohort), name]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


def main() -> None:
    """Measures, prints a table and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=_report.data_file, required=True, help="a data file of images")
    parser.add_argument("--cohorts", type=int, nargs="+", default=[10, 100, 1000, 10_000])
    parser.add_argument("--clients", type=int, default=10_000, help="pseudo-clients in all")
    parser.add_argument("--examples", type=int, default=100, help="of each client, in the file")
    parser.add_argument("--compressions", nargs="+", default=["fp32", "balanced"], choices=compressions())
    parser.add_argument("--only", nargs=2, metavar=("COHORT", "COMPRESSION"), help="one, in this process")
    chosen = parser.parse_args()
    if chosen.only:
        print(json.dumps(measure(chosen.data, int(chosen.only[0]), chosen.only[1])))
        return
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clients.sqlite"
        train, _ = data.load(chosen.data)
        size = write_sqlite(path, data.pseudo_clients(train, chosen.clients), chosen.examples)
        for cohort in chosen.cohorts:
            for name in chosen.compressions:
                found.append({"compression": name, **measure_elsewhere(path, cohort, name)})
                print(f"{name}, {cohort} clients: {statistics.median(found[-1]['seconds']):.2f} s", flush=True)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    text = (
        f"{chosen.clients:,} clients in a file, {size / MEBIBYTE:,.0f} MiB of examples, on a machine with "
        f"{memory / MEBIBYTE:,.0f} MiB of memory.\n\n{table(found)}"
    )
    print(text)
    _report.write(
        RESULTS / "cohorts.json",
        {"data_bytes": size, "memory_bytes": memory, "clients": chosen.clients, "measured": found},
    )
    (RESULTS / "cohorts.md").write_text(text + "\n")


def table(found: list[dict[str, Any]]) -> str:
    """Seconds by client and memory; ratios to the smallest cohort of the same compression."""
    rows = []
    for each in found:
        first = next(other for other in found if other["compression"] == each["compression"])
        per_client, base = (statistics.median(one["seconds"]) / one["cohort"] for one in (each, first))
        rows.append((
            each["compression"], f"{each['cohort']:,}", each["rounds"], f"{statistics.median(each['seconds']):.2f}",
            f"{1000 * per_client:.1f}", f"{per_client / base:.2f}", f"{each['peak'] / MEBIBYTE:,.0f}",
            f"{each['peak'] / first['peak']:.2f}",
        ))  # fmt: skip
    return _report.table(
        ("", "clients a round", "rounds", "s a round", "ms a client", "/ first", "peak MiB", "/ first"), rows
    )


if __name__ == "__main__":
    main()

"""Ray's workers against threads on the same processors, and rounds in which nodes die.

    python -m benchmarks.engines.cluster --data PATH [--rounds 20] [--workers 2] [--nodes 4] [--deaths 20]

First, the tutorial's round with `engines.ray` and `engines.local`, in turn, with as many workers, at three cohort
sizes: the two smaller ones make a line, a fixed time and a time for each client, which is compared with what the third
one takes. Then a cluster of several nodes, all on this machine, of which one is killed in the middle of each round, and
another one added after it; state and traffic must have the bits of the local engine. Every process compiles, so a
round with a death is slow.
"""

import argparse
import logging
import os
import random
import statistics
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from benchmarks import _report
from benchmarks.engines.round_time import RATE, compressions
from laconic import data, engines, learning
from laconic.federated import Engine

RESULTS = Path(__file__).parent / "results"
COHORTS = (10, 20, 60)
CLIENTS = 10  # of a round in which a node dies
WARM_UP = 2

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


@contextmanager
def cluster(nodes: int, processors: int) -> Iterator[Any]:
    """A cluster of so many nodes on this machine, besides the one of this process, which runs no clients."""
    import ray
    from ray.cluster_utils import Cluster

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        for _ in range(nodes):
            made.add_node(num_cpus=processors)
        ray.init(address=made.address, logging_level=logging.ERROR, log_to_driver=False)
        try:
            yield made
        finally:
            ray.shutdown()
            made.shutdown()  # type: ignore[no-untyped-call]


Seconds = dict[str, list[float]]  # of each round, by engine


def side_by_side(batched: data.BatchedClientData, rounds: int, workers: int) -> dict[str, dict[int, Seconds]]:
    """Seconds of rounds, by compression and cohort size; larger cohorts have fewer rounds."""
    found: dict[str, dict[int, Seconds]] = {}
    with cluster(nodes=1, processors=workers), engines.ray(workers=workers) as on_ray:
        used: dict[str, Engine] = {"local": engines.local(workers), "ray": on_ray}
        for name, compression in compressions().items():
            processes = {
                each: learning.fed_avg(
                    learning.models.fedavg_cnn(), optax.sgd(RATE), compression=compression, engine=engine
                )
                for each, engine in used.items()
            }
            states = {each: process.initialize(seed=0) for each, process in processes.items()}
            found[name] = {}
            for cohort in COHORTS:
                seconds: Seconds = {each: [] for each in used}
                for round_number in range(max(3, rounds * COHORTS[0] // cohort) + WARM_UP):
                    clients = batched.sample(cohort, seed=0, round_number=round_number)
                    for each, process in processes.items():
                        started = time.perf_counter()
                        states[each], _ = jax.block_until_ready(process.next(states[each], clients))
                        seconds[each].append(time.perf_counter() - started)
                check_same(*states.values())
                found[name][cohort] = {each: times[WARM_UP:] for each, times in seconds.items()}
    return found


def lines(found: dict[str, dict[int, Seconds]]) -> list[tuple[Any, ...]]:
    """The table's: what was measured, and what the line through the first two cohorts says."""
    rows = []
    for name, cohorts in found.items():
        medians = {size: statistics.median(each["ray"]) for size, each in cohorts.items()}
        (first, low), (second, high) = list(medians.items())[:2]
        slope = (high - low) / (second - first)
        for size, each in cohorts.items():
            ratio = statistics.median(b / a for a, b in zip(each["local"], each["ray"], strict=True))
            rows.append((
                name, size, len(each["ray"]), f"{statistics.median(each['local']):.3f}", f"{medians[size]:.3f}",
                f"{ratio:.3f}", f"{low + slope * (size - first):.3f}",
            ))  # fmt: skip
    return rows


def check_same(first: Any, second: Any) -> None:
    """Raises an AssertionError unless all arrays have the same bits."""
    jax.tree.map(np.testing.assert_array_equal, first, second)


def with_deaths(batched: data.BatchedClientData, nodes: int, deaths: int) -> dict[str, Any]:
    """Rounds in each of which a node is killed; raises an AssertionError if any bit differs from the local engine's."""
    choose = random.Random(0)
    compression = learning.presets.balanced()
    model, optimizer = learning.models.fedavg_cnn(), optax.sgd(RATE)
    local = learning.fed_avg(model, optimizer, compression=compression, engine=engines.local())
    seconds, counted = [], []
    with cluster(nodes, 1) as made, engines.ray() as engine:
        elsewhere = learning.fed_avg(model, optimizer, compression=compression, engine=engine)
        alive = list(made.worker_nodes)
        here = there = local.initialize(seed=0)
        there, _ = elsewhere.next(there, batched.sample(CLIENTS, seed=0, round_number=0))
        here, _ = local.next(here, batched.sample(CLIENTS, seed=0, round_number=0))
        for round_number in range(1, deaths + 1):
            cohort = batched.sample(CLIENTS, seed=0, round_number=round_number)
            victim = alive.pop(choose.randrange(len(alive)))
            before = engine.replaced_workers
            killer = threading.Timer(choose.uniform(0.1, 0.6), made.remove_node, (victim,), {"allow_graceful": False})
            started = time.perf_counter()
            killer.start()
            there, result = elsewhere.next(there, cohort)
            seconds.append(time.perf_counter() - started)
            killer.join()
            here, expected = local.next(here, cohort)
            check_same(there, here)
            assert result == expected, (result, expected)
            counted.append(result.clients)
            alive.append(made.add_node(num_cpus=1))
            lost = engine.replaced_workers - before
            print(f"round {round_number}: {seconds[-1]:.1f} s, same bits, {lost} workers replaced", flush=True)
        replaced = engine.replaced_workers
    return {"nodes": nodes, "deaths": deaths, "seconds": seconds, "clients": counted, "replaced": replaced}


def main() -> None:
    """Measures, prints a table and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=_report.data_file, required=True, help="a data file")
    parser.add_argument("--rounds", type=int, default=20, help="rounds to measure")
    parser.add_argument("--workers", type=int, default=2, help="of either engine")
    parser.add_argument("--nodes", type=int, default=4, help="of the cluster whose nodes die")
    parser.add_argument("--deaths", type=int, default=20, help="rounds in which one dies")
    chosen = parser.parse_args()
    train, _ = data.load(chosen.data)
    batched = train.batched(20, shuffle=True)
    seconds = side_by_side(batched, chosen.rounds, chosen.workers)
    header = ("", "clients", "rounds", "local, s", "ray, s", "ray / local", "the line's, s")
    text = _report.table(header, lines(seconds))
    print(text, flush=True)
    died = with_deaths(batched, chosen.nodes, chosen.deaths)
    text += (
        f"\n\n{chosen.nodes} nodes, one killed in each of {chosen.deaths} rounds: the bits of the local engine in all, "
        f"{died['replaced']} workers replaced, {statistics.median(died['seconds']):.1f} s a round (median)."
    )
    print(text)
    _report.write(RESULTS / "cluster.json", {"rounds": chosen.rounds, "side_by_side": seconds, "deaths": died})
    (RESULTS / "cluster.md").write_text(text + "\n")


if __name__ == "__main__":
    main()

"""What a client that has kept its last broadcast is sent, by how many rounds ago that was.

    python -m benchmarks.accuracy_per_byte.caching --data ../shared/data/femnist_digits.npz [--rounds 100]

One training of the tutorial's CNN with `presets.balanced`'s grids and `cached_rounds`. In each round there are ten
clients: for each gap g one that takes part in every g-th round, and for the rest clients whose last time is longer ago
than a cache lasts. Figures are medians over rounds from the 20th on, of bytes that each client was really
sent; training itself does not depend on who holds what.

Writes results/caching.md and .json.
"""

import argparse
import itertools
import statistics
from collections import defaultdict
from pathlib import Path

import jax
import optax

from benchmarks import _report
from laconic import data, learning

RESULTS = Path(__file__).parent / "results"
GAPS = (1, 2, 5, 10, 20)
FIRST_ROUND = 20
COHORT = 10


def measure(path: Path, rounds: int) -> tuple[dict[int, list[int]], list[int], int]:
    """Bytes sent to clients by gap, to clients without a cache, and the model's size."""
    balanced = learning.presets.balanced()
    train, _ = data.load(path)
    process = learning.fed_avg(
        learning.models.fedavg_cnn(),
        optax.sgd(0.1),
        distributor=learning.reference_broadcast(cached_rounds=max(GAPS)),
        aggregator=balanced.aggregator,
    )
    regulars = dict(zip(GAPS, train.client_ids, strict=False))
    # Around again after more rounds than a cache lasts.
    others = itertools.cycle([name for name in train.client_ids if name not in regulars.values()])
    batched = train.batched(20, shuffle=True)
    state = process.initialize(seed=0)
    by_gap: dict[int, list[int]] = defaultdict(list)
    fresh: list[int] = []
    for number in range(rounds):
        chosen = {name: gap for gap, name in regulars.items() if number % gap == 0}
        names = [*chosen, *itertools.islice(others, COHORT - len(chosen))]
        state, result = process.next(state, batched.cohort(names, round_number=number), per_client_traffic=True)
        if number >= FIRST_ROUND:
            for name, (down, _) in result.traffic.clients.items():
                if name in chosen and number >= chosen[name]:
                    by_gap[chosen[name]].append(down)
                elif name not in chosen:
                    fresh.append(down)
    size = sum(leaf.size for leaf in jax.tree.leaves(state.weights))
    return dict(by_gap), fresh, size


def main() -> None:
    """Measures, prints a table and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=_report.data_file, required=True, help="a data file, such as femnist_digits.npz")
    parser.add_argument("--rounds", type=int, default=100)
    arguments = parser.parse_args()
    if not arguments.data.exists():
        parser.error(f"--data must be a data file, but there is no {arguments.data}")
    if arguments.rounds <= FIRST_ROUND:
        parser.error(f"--rounds must be above {FIRST_ROUND}, from which on is measured, got {arguments.rounds}")
    by_gap, fresh, size = measure(arguments.data, arguments.rounds)
    whole = statistics.median(fresh)
    rows = [("never, or too long ago", f"{whole:,.0f}", f"{8 * whole / size:.3f}", f"{4 * size / whole:.0f}x", "")]
    for gap, sizes in sorted(by_gap.items()):
        median = statistics.median(sizes)
        cells = f"{median:,.0f}", f"{8 * median / size:.3f}", f"{4 * size / median:.0f}x", f"{median / whole:.2f}"
        rows.append((f"{gap} rounds ago", *cells))
    header = ("took part before", "bytes down", "bits per parameter", "fp32's bytes over these", "of the stateless")
    text = _report.table(header, rows)
    print(text)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "caching.md").write_text(f"# Clients that keep their last broadcast\n\n{text}\n")
    _report.write(RESULTS / "caching.json", {"rounds": arguments.rounds, "by_gap": by_gap, "stateless": fresh})


if __name__ == "__main__":
    main()

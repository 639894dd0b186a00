"""A round of Federated Averaging, Laconic's and its peers', in turn, round by round.

    python -m benchmarks.peers.setup          (once; without it the peers are left out, and named)
    python -m benchmarks.peers.run --data ../shared/data/femnist_digits.npz [--rounds 12] [--environments FOLDER]

All train the tutorial's CNN from the same weights on the same batches, 10 clients a round, 5 batches of 20 each, one
epoch with SGD 0.1, and the server takes the mean weighted by examples. Each competitor is a process in an environment
of its own; it is stopped while another one runs, so that each has the machine for itself. Its cohort is in memory, in
the form that it wants, before its clock starts. All train round r before any trains round r + 1, so that a change
of the machine's speed touches all of them; a ratio is the median of each round's. The first rounds compile, and are
dropped. What each one's weights lead to after the last round, and that they began from the same, is judged by one
function here: the mean loss over all clients' batches of all rounds.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import _report
from benchmarks.peers import exchange, laconic_round, report
from benchmarks.peers.competitors import BASES, COMPETITORS, Competitor, CompetitorError, Process, start
from benchmarks.peers.environments import FOLDER, environments
from laconic import codecs, data, learning

RESULTS = Path(__file__).parent / "results"
WARM_UP = 2
CLIENTS = 10
EXAMPLES = 5 * exchange.BATCH_SIZE


def write_task(train: data.ClientData, rounds: int, path: Path) -> exchange.Task:
    """Draws each round's cohort among the clients with enough examples, and writes the first of each one's."""
    able = train.select([client_id for client_id in train if train.num_examples(client_id) >= EXAMPLES])
    cohorts = [able.sample_ids(CLIENTS, seed=0, round_number=round_number) for round_number in range(rounds)]
    images, labels = (
        np.array([[able.load(client_id)[name][:EXAMPLES] for client_id in cohort] for cohort in cohorts])
        for name in ("x", "y")
    )
    weights = laconic_round.arrays(learning.models.fedavg_cnn().init(codecs.random.key(0)))
    exchange.save_task(path, images, labels, np.array(cohorts), weights)
    return exchange.load_task(path)


def loss(task: exchange.Task, weights: list[np.ndarray]) -> float:
    """The mean loss of weights over all examples of a task."""
    model = learning.models.fedavg_cnn()
    batch_loss = jax.jit(lambda weights, x, y: model.loss(model.predict(weights, x), y).mean())
    tree = laconic_round.tree(weights)
    images, labels = (array.reshape(-1, EXAMPLES, *array.shape[3:]) for array in (task.images, task.labels))
    return float(np.mean([batch_loss(tree, x, y) for x, y in zip(images, labels, strict=True)]))


class Race:
    """All competitors' processes, and what has become of each one."""

    def __init__(self, competitors: Sequence[Competitor], task: Path, folder: Path):
        self.outcomes = {each.name: report.Outcome() for each in competitors}
        self._processes: dict[str, Process] = {}
        known = environments(folder)
        for each in competitors:
            self._attempt(each.name, lambda each=each: self._start(each, start(each, known, task)))

    def train(self, round_number: int) -> None:
        """Lets each competitor train a round, one after the other."""
        for name in list(self._processes):
            self._attempt(name, lambda name=name: self._train(name, round_number))

    def finish(self, task: exchange.Task, folder: Path) -> None:
        """Judges all weights."""
        for number, name in enumerate(list(self._processes)):
            path = folder / f"weights_{number}.npz"
            self._attempt(name, lambda name=name, path=path: self._judge(name, task, path))

    def end(self) -> None:
        """Ends all processes."""
        for process in self._processes.values():
            process.end()
        self._processes.clear()

    def _start(self, competitor: Competitor, process: Process) -> None:
        self._processes[competitor.name] = process
        self.outcomes[competitor.name].about = process.about

    def _train(self, name: str, round_number: int) -> None:
        seconds = self._processes[name].ask(f"round {round_number}")["seconds"]
        self.outcomes[name].seconds.append(seconds)
        print(f"round {round_number:3} {name}: {seconds:.3f} s", flush=True)

    def _judge(self, name: str, task: exchange.Task, path: Path) -> None:
        self._processes[name].ask(f"save {path}")
        self.outcomes[name].loss = loss(task, exchange.load_weights(path))

    def _attempt(self, name: str, action: Any) -> None:
        """Acts; whoever fails is out, and the others go on."""
        try:
            action()
        except CompetitorError as error:
            self.outcomes[name].trouble = str(error)
            print(f"{name}: {error}", flush=True)
            if process := self._processes.pop(name, None):
                process.end()


def race(
    competitors: Sequence[Competitor], train: data.ClientData, rounds: int, folder: Path
) -> tuple[dict[str, report.Outcome], float]:
    """Every competitor's outcome, and the loss that all begin with."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "task.npz"
        task = write_task(train, rounds + WARM_UP, path)
        running = Race(competitors, path, folder)
        try:
            for round_number in range(rounds + WARM_UP):
                running.train(round_number)
            running.finish(task, Path(temporary))
        finally:
            running.end()
    for outcome in running.outcomes.values():
        del outcome.seconds[:WARM_UP]
    return running.outcomes, loss(task, task.weights)


def main() -> None:
    """Measures, prints a table and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=_report.data_file, required=True, help="a data file, such as femnist_digits.npz")
    parser.add_argument("--rounds", type=int, default=12, help="rounds to measure")
    parser.add_argument("--environments", type=Path, default=FOLDER, help="where the peers' environments are")
    parser.add_argument(
        "--only", nargs="+", default=[], help="competitors whose names begin like this; all if left out"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write to")
    arguments = parser.parse_args()
    chosen = [each for each in COMPETITORS if each.name.startswith(tuple(arguments.only) or "")]
    train, _ = data.load(arguments.data)
    outcomes, start_loss = race(chosen, train, arguments.rounds, arguments.environments.absolute())
    text = report.table(outcomes, BASES, start_loss)
    print(text)
    _report.write(
        arguments.results / "rounds.json",
        {"rounds": arguments.rounds, "warm_up": WARM_UP, "data": arguments.data.name, "loss_before": start_loss,
         "competitors": report.summary(outcomes, BASES)},
    )  # fmt: skip
    (arguments.results / "rounds.md").write_text(text + "\n")


if __name__ == "__main__":
    main()

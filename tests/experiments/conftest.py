"""A training that takes milliseconds, and records made by hand."""

import dataclasses
import sys

import numpy as np
import optax
import pytest

from laconic import codecs, data, experiments, learning

FEATURES, CLASSES = 6, 3


@pytest.fixture(scope="session")
def clients():
    """Six clients with linearly separable examples, of different sizes."""
    generator = np.random.default_rng(0)
    directions = generator.standard_normal((FEATURES, CLASSES))

    def examples(count):
        x = generator.standard_normal((count, FEATURES)).astype(np.float32)
        return {"x": x, "y": (x @ directions).argmax(axis=1).astype(np.int32)}

    return data.from_arrays({f"client{i}": examples(6 + 3 * i) for i in range(6)})


@pytest.fixture(scope="session")
def model():
    """A perceptron with one hidden layer."""
    return learning.models.perceptron(FEATURES, (8,), CLASSES)


@pytest.fixture(scope="session")
def process(model):
    """Federated Averaging whose updates travel, and are drawn, in 8 bits; compiled once for all tests."""
    return learning.fed_avg(
        model,
        client_optimizer=optax.sgd(0.3),
        aggregator=learning.encoded_mean(codecs.uniform_quantization(bits=8)),
    )


@pytest.fixture(scope="session")
def evaluate(model, clients):
    """The metrics on all examples."""
    return experiments.central_evaluation(model, clients, batch_size=16)


@pytest.fixture(scope="session")
def train(process, clients):
    """Calls `experiments.run` with settings that a test may change."""

    def run(**changes):
        settings = {"process": process, "train": clients.batched(4, shuffle=True), "rounds": 3, "clients_per_round": 2}
        return experiments.run(**settings | {"seed": 0, "progress": False} | changes)

    return run


@pytest.fixture
def keyboard_interrupt_in_round(process):
    """Makes a process like `process` that raises KeyboardInterrupt within one of its rounds."""

    class Interrupted:
        initialize = staticmethod(process.initialize)
        broadcast_weights = staticmethod(process.broadcast_weights)

        def __init__(self, round_number):
            self.round_number = round_number

        def next(self, state, cohort):
            if int(state.round_number) == self.round_number:
                raise KeyboardInterrupt
            return process.next(state, cohort)

    return Interrupted


@pytest.fixture(scope="session")
def record():
    """Makes a round's record by hand: 1 MB down and 2 MB up in each round."""
    totals = experiments.TrafficTotals(1_000_000, 2_000_000, 8_000_000, 16_000_000)

    def make(round_number=0, **changes):
        cumulative = sum([totals] * round_number, totals)
        made = experiments.RoundRecord(
            round_number, {"accuracy": 0.5, "loss": 1.25}, {}, totals, cumulative, clients=10, left_out=0, seconds=0.25
        )
        return dataclasses.replace(made, **changes)

    return make


@pytest.fixture(scope="session")
def history(record):
    """Makes a history by hand: test accuracies by round, None where there was no evaluation."""

    def make(accuracies, name="a run", **changes):
        tests = [{} if accuracy is None else {"accuracy": accuracy} for accuracy in accuracies]
        records = tuple(record(i, test=test, **changes) for i, test in enumerate(tests))
        return experiments.History(name, records, {}, state=None)

    return make


@pytest.fixture
def block(monkeypatch):
    """Makes modules as if they were not installed."""

    def without(*modules):
        for module in modules:
            monkeypatch.setitem(sys.modules, module, None)

    return without

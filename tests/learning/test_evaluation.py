"""Central and federated evaluation."""

import numpy as np
import pytest

from laconic import codecs, data, learning
from laconic.errors import ArgumentError


def test_central_and_federated_agree(model, clients):
    """The same examples give the same metrics, wherever they are; padding does not count."""
    weights = model.init(codecs.random.key(0))
    evaluation = learning.evaluation(model)
    central = evaluation.central(weights, data.batches(clients.examples(), 7))
    at_clients = evaluation.federated(weights, clients.batched(4).cohort(clients.client_ids))
    examples = clients.examples()
    outputs = model.predict(weights, examples["x"])
    assert central["accuracy"] == pytest.approx(np.mean(outputs.argmax(axis=1) == examples["y"]))
    assert at_clients.metrics == pytest.approx(central, rel=1e-5)


def test_federated_evaluation_counts_its_traffic(model, clients):
    """The model goes down through its codec, only sums of metrics come up."""
    weights = model.init(codecs.random.key(0))
    cohort = clients.batched(4).cohort(clients.client_ids)
    plain = learning.evaluation(model).federated(weights, cohort)
    coded = learning.evaluation(model, codec=codecs.uniform_quantization(4)).federated(weights, cohort, key=3)
    assert plain.traffic.aggregate_bytes == 5 * (16 + 8) == coded.traffic.aggregate_bytes
    assert coded.traffic.broadcast_bytes < plain.traffic.broadcast_bytes / 3
    assert coded.metrics["loss"] == pytest.approx(plain.metrics["loss"], rel=0.2)


def test_there_must_be_something_to_evaluate_on(model):
    """No batches and no clients are errors."""
    weights = model.init(codecs.random.key(0))
    with pytest.raises(ArgumentError, match="batches must hold at least one batch"):
        learning.evaluation(model).central(weights, [])
    with pytest.raises(ArgumentError, match="at least one client"):
        learning.evaluation(model).federated(weights, [])

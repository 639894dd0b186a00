"""pfl-research's round on PyTorch: its Federated Averaging, one central iteration at a time."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from benchmarks.peers import exchange, torch_model

torch: Any = importlib.import_module("torch")
PyTorchModel: Any = importlib.import_module("pfl.model.pytorch").PyTorchModel
simulate: Any = importlib.import_module("pfl.aggregate.simulate")
weighting: Any = importlib.import_module("pfl.aggregate.weighting")
federated_averaging: Any = importlib.import_module("pfl.algorithm.federated_averaging")
algorithms: Any = importlib.import_module("pfl.algorithm.base")
datasets: Any = importlib.import_module("pfl.data.dataset")
federated_datasets: Any = importlib.import_module("pfl.data.federated_dataset")
hyperparameters: Any = importlib.import_module("pfl.hyperparam.base")
metrics: Any = importlib.import_module("pfl.metrics")

PACKAGES = ("pfl", "torch")


class Classifier(torch.nn.Module):  # type: ignore[misc]
    """The model with the two functions that pfl calls."""

    def __init__(self, network: Any):
        super().__init__()
        self.network = network

    def loss(self, images: Any, labels: Any) -> Any:
        """Mean loss of a batch."""
        return torch.nn.functional.cross_entropy(self.network(images), labels)

    def metrics(self, images: Any, labels: Any) -> dict[str, Any]:
        """What pfl reports before and after the first iteration's training, which is not timed."""
        with torch.no_grad():
            return {"loss": metrics.Weighted(self.loss(images, labels).item() * len(images), len(images))}


def federated_data(task: exchange.Task) -> Any:
    """The cohorts' clients, drawn in the order of the task."""
    rounds, clients = task.labels.shape[:2]
    order = iter([(round_number, client) for round_number in range(rounds) for client in range(clients)])
    tensors = {
        (round_number, client): torch_model.batches(
            task.images[round_number, client], task.labels[round_number, client]
        )
        for round_number in range(rounds)
        for client in range(clients)
    }
    return federated_datasets.FederatedDataset(
        lambda user: datasets.Dataset(list(tensors[user]), user_id=str(task.client_ids[user])), lambda: next(order)
    )


def train(task: exchange.Task, channel: exchange.Channel) -> None:
    """Trains."""
    network = torch_model.cnn(task.weights)
    classifier = Classifier(network)
    model = PyTorchModel(
        classifier,
        local_optimizer_create=torch.optim.SGD,
        central_optimizer=torch.optim.SGD(classifier.parameters(), exchange.SERVER_RATE),
    )
    data = federated_data(task)
    backend = simulate.SimulatedBackend(data, data, postprocessors=[weighting.WeightByDatapoints()])
    algorithm = federated_averaging.FederatedAveraging()
    rounds, clients = task.labels.shape[:2]
    local = hyperparameters.NNTrainHyperParams(
        local_num_epochs=1, local_learning_rate=exchange.CLIENT_RATE, local_batch_size=exchange.BATCH_SIZE
    )

    def prepare(round_number: int) -> Callable[[], None]:
        # An algorithm goes on where it stopped; it stops at this many iterations.
        until = algorithms.NNAlgorithmParams(
            central_num_iterations=round_number + 1,
            evaluation_frequency=rounds,
            train_cohort_size=clients,
            val_cohort_size=None,
        )
        return lambda: algorithm.run(until, backend, model, local, send_metrics_to_platform=False)

    channel.serve(PACKAGES, prepare, lambda: torch_model.task_weights(network))

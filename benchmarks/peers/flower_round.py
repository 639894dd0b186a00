"""Flower's round in its simulation on Ray, with PyTorch's training at the clients."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from benchmarks.peers import exchange, flower_client, torch_model

flower: Any = importlib.import_module("flwr.app")
client_app: Any = importlib.import_module("flwr.clientapp")
server_app: Any = importlib.import_module("flwr.serverapp")
strategies: Any = importlib.import_module("flwr.serverapp.strategy")
simulation: Any = importlib.import_module("flwr.simulation")

PACKAGES = ("flwr", "ray", "torch")


def train(task: exchange.Task, channel: exchange.Channel) -> None:
    """Trains; Flower's server is what answers the driver."""
    clients = task.labels.shape[1]
    server, client = server_app.ServerApp(), client_app.ClientApp()
    client.train()(flower_client.train)

    def serve(grid: Any, context: Any) -> None:
        del context
        # A mean is all there is on the server: its rate is 1.
        strategy = strategies.FedAvg(fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients)
        arrays = flower.ArrayRecord(torch_model.cnn(task.weights).state_dict())

        def prepare(round_number: int) -> Callable[[], None]:
            config = flower.ConfigRecord({"task": str(task.path), "round": round_number})

            def run() -> None:
                nonlocal arrays
                arrays = strategy.start(grid, arrays, num_rounds=1, train_config=config).arrays

            return run

        channel.serve(PACKAGES, prepare, lambda: torch_model.from_state(arrays.to_torch_state_dict()))

    server.main()(serve)
    # Without a word about resources Flower gives each client two processors.
    resources = {} if task.variant == "fp32" else {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    # "local": not some other Ray that runs here.
    config = {"init_args": {"address": "local"}, **resources}
    simulation.run_simulation(server, client, num_supernodes=clients, backend_config=config)

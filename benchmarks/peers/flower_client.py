"""Flower's client, which Ray's processes import."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from typing import Any

from benchmarks.peers import exchange, torch_model

torch: Any = importlib.import_module("torch")
flower: Any = importlib.import_module("flwr.app")


@functools.lru_cache(maxsize=1)
def task(path: str) -> exchange.Task:
    """The task, read once in each process."""
    return exchange.load_task(Path(path))


def train(message: Any, context: Any) -> Any:
    """One epoch over the client's batches of this round."""
    config = message.content["config"]
    current, client = task(config["task"]), context.node_config["partition-id"]
    round_number = config["round"]
    images, labels = torch_model.batches(current.images[round_number, client], current.labels[round_number, client])
    model = torch_model.cnn(current.weights)
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    optimizer = torch.optim.SGD(model.parameters(), exchange.CLIENT_RATE)
    for start in range(0, len(images), exchange.BATCH_SIZE):
        rows = slice(start, start + exchange.BATCH_SIZE)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
        optimizer.step()
    content = {
        "arrays": flower.ArrayRecord(model.state_dict()),
        "metrics": flower.MetricRecord({"num-examples": len(images)}),
    }
    return flower.Message(content=flower.RecordDict(content), reply_to=message)

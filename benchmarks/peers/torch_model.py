"""The tutorial's CNN in PyTorch, and its weights in a task's layout; for the peers that train with PyTorch."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

torch: Any = importlib.import_module("torch")

CHANNELS, SIDE = 64, 7
"""Of the last convolution's pooled output, which PyTorch flattens channels first."""


def cnn(weights: list[np.ndarray]) -> Any:
    """The model with a task's weights."""
    layers = torch.nn
    model = layers.Sequential(
        layers.Conv2d(1, 32, 5, padding="same"),
        layers.ReLU(),
        layers.MaxPool2d(2),
        layers.Conv2d(32, CHANNELS, 5, padding="same"),
        layers.ReLU(),
        layers.MaxPool2d(2),
        layers.Flatten(),
        layers.Linear(CHANNELS * SIDE * SIDE, 512),
        layers.ReLU(),
        layers.Linear(512, 10),
    )
    named = model.state_dict()
    values = [torch.from_numpy(np.ascontiguousarray(array)) for array in _from_task(weights)]
    model.load_state_dict({name: values[i] for i, name in enumerate(named)})
    return model


def task_weights(model: Any) -> list[np.ndarray]:
    """The model's weights as a task has them."""
    return from_state(model.state_dict())


def from_state(state: Any) -> list[np.ndarray]:
    """A state dict's tensors as a task has them."""
    arrays = [tensor.detach().numpy().copy() for tensor in state.values()]
    dense = arrays[4].T.reshape(CHANNELS, SIDE, SIDE, -1).transpose(1, 2, 0, 3).reshape(arrays[4].shape[::-1])
    kernels = {0: arrays[0].transpose(2, 3, 1, 0), 2: arrays[2].transpose(2, 3, 1, 0), 4: dense, 6: arrays[6].T}
    return [kernels.get(i, array) for i, array in enumerate(arrays)]


def batches(images: np.ndarray, labels: np.ndarray) -> tuple[Any, Any]:
    """A client's examples as tensors: images with a channel, labels as indices."""
    return torch.from_numpy(images[:, np.newaxis]), torch.from_numpy(labels.astype(np.int64))


def _from_task(weights: list[np.ndarray]) -> list[np.ndarray]:
    dense = weights[4].reshape(SIDE, SIDE, CHANNELS, -1).transpose(2, 0, 1, 3).reshape(weights[4].shape).T
    kernels = {0: weights[0].transpose(3, 2, 0, 1), 2: weights[2].transpose(3, 2, 0, 1), 4: dense, 6: weights[6].T}
    return [kernels.get(i, array) for i, array in enumerate(weights)]

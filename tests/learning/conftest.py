"""Small models and clients."""

import numpy as np
import pytest

from laconic import data, learning

FEATURES = 6
CLASSES = 3


def make_clients(sizes: list[int], seed: int = 0) -> data.ClientData:
    """Clients with linearly separable examples, as many as the sizes say."""
    generator = np.random.default_rng(seed)
    directions = generator.standard_normal((FEATURES, CLASSES))
    clients = {}
    for i, size in enumerate(sizes):
        x = generator.standard_normal((size, FEATURES)).astype(np.float32)
        clients[f"client{i}"] = {"x": x, "y": (x @ directions).argmax(axis=1).astype(np.int32)}
    return data.from_arrays(clients)


@pytest.fixture
def clients() -> data.ClientData:
    """Five clients, none of whose sizes is a multiple of the batch size 4."""
    return make_clients([3, 5, 9, 14, 7])


@pytest.fixture
def model() -> learning.Model:
    """A perceptron with one hidden layer."""
    return learning.models.perceptron(FEATURES, (8,), CLASSES)

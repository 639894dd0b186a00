"""How many clients there are, and how unequal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Statistics:
    """The size of a federated data set, and how its examples are spread over clients.

    Attributes:
      clients: the number of clients.
      examples: the number of examples of all clients together.
      minimum: the fewest examples a client has.
      median: the median number of examples per client.
      mean: the mean number of examples per client.
      maximum: the most examples a client has.
      labels: how many examples have each label, all clients together; None where it was not asked for.
    """

    clients: int
    examples: int
    minimum: int
    median: float
    mean: float
    maximum: int
    labels: Mapping[int, int] | None = None

    def __str__(self) -> str:
        spread = f"min {self.minimum}, median {self.median:g}, mean {self.mean:.1f}, max {self.maximum}"
        summary = f"{self.clients:,} clients, {self.examples:,} examples; per client: {spread}"
        if self.labels is None:
            return summary
        return f"{summary}; per label: {', '.join(f'{label}: {n:,}' for label, n in self.labels.items())}"


def summarize(counts: Sequence[int], labels: Mapping[int, int] | None) -> Statistics:
    """The statistics of clients that have `counts` examples each."""
    return Statistics(
        clients=len(counts),
        examples=sum(counts),
        minimum=min(counts),
        median=float(np.median(counts)),
        mean=sum(counts) / len(counts),
        maximum=max(counts),
        labels=labels,
    )

"""Batches of one shape, and clients whose examples come in such batches."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Int64

from laconic.data import _examples, _randomness
from laconic.data._examples import Examples
from laconic.errors import ArgumentError, DataError


class Batch(NamedTuple):
    """A batch: NumPy arrays where it comes from, JAX arrays inside a jitted step, and shapes in a `batch_spec`.

    Every batch of a client has the same shape, so that nothing is compiled twice: one with fewer examples is padded
    with zeros. Whatever is computed from a batch must weigh its rows by `mask`, so that padding changes no result.

    Attributes:
      x: inputs, [batch_size, ...].
      y: labels, [batch_size, ...].
      mask: float32 [batch_size]; 1.0 for an example, 0.0 for padding.
    """

    # Any, because one class serves concrete arrays, tracers and specs, and because tree_map makes batches of anything.
    x: Any
    y: Any
    mask: Any


@runtime_checkable
class Clients(Protocol):
    """What batching needs of client data."""

    client_ids: tuple[str, ...]

    def load(self, client_id: str) -> Examples: ...
    def num_examples(self, client_id: str) -> int: ...
    def known_num_examples(self, client_id: str) -> int | None: ...
    def sample_ids(self, count: int, *, seed: int, round_number: int) -> list[str]: ...


@dataclass(frozen=True)
class BatchedClientData:
    """Clients whose examples come in batches; made by `ClientData.batched`, where the fields are explained."""

    clients: Clients
    batch_size: int
    epochs: int = 1
    shuffle: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "epochs"):
            if getattr(self, name) < 1:
                raise ArgumentError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def client_ids(self) -> tuple[str, ...]:
        """The ids of all clients, sorted."""
        return self.clients.client_ids

    @cached_property
    def batch_spec(self) -> Batch:
        """A Batch of `jax.ShapeDtypeStruct`; the shape and dtype of every batch of every client.

        Raises:
          DataError: no client has any examples, or they have no fields `x` and `y`.
        """
        for client_id in self.client_ids:
            examples = _inputs_and_labels(self.clients.load(client_id), client_id)
            if _examples.count(examples):
                return _spec(examples, self.batch_size)
        raise DataError(f"none of the {len(self.client_ids)} clients has any examples, so batches have no shape")

    def client(self, client_id: str, round_number: int = 0) -> "ClientDataset":
        """One client's batches in one round.

        Raises:
          UnknownClientError: no client has this id.
          ArgumentError: `round_number` is negative.
          DataError: the client is known to have no examples.
        """
        _randomness.check_round(round_number)
        if self.clients.known_num_examples(client_id) == 0:
            raise _empty(client_id)
        return ClientDataset(client_id, round_number, self)

    def cohort(self, client_ids: Iterable[str], round_number: int = 0) -> list["ClientDataset"]:
        """The batches of each of these clients in one round, in the order of the ids.

        Raises:
          ArgumentError: there are no ids.
          UnknownClientError: no client has one of the ids.
          DataError: a client is known to have no examples.
        """
        datasets = [self.client(client_id, round_number) for client_id in client_ids]
        if not datasets:
            raise ArgumentError("client_ids must name at least one client, got none")
        return datasets

    def sample_ids(self, count: int, *, seed: int, round_number: int) -> list[str]:
        """The same as `ClientData.sample_ids`."""
        return self.clients.sample_ids(count, seed=seed, round_number=round_number)

    def sample(self, count: int, *, seed: int, round_number: int) -> list["ClientDataset"]:
        """The batches of `count` different clients, drawn uniformly as by `ClientData.sample_ids`.

        Raises:
          ArgumentError: `count` is not between 1 and the number of clients, or `round_number` is negative.
          DataError: a client that was drawn is known to have no examples.
        """
        return self.cohort(self.sample_ids(count, seed=seed, round_number=round_number), round_number)


@dataclass(frozen=True)
class ClientDataset:
    """One client's batches in one round; each iteration loads the client and yields the same batches again.

    Attributes:
      client_id: whose examples these are.
      round_number: the round, which selects the order of the examples where they are shuffled.
    """

    client_id: str
    round_number: int
    _source: BatchedClientData = field(repr=False)

    @property
    def origin(self) -> tuple[BatchedClientData, tuple[str, int]]:
        """What makes an equal object: `source.client(*arguments)`. Engines send the source once, for all clients."""
        return self._source, (self.client_id, self.round_number)

    @property
    def num_examples(self) -> int:
        """How many examples the client has; each counts once, however many epochs there are."""
        return self._source.clients.num_examples(self.client_id)

    @property
    def num_batches(self) -> int:
        """How many batches an iteration yields."""
        return -(-self.num_examples * self._source.epochs // self._source.batch_size)

    @property
    def batch_spec(self) -> Batch:
        """A Batch of `jax.ShapeDtypeStruct`; the shape and dtype of every batch."""
        return self._source.batch_spec

    def __iter__(self) -> Iterator[Batch]:
        examples = _inputs_and_labels(self._source.clients.load(self.client_id), self.client_id)
        if not _examples.count(examples):
            raise _empty(self.client_id)
        if (spec := _spec(examples, self._source.batch_size)) != self.batch_spec:
            raise DataError(
                f"client {self.client_id!r} has batches of {_describe(spec)}, but other clients have batches of "
                f"{_describe(self.batch_spec)}; all clients' examples must have one shape and dtype"
            )
        return _gather(examples, self._stream(_examples.count(examples)), self._source.batch_size)

    def _stream(self, count: int) -> Int64[np.ndarray, " stream"]:
        """Which example comes when: each epoch in its own order, one epoch after the other."""
        if not self._source.shuffle:
            return np.tile(np.arange(count), self._source.epochs)
        parts = (self._source.seed, self.client_id, self.round_number)
        epochs = range(self._source.epochs)
        return np.concatenate([_randomness.order(count, "shuffle", *parts, epoch) for epoch in epochs])


def batches(examples: Examples, batch_size: int) -> list[Batch]:
    """The examples in batches, in order, the last one padded and masked; for central evaluation.

    Args:
      examples: arrays by field name, at least `x` and `y`, one row per example, as `ClientData.examples` returns.
      batch_size: the number of rows of every batch.

    Raises:
      ArgumentError: `batch_size` is below 1.
      DataError: there is no field `x` or `y`, or the fields have different lengths.
    """
    if batch_size < 1:
        raise ArgumentError(f"batch_size must be at least 1, got {batch_size}")
    pair = _inputs_and_labels(_examples.checked(examples, "examples"), None)
    return list(_gather(pair, np.arange(_examples.count(pair)), batch_size))


def _gather(examples: Examples, stream: Int64[np.ndarray, " stream"], batch_size: int) -> Iterator[Batch]:
    # Only one batch is gathered at a time, so memory does not grow with the number of epochs.
    for start in range(0, len(stream), batch_size):
        rows = stream[start : start + batch_size]
        mask = np.zeros(batch_size, np.float32)
        mask[: len(rows)] = 1.0
        yield Batch(_padded(examples["x"][rows], batch_size), _padded(examples["y"][rows], batch_size), mask)


def _padded(rows: np.ndarray, batch_size: int) -> np.ndarray:
    if len(rows) == batch_size:
        return rows
    padded = np.zeros((batch_size, *rows.shape[1:]), rows.dtype)
    padded[: len(rows)] = rows
    return padded


def _inputs_and_labels(examples: Examples, client_id: str | None) -> Examples:
    if "x" in examples and "y" in examples:
        return {"x": examples["x"], "y": examples["y"]}
    owner = "examples" if client_id is None else f"the examples of client {client_id!r}"
    raise DataError(
        f"{owner} must have the fields 'x' (inputs) and 'y' (labels) to be batched, got {sorted(examples)}; rename "
        f"them with ClientData.map"
    )


def _spec(examples: Examples, batch_size: int) -> Batch:
    def spec(array: np.ndarray) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((batch_size, *array.shape[1:]), array.dtype)

    return Batch(spec(examples["x"]), spec(examples["y"]), spec(np.zeros(0, np.float32)))


def _describe(spec: Batch) -> str:
    return f"x {spec.x.dtype}{list(spec.x.shape)}, y {spec.y.dtype}{list(spec.y.shape)}"


def _empty(client_id: str) -> DataError:
    return DataError(f"client {client_id!r} has no examples; leave such clients out with ClientData.without_empty()")

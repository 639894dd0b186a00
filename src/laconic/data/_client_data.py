"""Federated data: who holds which examples."""

import bisect
import difflib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from laconic.data import _examples, _randomness
from laconic.data._batches import BatchedClientData
from laconic.data._examples import Examples
from laconic.data._statistics import Statistics, summarize
from laconic.errors import ArgumentError, ArgumentTypeError, DataError, UnknownClientError

# Comparing an id with a million others takes half a minute, so only its neighbours in sorted order are compared.
_NEIGHBOURHOOD = 2_000


class ClientData:
    """Clients and their examples; immutable, and lazy: a client is loaded each time it is asked for, and not kept.

    One client's examples are a dict of arrays with one row per example; `"x"` are inputs, `"y"` are labels (int32).
    Make one with `from_arrays`, `from_loader` or a reader such as `load`.

    Attributes:
      client_ids: the ids of all clients, sorted.
    """

    client_ids: tuple[str, ...]

    def __init__(
        self,
        client_ids: Iterable[str],
        load: Callable[[str], Mapping[str, Any]],
        known_num_examples: Callable[[str], int | None] | None = None,
    ):
        self.client_ids = _sorted_ids(client_ids)
        self._load = load
        self._counts: dict[str, int] = {}  # found out by loading
        self._known_num_examples = known_num_examples or self._counts.get

    def __len__(self) -> int:
        return len(self.client_ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self.client_ids)

    def __contains__(self, client_id: object) -> bool:
        if not isinstance(client_id, str):
            return False
        position = bisect.bisect_left(self.client_ids, client_id)
        return position < len(self) and self.client_ids[position] == client_id

    def __getitem__(self, client_id: str) -> Examples:
        return self.load(client_id)

    def __repr__(self) -> str:
        return f"<ClientData of {len(self):,} clients, {self.client_ids[0]!r} to {self.client_ids[-1]!r}>"

    def load(self, client_id: str) -> Examples:
        """One client's examples, as read-only arrays by field name; `data[client_id]` is the same.

        Raises:
          UnknownClientError: no client has this id.
          DataError: the source is damaged, or returned fields of different lengths, or another number of examples than
            it said.
        """
        self._check_known(client_id)
        examples = _examples.checked(self._load(client_id), f"client {client_id!r}")
        known, count = self._known_num_examples(client_id), _examples.count(examples)
        if known is not None and known != count:
            raise DataError(
                f"client {client_id!r} has {count} examples, but had or was said to have {known}; a source must return "
                f"the same examples each time"
            )
        self._counts[client_id] = count
        return examples

    def num_examples(self, client_id: str) -> int:
        """How many examples the client has; loads the client only where the source does not know.

        Raises:
          UnknownClientError: no client has this id.
        """
        known = self.known_num_examples(client_id)
        return _examples.count(self.load(client_id)) if known is None else known

    def known_num_examples(self, client_id: str) -> int | None:
        """How many examples the client has, or None where only loading it would tell.

        Raises:
          UnknownClientError: no client has this id.
        """
        self._check_known(client_id)
        return self._known_num_examples(client_id)

    def statistics(self, *, labels: bool = False) -> Statistics:
        """How many clients and examples there are; with `labels`, also how many of each label (loads every client).

        Raises:
          DataError: the labels are asked for, and a client has no field `y`.
        """
        histogram: Counter[int] = Counter()
        for client_id in self.client_ids if labels else ():
            examples = self.load(client_id)
            if "y" not in examples:
                raise DataError(f"client {client_id!r} has no labels 'y' to count, only {sorted(examples)}")
            histogram.update(examples["y"].ravel().tolist())
        counts = [self.num_examples(client_id) for client_id in self.client_ids]
        return summarize(counts, dict(sorted(histogram.items())) if labels else None)

    def examples(self) -> Examples:
        """All clients' examples in one dict of arrays, in the order of `client_ids`, for central evaluation.

        Raises:
          DataError: clients have different fields, or rows of different shapes.
        """
        return _examples.concatenated([self.load(client_id) for client_id in self.client_ids])

    def map(self, function: Callable[[Examples], Mapping[str, Any]]) -> "ClientData":
        """The same clients with `function` applied to each one's examples, whenever a client is loaded.

        Args:
          function: from one client's examples to others; it may add, drop and rename fields and change the number of
            rows, as long as all fields keep the same. The arrays it receives are read-only.
        """
        return ClientData(self.client_ids, lambda client_id: function(self.load(client_id)))

    def select(self, client_ids: Iterable[str]) -> "ClientData":
        """Only the clients with these ids.

        Raises:
          UnknownClientError: no client has one of the ids.
          ArgumentError: an id is there twice, or there is none.
        """
        chosen = list(client_ids)
        for client_id in chosen:
            self._check_known(client_id)
        return ClientData(chosen, self.load, self.known_num_examples)

    def without_empty(self) -> "ClientData":
        """Only the clients that have at least one example.

        Raises:
          ArgumentError: no client has any.
        """
        return self.select(client_id for client_id in self.client_ids if self.num_examples(client_id))

    def split(self, first: float | Collection[str], *, seed: int = 0) -> tuple["ClientData", "ClientData"]:
        """Two groups of clients: those of `first`, and the rest.

        Args:
          first: the ids of the first group, or its share of the clients, between 0 and 1; the share is rounded, and
            each group gets at least one client.
          seed: which clients are chosen, where `first` is a share.

        Raises:
          ArgumentError: the share is not between 0 and 1, or a group would be empty.
          UnknownClientError: no client has one of the ids.
        """
        chosen = set(self._share(first, seed) if isinstance(first, int | float) else first)
        rest = [client_id for client_id in self.client_ids if client_id not in chosen]
        group = self.select(chosen)
        if not rest:
            raise ArgumentError(f"split must leave a client for the second group, got all {len(self)} for the first")
        return group, self.select(rest)

    def hold_out(self, fraction: float, *, seed: int = 0) -> tuple["ClientData", "ClientData"]:
        """Splits each client's examples into those to train on and those held out for testing.

        Every client with two examples or more keeps at least one for either; a client with fewer is left out of the
        test data. Both parts keep the order of the examples.

        Args:
          fraction: the share of each client's examples that is held out, between 0 and 1; it is rounded.
          seed: which examples are held out.

        Returns:
          The training data and the test data.

        Raises:
          ArgumentError: `fraction` is not between 0 and 1, or no client has two examples.
        """
        _check_share("fraction", fraction)

        def num_test(client_id: str) -> int:
            total = self.num_examples(client_id)
            return min(max(round(fraction * total), 1), total - 1) if total > 1 else 0

        def part(client_id: str, *, test: bool) -> Examples:
            examples = self.load(client_id)
            positions = _randomness.order(_examples.count(examples), "hold out", seed, client_id)
            held_out = num_test(client_id)
            return _examples.take(examples, np.sort(positions[:held_out] if test else positions[held_out:]))

        testable = [client_id for client_id in self.client_ids if num_test(client_id)]
        if not testable:
            raise ArgumentError("hold_out needs a client with at least two examples, and there is none")
        train = ClientData(self.client_ids, partial(part, test=False), lambda i: self.num_examples(i) - num_test(i))
        return train, ClientData(testable, partial(part, test=True), num_test)

    def sample_ids(self, count: int, *, seed: int, round_number: int) -> list[str]:
        """The ids of `count` different clients, drawn uniformly.

        The draw depends only on the ids, `seed` and `round_number`: any machine that knows them draws the same.

        Raises:
          ArgumentError: `count` is not between 1 and the number of clients, or `round_number` is negative.
        """
        return _randomness.sample_ids(self.client_ids, count, seed=seed, round_number=round_number)

    def batched(self, batch_size: int, *, epochs: int = 1, shuffle: bool = False, seed: int = 0) -> BatchedClientData:
        """The same clients, whose examples come in batches; lazy.

        As in TFF, a client's examples are shuffled, then repeated, then batched: a batch may run across the border of
        two epochs, and only the last batch of all may have fewer examples; it is padded with zeros and masked.

        Args:
          batch_size: the number of rows of every batch.
          epochs: how many times each example is passed.
          shuffle: whether each epoch has its own random order, rather than the source's.
          seed: which orders; they depend on it, the client's id, the round and the epoch.

        Raises:
          ArgumentError: `batch_size` or `epochs` is below 1.
        """
        return BatchedClientData(self, batch_size, epochs, shuffle, seed)

    def _check_known(self, client_id: str) -> None:
        if client_id not in self:
            raise UnknownClientError(
                f"no client has the id {client_id!r}; there are {len(self):,} clients, and the nearest ids are "
                f"{', '.join(map(repr, self._nearest(str(client_id))))}"
            )

    def _nearest(self, client_id: str) -> list[str]:
        position = bisect.bisect_left(self.client_ids, client_id)
        nearby = self.client_ids[max(position - _NEIGHBOURHOOD, 0) : position + _NEIGHBOURHOOD]
        return difflib.get_close_matches(client_id, nearby, n=3, cutoff=0.0)

    def _share(self, share: float, seed: int) -> list[str]:
        _check_share("first", share)
        if len(self) < 2:
            raise ArgumentError("split needs at least two clients to make two groups, got one")
        size = min(max(round(share * len(self)), 1), len(self) - 1)
        return [self.client_ids[i] for i in _randomness.order(len(self), "split", seed)[:size]]


def from_arrays(clients: Mapping[str, Mapping[str, Any]]) -> ClientData:
    """Clients whose examples are in memory; the arrays are not copied.

    Args:
      clients: for each client id its arrays by field name, one row per example, such as `{"x": ..., "y": ...}`.

    Raises:
      ArgumentError: there is no client.
      DataError: a client's fields have different lengths, or are not arrays.
    """
    examples = {client_id: _examples.checked(fields, f"client {client_id!r}") for client_id, fields in clients.items()}
    counts = {client_id: _examples.count(fields) for client_id, fields in examples.items()}
    return from_loader(examples, examples.__getitem__, counts)


def from_loader(
    client_ids: Iterable[str],
    load: Callable[[str], Mapping[str, Any]],
    num_examples: Mapping[str, int] | Callable[[str], int] | None = None,
) -> ClientData:
    """Clients whose examples `load` returns whenever they are asked for.

    Args:
      client_ids: the ids of all clients, in any order.
      load: from a client's id to its arrays by field name, one row per example; it may be called from several threads.
      num_examples: how many examples each client has, where that is known without loading.

    Raises:
      ArgumentError: there is no client, or an id is there twice.
    """
    return ClientData(client_ids, load, num_examples.__getitem__ if isinstance(num_examples, Mapping) else num_examples)


def merge(*parts: ClientData) -> ClientData:
    """All clients of all parts.

    Raises:
      ArgumentError: two parts have a client of the same id, or there are no parts.
    """
    owner: dict[str, ClientData] = {}
    for part in parts:
        if shared := sorted(owner.keys() & set(part.client_ids)):
            raise ArgumentError(
                f"merge needs parts without a common client, but {len(shared)} ids are in two of them, such as "
                f"{shared[0]!r}; rename or select clients first"
            )
        owner |= dict.fromkeys(part.client_ids, part)
    return ClientData(owner, lambda i: owner[i].load(i), lambda i: owner[i].known_num_examples(i))


def _sorted_ids(client_ids: Iterable[str]) -> tuple[str, ...]:
    ids = list(client_ids)
    if foreign := [client_id for client_id in ids if not isinstance(client_id, str)]:
        raise ArgumentTypeError(f"client ids must be strings, got {foreign[0]!r}; use str(...) on each")
    ids.sort()
    if not ids:
        raise ArgumentError("a federated data set must have at least one client, got none")
    if repeated := [a for a, b in pairwise(ids) if a == b]:
        raise ArgumentError(f"client ids must be unique, got {repeated[0]!r} more than once")
    return tuple(ids)


def _check_share(name: str, share: float) -> None:
    if not 0 < share < 1:
        raise ArgumentError(f"{name} must be a share between 0 and 1, both excluded, got {share}")

"""Four parts composed into a learning process, written as one federated computation."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from laconic import engines
from laconic.codecs import memory_norm, random
from laconic.errors import ArgumentError, ArgumentTypeError
from laconic.federated import (
    Computation,
    Engine,
    FederatedType,
    SequenceOf,
    SequenceType,
    Traffic,
    at_clients,
    at_server,
    federated_computation,
    federated_sum,
    member_type,
)
from laconic.learning._model import Weights
from laconic.learning._parts import Aggregator, ClientWork, Distributor, Finalizer


class LearningState(NamedTuple):
    """All that a process holds between rounds: one tree of arrays.

    Attributes:
      key: uint32[2], of the run.
      round_number: int32, of the next round.
      weights: the model's.
      distributor: the part's own state, and so on.
      client_work: see above.
      aggregator: see above.
      finalizer: see above.
      memories: of each client that has taken part, by its id, where clients remember something (error feedback):
        `{"memory": what it remembers, "round_number": int32, of its last round}`. In a deployment it stays with the
        client; it does not travel.
      caches: what clients still hold of earlier rounds' broadcasts, where the distributor makes use of it:
        `{"held": {client id: int32, the round}, "broadcasts": {round: what was received}}`, else empty.
    """

    key: Any
    round_number: Any
    weights: Weights
    distributor: Any
    client_work: Any
    aggregator: Any
    finalizer: Any
    memories: dict[str, Any]
    caches: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class RoundResult:
    """What a round gave besides the new state.

    Attributes:
      metrics: the model's metrics over the cohort's training, before each step.
      traffic: what travelled in this round.
      clients: how many took part.
      left_out: how many of them did not count, since their update or metrics held NaN or infinity.
    """

    metrics: dict[str, float]
    traffic: Traffic
    clients: int
    left_out: int


class LearningProcess:
    """Federated training as pure functions: `initialize(seed=...)`, then `next(state, cohort)` for each round.

    The same seed, cohorts and parts give the same bits, whatever the engine's number of workers.
    """

    def __init__(
        self,
        distributor: Distributor,
        client_work: ClientWork,
        aggregator: Aggregator,
        finalizer: Finalizer,
        engine: Engine,
    ):
        self._distributor = distributor
        self._client_work = client_work
        self._aggregator = aggregator
        self._finalizer = finalizer
        self._engine = engine
        self._computations: dict[tuple[Any, SequenceType], Computation] = {}

    def initialize(self, *, seed: int) -> LearningState:
        """The state before the first round; the seed, of 64 bits, determines all that is random in the run.

        Raises:
          ArgumentError: if the seed is out of range.
        """
        key = random.key(seed)
        weights = jax.tree.map(jnp.asarray, self._client_work.initial_weights(random.derive(key, "model")))
        return LearningState(
            key=key,
            round_number=np.int32(0),
            weights=weights,
            distributor=self._distributor.initialize(weights),
            client_work=self._client_work.initialize(weights),
            aggregator=self._aggregator.initialize(weights),
            finalizer=self._finalizer.initialize(weights),
            memories={},
            caches={},
        )

    def next(
        self, state: LearningState, cohort: Sequence[Any], *, per_client_traffic: bool = False
    ) -> tuple[LearningState, RoundResult]:
        """Runs a round.

        Args:
          state: of the previous round; it is not changed.
          cohort: each client's batches, such as `BatchedClientData.sample` gives.
          per_client_traffic: whether `result.traffic.clients` tells each client's bytes.

        Raises:
          ArgumentError: if the cohort is empty or holds a client twice, or its batches are not of one type.
        """
        key = random.derive(np.asarray(state.key), "round", int(state.round_number))
        computation = self.computation(state, batch_type(cohort))
        arguments = (_parts(state), list(cohort), *self._remembered(state, cohort))
        held, earlier = self._cached(state)
        run = computation.run(
            *arguments,
            key=key,
            engine=self._engine,
            per_client_traffic=per_client_traffic,
            held=held,
            earlier=earlier,
        )
        parts, sums, left_out, *remembered = run.result
        result = RoundResult(self._client_work.finalize_metrics(sums), run.traffic, len(cohort), int(left_out))
        memories = {
            **state.memories,
            **{
                str(client.client_id): {"memory": memory, "round_number": np.int32(state.round_number)}
                for updated in remembered
                for client, memory in zip(cohort, updated, strict=True)
            },
        }
        caches = self._next_caches(state, cohort, run.broadcast)
        return LearningState._make((state.key, np.int32(state.round_number + 1), *parts, memories, caches)), result

    def computation(self, state: LearningState, batches: SequenceType) -> Computation:
        """The round as a federated computation, built once for each type of batch."""
        parts_type = member_type(_parts(state))
        key = (parts_type, batches)
        if key not in self._computations:
            initial = self._initial_memory(state.weights)
            memory_types = () if initial is None else (at_clients(initial),)
            self._computations[key] = self._build(parts_type, batches, memory_types)
        return self._computations[key]

    def model_weights(self, state: LearningState) -> Weights:
        """The server's model."""
        return state.weights

    def broadcast_weights(self, state: LearningState) -> Weights:
        """The model that clients of the next round receive, where the distributor knows it; else the server's.

        Clients train from it, so it is the one that training has made good: where broadcasts are coarse, it is better
        than the server's.
        """
        if self._distributor.received is None:
            return state.weights
        return self._distributor.received(state.distributor, state.weights)

    def with_model_weights(self, state: LearningState, weights: Weights) -> LearningState:
        """The state with another model, everything else as it is.

        Raises:
          ArgumentError: if the weights are not of the model's structure, shapes and dtypes.
        """
        expected, found = member_type(state.weights), member_type(weights)
        if found != expected:
            raise ArgumentError(f"weights must be {expected}, got {found}")
        return state._replace(weights=jax.tree.map(jnp.asarray, weights))

    def memory_norms(self, state: LearningState) -> dict[str, float]:
        """Norms of what clients remember, see `codecs.memory_norm`, by client id: watch that they stay bounded."""
        return {client_id: memory_norm(own["memory"]) for client_id, own in state.memories.items()}

    def without_memories(self, state: LearningState, client_ids: Iterable[str] | None = None) -> LearningState:
        """The state in which some clients have forgotten what they remembered, as if they had not taken part yet.

        What a client remembers goes stale if it seldom takes part. This drops what is older than a hundred rounds:

            old = [name for name, own in state.memories.items() if own["round_number"] < state.round_number - 100]
            state = process.without_memories(state, old)

        What they have cached of earlier broadcasts is gone, too.

        Args:
          state: it is not changed.
          client_ids: who forgets; None is all clients. Then an aggregator whose own state goes with their memories
            (EF21) begins anew, too.

        Raises:
          ArgumentError: if only some clients are to forget what the aggregator's state goes with.
        """
        is_joint = self._aggregator.memories_are_joint(state.weights)
        if client_ids is None:
            aggregator = self._aggregator.initialize(state.weights) if is_joint else state.aggregator
            return state._replace(memories={}, caches={}, aggregator=aggregator)
        if is_joint:
            raise ArgumentError(
                "the aggregator's state holds the sum of what all clients remember, so that they can only forget "
                "together; leave client_ids out"
            )
        dropped = set(client_ids)
        memories = {name: own for name, own in state.memories.items() if name not in dropped}
        caches = dict(state.caches)
        if caches:
            caches["held"] = {name: number for name, number in caches["held"].items() if name not in dropped}
        return state._replace(memories=memories, caches=caches)

    def _cached(self, state: LearningState) -> tuple[dict[str, int], dict[int, Any]]:
        """Which rounds' broadcasts clients still hold, and these."""
        if not state.caches:
            return {}, {}
        oldest = int(state.round_number) - self._distributor.cached_rounds
        held = {name: int(number) for name, number in state.caches["held"].items() if number >= oldest}
        return held, {int(number): value for number, value in state.caches["broadcasts"].items()}

    def _next_caches(self, state: LearningState, cohort: Sequence[Any], broadcast: Any) -> dict[str, Any]:
        """What clients hold after a round; broadcasts that nobody can use any more are dropped."""
        if not self._distributor.cached_rounds:
            return {}
        held, broadcasts = self._cached(state)
        held |= {str(client.client_id): int(state.round_number) for client in cohort}
        broadcasts[int(state.round_number)] = broadcast
        used = set(held.values())
        return {
            "held": {name: np.int32(number) for name, number in held.items()},
            "broadcasts": {str(number): value for number, value in broadcasts.items() if number in used},
        }

    def _remembered(self, state: LearningState, cohort: Sequence[Any]) -> list[list[Any]]:
        """One list, of what each client of the cohort remembers; no list if clients remember nothing."""
        initial = self._initial_memory(state.weights)
        if initial is None:
            return []
        known = [state.memories.get(str(client.client_id)) for client in cohort]
        return [[initial if own is None else own["memory"] for own in known]]

    def _initial_memory(self, weights: Weights) -> Any:
        """What a new client remembers; None if clients remember nothing."""
        initial = None if self._aggregator.initial_memory is None else self._aggregator.initial_memory(weights)
        return initial if jax.tree.leaves(initial) else None

    def _build(self, parts_type: Any, batches: SequenceType, memory_types: Sequence[FederatedType]) -> Computation:
        # Not `self`: an engine that sends the computation elsewhere would have to send itself.
        distribute, train = self._distributor.next, self._client_work.next
        aggregate, finalize = self._aggregator.next, self._finalizer.next

        @federated_computation(at_server(parts_type), at_clients(batches), *memory_types)
        def federated_round(parts: Any, data: Any, *memory: Any) -> Any:
            weights, distributor, client_work, aggregator, finalizer = parts
            distributor, received = distribute(distributor, weights)
            client_work, result = train(client_work, received, data)
            aggregator, mean, *updated = aggregate(aggregator, result.update, result.weight, *memory)
            sums = federated_sum(result.metrics, label="metrics", kind="metrics")
            finalizer, weights = finalize(finalizer, weights, mean.update)
            return (weights, distributor, client_work, aggregator, finalizer), sums, mean.left_out, *updated

        return federated_round


def _parts(state: LearningState) -> tuple[Any, ...]:
    """The model and its parts' states, which the server holds."""
    return state[2:-2]


def compose(
    distributor: Distributor,
    client_work: ClientWork,
    aggregator: Aggregator,
    finalizer: Finalizer,
    *,
    engine: Engine | None = None,
) -> LearningProcess:
    """A learning process of four parts.

    Args:
      distributor: brings the model to the clients, such as `encoded_broadcast()`.
      client_work: what clients do, such as `local_training(model, optimizer)`.
      aggregator: brings updates back, such as `encoded_mean()`.
      finalizer: applies them, such as `server_optimizer(optimizer)`.
      engine: where clients run; None is `engines.local()`.

    Raises:
      ArgumentTypeError: if a part is of another kind.
    """
    for name, part, kind in (
        ("distributor", distributor, Distributor),
        ("client_work", client_work, ClientWork),
        ("aggregator", aggregator, Aggregator),
        ("finalizer", finalizer, Finalizer),
    ):
        if not isinstance(part, kind):
            raise ArgumentTypeError(
                f"{name} must be a learning.{kind.__name__}, got {part!r:.60} of type {type(part).__name__}"
            )
    return LearningProcess(distributor, client_work, aggregator, finalizer, engine or engines.local())


def batch_type(cohort: Sequence[Any]) -> SequenceType:
    """The type of a cohort's batches.

    Raises:
      ArgumentError: if the cohort is empty or its clients' batches differ.
    """
    if not cohort:
        raise ArgumentError(
            "cohort must hold at least one client, got none; sample some, as in clients.sample(10, ...)"
        )
    types: dict[SequenceType, str] = {}
    for client in cohort:
        if not hasattr(client, "batch_spec"):
            raise ArgumentTypeError(
                f"each item of the cohort must be a client's batches, with a batch_spec, got {type(client).__name__}; "
                "make them with ClientData.batched(...).sample(...)"
            )
        types.setdefault(SequenceOf(client.batch_spec), client.client_id)
    if len(types) > 1:
        raise ArgumentError(
            "all clients' batches must be of one type, got "
            + " and ".join(f"{type_} from {client_id!r}" for type_, client_id in types.items())
        )
    return next(iter(types))

"""Clients that remember: error feedback in training."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from laconic import codecs, data, engines, learning
from laconic.codecs import error_feedback
from laconic.errors import ArgumentError
from laconic.federated import SequenceOf, federated_map, federated_sum

from .conftest import make_clients

BATCH = 10


@codecs.register
@dataclasses.dataclass(frozen=True)
class LargestPercent(codecs.Stage):
    """The hundredth part of all entries that is largest, at least one, in place."""

    name: ClassVar[str] = "learning_test.largest_percent"

    def encode(self, key, x, parameters):
        flat = x.reshape(-1)
        smallest = jnp.sort(jnp.abs(flat))[-max(flat.size // 100, 1)]
        return {"values": jnp.where(jnp.abs(flat) >= smallest, flat, 0)}

    def decode(self, encoded, parameters, *, num_summands, spec):
        return encoded["values"].reshape(spec.shape).astype(spec.dtype)


FEW = codecs.concatenate(LargestPercent())
REMEMBERING = error_feedback(FEW)


def process_of(model, codec, **arguments):
    """FedAvg with plain SGD whose updates go through a codec."""
    return learning.fed_avg(model, optax.sgd(0.3), aggregator=learning.encoded_mean(codec), **arguments)


def cohort(clients, ids=None):
    """The batches of some clients, in their own order."""
    return clients.batched(BATCH).cohort(clients.client_ids if ids is None else ids)


def same(first, second):
    """Compares trees bit by bit."""
    jax.tree.map(np.testing.assert_array_equal, first, second)


def poisoned(clients, name):
    """The same clients, one of whom has nothing but NaN."""
    examples = {each: dict(clients[each]) for each in clients.client_ids}
    examples[name]["x"] = np.full_like(examples[name]["x"], np.nan)
    return data.from_arrays(examples)


@pytest.mark.parametrize(
    "codec",
    [REMEMBERING, error_feedback(FEW, kind="ef21", num_clients=6)],
    ids=["ef14", "ef21"],
)
def test_one_percent_of_the_entries_is_enough_with_feedback(model, codec):
    """Of 83 parameters each client sends one: with feedback that trains the model, without it hardly does."""
    clients = make_clients([30] * 6)

    def trained_loss(each):
        process = process_of(model, each)
        state = process.initialize(seed=0)
        for _ in range(25):
            state, _ = process.next(state, cohort(clients))
        return learning.evaluation(model).central(state.weights, data.batches(clients.examples(), 60))["loss"]

    assert trained_loss(codec) < 0.6 * trained_loss(FEW)


def test_memories_are_kept_by_client(model, clients):
    """Each client that has taken part has its own, with the round it is of; the others' stay as they are."""
    process = process_of(model, REMEMBERING)
    first, _ = process.next(process.initialize(seed=0), cohort(clients, ["client0", "client3"]))
    second, _ = process.next(first, cohort(clients, ["client3", "client1"]))
    assert {name: int(own["round_number"]) for name, own in second.memories.items()} == {
        "client0": 0,
        "client1": 1,
        "client3": 1,
    }
    same(second.memories["client0"], first.memories["client0"])
    norms = process.memory_norms(second)
    assert set(norms) == set(second.memories)
    assert min(norms.values()) > 0
    assert norms["client3"] != process.memory_norms(first)["client3"]


def test_what_is_lost_comes_later(model, clients):
    """If no client learns any more, what they remember still arrives, entry by entry."""
    process, idle = (
        process_of(model, REMEMBERING),
        learning.fed_avg(model, optax.sgd(0.0), aggregator=learning.encoded_mean(REMEMBERING)),
    )
    state, _ = process.next(process.initialize(seed=0), cohort(clients))
    due = sum(np.asarray(leaf) for own in state.memories.values() for leaf in jax.tree.leaves(own["memory"]))
    before, norms = state.weights, [max(process.memory_norms(state).values())]
    for _ in range(20):
        state, _ = idle.next(state, cohort(clients))
        norms.append(max(process.memory_norms(state).values()))
    assert np.all(np.diff(norms) < 0)
    still = sum(np.asarray(leaf) for own in state.memories.values() for leaf in jax.tree.leaves(own["memory"]))
    moved = jax.tree.map(jnp.subtract, state.weights, before)
    arrived = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(moved)])
    examples = sum(clients.num_examples(name) for name in clients.client_ids)
    np.testing.assert_allclose(arrived * examples + still, due, atol=1e-3)


def test_other_codecs_cost_nothing(model, clients):
    """Without feedback the state holds no memories, the computation takes none, and traffic is the same."""
    plain, remembering = process_of(model, FEW), process_of(model, REMEMBERING)
    state, result = plain.next(plain.initialize(seed=0), cohort(clients))
    assert state.memories == {}
    batches = SequenceOf(clients.batched(BATCH).batch_spec)
    assert plain.computation(state, batches).type_signature.count("@CLIENTS") == 1
    again = remembering.initialize(seed=0)
    assert remembering.computation(again, batches).type_signature.count("{") == 3  # batches, memories in and out
    assert result.traffic == remembering.next(again, cohort(clients))[1].traffic


def test_the_same_bits_for_any_number_of_workers(model, clients):
    """States with memories are equal after three rounds on 1 and 3 workers."""
    codec = error_feedback(codecs.concatenate(codecs.dithered(nmse=2.0)))
    ends = []
    for workers in (1, 3):
        process = process_of(model, codec, engine=engines.local(workers=workers))
        state = process.initialize(seed=7)
        for _ in range(3):
            state, _ = process.next(state, cohort(clients))
        ends.append(state)
    same(*ends)


@pytest.mark.parametrize("kind", ["ef14", "ef21"])
def test_a_client_that_is_left_out_remembers_what_it_did(model, clients, kind):
    """Its update is lost and its memory is not: old ones stay, and a new client's is as at first."""
    process = process_of(model, error_feedback(FEW, kind=kind, num_clients=None if kind == "ef14" else 5))
    known, _ = process.next(process.initialize(seed=0), cohort(clients, ["client0", "client2"]))
    after, result = process.next(known, cohort(poisoned(clients, "client2")))
    assert result.left_out == 1
    same(after.memories["client2"]["memory"], known.memories["client2"]["memory"])
    assert process.memory_norms(after)["client2"] > 0
    new, _ = process.next(known, cohort(poisoned(clients, "client4")))
    assert process.memory_norms(new)["client4"] == 0


def test_a_client_that_is_left_out_sends_nothing_of_its_memory(model, clients):
    """The model and the others' memories are as if it had not taken part."""
    process = process_of(model, REMEMBERING)
    state, _ = process.next(process.initialize(seed=0), cohort(clients))
    with_bad, _ = process.next(state, cohort(poisoned(clients, "client2")))
    without, _ = process.next(state, cohort(clients, ["client0", "client1", "client3", "client4"]))
    same(with_bad.weights, without.weights)
    same(with_bad.memories["client3"], without.memories["client3"])


def test_memories_can_be_stored(model, clients):
    """As bytes, by themselves, with nothing pickled; training goes on with the same bits."""
    process = process_of(model, REMEMBERING)
    state, _ = process.next(process.initialize(seed=0), cohort(clients))
    stored = codecs.decode(codecs.encode(state.memories, codecs.identity()))
    same(process.next(state, cohort(clients))[0], process.next(state._replace(memories=stored), cohort(clients))[0])


def test_memories_can_be_dropped(model, clients):
    """Some, such as stale ones, or all; a client without one begins anew, and the state that was given stays."""
    process = process_of(model, REMEMBERING)
    state, _ = process.next(process.initialize(seed=0), cohort(clients, ["client0", "client1"]))
    state, _ = process.next(state, cohort(clients, ["client1"]))
    old = [name for name, own in state.memories.items() if own["round_number"] < state.round_number - 1]
    fresh = process.without_memories(state, old)
    assert set(fresh.memories) == {"client1"}
    assert set(state.memories) == {"client0", "client1"}
    assert process.without_memories(state).memories == {}
    one, _ = process.next(fresh, cohort(clients, ["client0"]))
    two, _ = process.next(process.without_memories(state), cohort(clients, ["client0"]))
    same(one.weights, two.weights)


def test_estimates_are_dropped_at_both_ends_or_not_at_all(model, clients):
    """The server holds the sum of what EF21's clients remember, so that one cannot forget by itself."""
    process = process_of(model, error_feedback(FEW, kind="ef21", num_clients=5))
    first = process.initialize(seed=0)
    state, _ = process.next(first, cohort(clients))
    with pytest.raises(ArgumentError, match="can only forget together; leave client_ids out"):
        process.without_memories(state, ["client0"])
    fresh = process.without_memories(state)
    assert fresh.memories == {}
    same(fresh.aggregator, first.aggregator)
    same(fresh.weights, state.weights)


def test_a_broadcast_with_feedback(model, clients):
    """The server remembers, in the distributor's state, what clients have not received of the model."""
    codec = error_feedback(codecs.uniform_quantization(2, stochastic=False))
    process = learning.fed_avg(model, optax.sgd(0.0), distributor=learning.encoded_broadcast(codec))
    state = process.initialize(seed=0)
    assert len(state.distributor) == len(jax.tree.leaves(state.weights))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(state.distributor))
    state, _ = process.next(state, cohort(clients))
    errors = [own["memory"]["self"]["error"] for own in state.distributor]
    assert [error.shape for error in errors] == [leaf.shape for leaf in jax.tree.leaves(state.weights)]
    assert any(np.any(error) for error in errors)
    assert state.memories == {}


def test_an_aggregator_that_threads_no_memory(model, clients):
    """One error, when the round is built, names the codec's label and the way out."""

    def next_(state, update, weight):
        total = federated_sum(update, codec=REMEMBERING, label="update")
        return state, federated_map(lambda tree: learning.Aggregated(tree, jnp.float32(0)), total)

    process = learning.fed_avg(model, optax.sgd(0.1), aggregator=learning.Aggregator(lambda weights: (), next_))
    with pytest.raises(ArgumentError, match="codec of 'update' needs each client to keep a memory.*pass memory="):
        process.next(process.initialize(seed=0), cohort(clients))

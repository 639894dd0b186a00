"""Codecs that remember: clients' memories as placed values, and the sender's memory of a broadcast."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laconic import codecs, engines
from laconic.codecs import error_feedback
from laconic.errors import ArgumentError, PlacementError
from laconic.federated import (
    at_clients,
    at_server,
    federated_broadcast,
    federated_computation,
    federated_map,
    federated_mean,
    federated_sum,
)

X = np.zeros(6, np.float32)
ROUGH = codecs.uniform_quantization(1, stochastic=False)
CODEC = error_feedback(ROUGH)
MEMORY = codecs.bind(CODEC, X).initial_memory()
UPDATES = [np.random.default_rng(i).standard_normal(6, dtype=np.float32) for i in range(3)]


@federated_computation(at_clients(X), at_clients(MEMORY))
def remembering_sum(updates, memories):
    """One round with error feedback."""
    return federated_sum(updates, codec=CODEC, memory=memories, label="update")


def errors(memories):
    """What each client's codec has still to send."""
    return [np.asarray(memory[0]["self"]["error"]) for memory in memories]


def test_each_client_s_memory_comes_back():
    """What the server has decoded over rounds is what clients have sent less what they remember."""
    memories, decoded = [MEMORY] * 3, 0
    for round_number in range(1, 6):
        total, memories = remembering_sum(UPDATES, memories)
        decoded = decoded + total
        np.testing.assert_allclose(decoded + sum(errors(memories)), round_number * sum(UPDATES), atol=1e-5)
    assert not np.array_equal(errors(memories)[0], errors(memories)[1])


def test_memories_do_not_travel():
    """A round costs what it does without feedback."""
    plain = federated_computation(at_clients(X))(lambda updates: federated_sum(updates, codec=ROUGH, label="update"))
    run = remembering_sum.run(UPDATES, [MEMORY] * 3)
    assert run.traffic.by("direction", "value", "kind") == plain.run(UPDATES).traffic.by("direction", "value", "kind")
    assert run.traffic.broadcast_bytes == 0


def test_any_number_of_workers_gives_the_same_bits():
    """Sums and memories do not depend on the engine."""
    codec = error_feedback(codecs.dithered(nmse=3.0))
    rounds = federated_computation(at_clients(X), at_clients(codecs.bind(codec, X).initial_memory()))(
        lambda updates, memories: federated_sum(updates, codec=codec, memory=memories)
    )
    results = [
        rounds(UPDATES * 3, [codecs.bind(codec, X).initial_memory()] * 9, key=1, engine=engine)
        for engine in (None, engines.local(workers=1), engines.local(workers=4))
    ]
    for other in results[1:]:
        jax.tree.map(np.testing.assert_array_equal, results[0], other)


def test_means_remember_too():
    """With and without weights, with a state beside the memory; what is remembered is the weighted value's error."""
    codec = error_feedback(ROUGH, kind="ef21", num_clients=3)
    bound = codecs.bind(codec, X)

    @federated_computation(
        at_server(bound.initial_state()), at_clients(X), at_clients(jnp.float32), at_clients(bound.initial_memory())
    )
    def means(state, updates, weights, memories):
        plain = federated_mean(updates, codec=codec, state=state, memory=memories)
        weighted = federated_mean(updates, weights, codec=CODEC, memory=federated_map(lambda _: MEMORY, memories))
        return plain, weighted

    weights = [np.float32(w) for w in (1, 2, 5)]
    (mean, state, memories), (weighted, after) = means(
        bound.initial_state(), UPDATES, weights, [bound.initial_memory()] * 3
    )
    estimates = sum(np.asarray(memory[0]["self"]["estimate"]) for memory in memories)
    np.testing.assert_allclose(mean, estimates / 3, rtol=1e-5)
    np.testing.assert_allclose(state[0]["self"]["estimates"], estimates, rtol=1e-5)
    sent = sum(w * x for w, x in zip(weights, UPDATES, strict=True))
    np.testing.assert_allclose(8 * weighted + sum(errors(after)), sent, atol=1e-5)


def test_the_next_memory_can_be_mapped():
    """Clients may compute with it, and with what they had before, once they have sent."""

    @federated_computation(at_clients(X), at_clients(MEMORY), at_clients(jnp.float32))
    def kept_by_some(updates, memories, keep):
        doubled = federated_map(lambda x: 2 * x, updates)
        total, after = federated_sum(doubled, codec=CODEC, memory=memories)
        kept = federated_map(
            lambda k, new, old, x: (jax.tree.map(lambda a, b: jnp.where(k > 0, a, b), new, old), x),
            (keep, after, memories, doubled),
        )
        return kept, total

    kept, _ = kept_by_some(UPDATES, [MEMORY] * 3, [np.float32(k) for k in (1, 0, 1)])
    assert [bool(np.any(error)) for error in errors([memory for memory, _ in kept])] == [True, False, True]
    np.testing.assert_array_equal(kept[1][1], 2 * UPDATES[1])


def test_memories_in_a_later_pass():
    """A codec of a second pass remembers what that pass has lost; the first pass's codec, its own."""

    @federated_computation(at_clients(X), at_clients(MEMORY), at_clients(MEMORY))
    def twice(updates, first, second):
        mean, first = federated_mean(updates, codec=CODEC, memory=first)
        centered = federated_map(jnp.subtract, (updates, federated_broadcast(mean)))
        total, second = federated_sum(centered, codec=CODEC, memory=second)
        return mean, total, first, second

    mean, total, first, second = twice(UPDATES, [MEMORY] * 3, [MEMORY] * 3)
    np.testing.assert_allclose(3 * mean + sum(errors(first)), sum(UPDATES), atol=1e-5)
    np.testing.assert_allclose(total + sum(errors(second)), sum(UPDATES) - 3 * mean, atol=1e-5)


def test_a_next_memory_cannot_be_sent():
    """Nor be used in a later pass, where it would have to be computed again."""
    with pytest.raises(PlacementError, match="can be mapped and returned, but not be sent or used in a later pass"):

        @federated_computation(at_clients(X), at_clients(MEMORY))
        def sent(updates, memories):
            _, memories = federated_sum(updates, codec=CODEC, memory=memories)
            return federated_sum(federated_map(lambda memory: memory[0]["self"]["error"], memories))

    with pytest.raises(PlacementError, match="give it to the next call"):

        @federated_computation(at_clients(X), at_clients(MEMORY))
        def used_later(updates, memories):
            total, memories = federated_sum(updates, codec=CODEC, memory=memories)
            received = federated_broadcast(total)
            return federated_map(lambda memory, x: memory[0]["self"]["error"] + x, (memories, received))


def test_a_codec_that_remembers_nothing_ignores_the_memory():
    """So a computation can be written for any codec; what it is given, it gives back."""
    total = federated_computation(at_clients(X), at_clients(MEMORY))(
        lambda updates, memories: federated_sum(updates, codec=ROUGH, memory=memories)
    )
    _, memories = total(UPDATES, [MEMORY] * 3)
    assert not any(np.any(error) for error in errors(memories))


def test_a_memory_that_is_missing_or_of_another_type():
    """One error names the way out; another, both types."""
    with pytest.raises(
        ArgumentError, match=r"'update' needs each client to keep a memory.*pass memory=.*initial_memory"
    ):
        federated_computation(at_clients(X))(lambda x: federated_sum(x, codec=CODEC, label="update"))
    with pytest.raises(ArgumentError, match="needs each client to keep a memory"):
        federated_computation(at_clients(X))(lambda x: federated_mean(x, codec=CODEC))
    with pytest.raises(
        PlacementError, match=r"codec memory of type \{<.*error=float32\[6\].*>\}@CLIENTS, got \{float32"
    ):
        federated_computation(at_clients(X))(lambda x: federated_sum(x, codec=CODEC, memory=x))
    with pytest.raises(PlacementError, match="takes a value at CLIENTS, got"):
        federated_computation(at_clients(X), at_server(MEMORY))(
            lambda x, memory: federated_sum(x, codec=CODEC, memory=memory)
        )
    with pytest.raises(ArgumentError, match=r"needs state=, a value at SERVER .*initial_sender_state\(\)"):
        federated_computation(at_server(X))(lambda x: federated_broadcast(x, codec=CODEC))


def test_a_broadcast_s_sender_remembers():
    """Its memory is part of the codec's state; another broadcast of the same message keeps its own type of state."""
    adaptive = codecs.adaptive(bits_per_parameter=2.0)
    down = codecs.bind(CODEC, X).initial_sender_state()
    other = codecs.bind(adaptive, X).initial_sender_state()

    @federated_computation(at_server(X), at_server(down), at_server(other), at_clients(jnp.float32))
    def sent(x, down, other, ones):
        received, down = federated_broadcast(x, codec=CODEC, state=down)
        also, other = federated_broadcast(x, codec=adaptive, state=other, label="also")
        return federated_map(lambda a, b, one: (a * one, b), (received, also, ones)), down, other

    decoded, ones = 0, [np.float32(1)] * 2
    for _ in range(4):
        received, down, other = sent(UPDATES[0], down, other, ones, key=0)
        np.testing.assert_array_equal(received[0][0], received[1][0])
        decoded = decoded + received[0][0]
    np.testing.assert_allclose(decoded + down[0]["memory"]["self"]["error"], 4 * UPDATES[0], atol=1e-5)

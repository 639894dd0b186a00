"""What clients hold already is theirs without a byte, and what follows from it is computed once."""

import jax.numpy as jnp
import numpy as np
import pytest

from laconic import codecs
from laconic.errors import ArgumentError, PlacementError
from laconic.federated import (
    at_clients,
    at_server,
    federated_broadcast,
    federated_computation,
    federated_held,
    federated_map,
    federated_sum,
)

VECTOR = np.arange(64, dtype=np.float32)
SCALAR = jnp.float32


@federated_computation(at_server(VECTOR), at_server(SCALAR), at_clients(SCALAR))
def shifted(reference, shift, values):
    """Sums of (reference + shift) * value, the reference being held."""
    held = federated_held(reference)
    sent = federated_broadcast(shift)
    model = federated_map(lambda r, s: r + s, (held, sent))
    return federated_sum(federated_map(lambda m, v: m * v, (model, values)))


def test_nothing_travels():
    """Clients compute with what they hold, and only the rest is counted."""
    run = shifted.run(VECTOR, 1.0, [2.0, 3.0])
    np.testing.assert_array_equal(run.result, 5 * (VECTOR + 1))
    assert run.traffic.broadcast_bytes == 2 * (4 + 8)
    assert shifted.type_signature == "(<float32[64]@SERVER,float32@SERVER,{float32}@CLIENTS> -> float32[64]@SERVER)"


def test_what_is_alike_is_computed_once():
    """A function of broadcasts alone runs once, not once a client; one that needs a client's value runs for each."""
    calls = {"alike": 0, "own": 0}

    def counted(name):
        def function(*values):
            calls[name] += 1
            return sum(values)

        return function

    @federated_computation(at_server(SCALAR), at_clients(SCALAR))
    def both(x, values):
        received = federated_broadcast(x)
        doubled = federated_map(counted("alike"), (received, received))
        return federated_sum(federated_map(counted("own"), (doubled, values)))

    before = dict(calls)
    assert both(2.0, [1.0, 2.0, 3.0]) == 3 * 4 + 6
    assert calls["alike"] - before["alike"] <= 2  # to find its type, and to compile it
    (phase, _) = both.phases
    assert [len(step.outputs) for step in phase.shared] == [1]
    assert [len(step.outputs) for step in phase.clients] == [1]


def test_in_a_later_pass():
    """What is held can be used in several passes, and with what an earlier pass gave."""

    @federated_computation(at_server(SCALAR), at_clients(SCALAR))
    def twice(x, values):
        held = federated_held(x)
        total = federated_sum(federated_map(lambda h, v: h + v, (held, values)))
        again = federated_held(total)
        return federated_sum(federated_map(lambda h, t, v: h + t + v, (held, again, values)))

    assert twice(10.0, [1.0, 2.0]) == 2 * 10 + 2 * 23 + 3


def test_rejects():
    """Only the server's values can be held by all."""
    with pytest.raises(PlacementError, match="federated_held takes a value at SERVER"):

        @federated_computation(at_clients(SCALAR))
        def wrong(values):
            return federated_held(values)


@federated_computation(at_server(VECTOR), at_clients(SCALAR))
def cached(vector, values):
    """Sums of vector * value; who holds an earlier vector is sent the difference."""
    received = federated_broadcast(
        vector, codec=codecs.chain(codecs.Identity(), codecs.ShuffledZstd()), since=jnp.subtract
    )
    return federated_sum(federated_map(lambda m, v: m * v, (received, values)))


def test_clients_that_hold_an_earlier_broadcast_are_sent_less():
    """Each client's message is the shorter of two, and each is counted."""
    noise = np.random.default_rng(0).standard_normal(VECTOR.size).astype(np.float32)
    first = cached.run(noise, [1.0, 2.0, 3.0], per_client_traffic=True)
    np.testing.assert_array_equal(first.broadcast, noise)
    again = cached.run(noise, [1.0, 2.0, 3.0], per_client_traffic=True, held={"1": 7, "9": 8}, earlier={7: noise})
    np.testing.assert_array_equal(again.result, first.result)
    down = [again.traffic.clients[name][0] for name in "012"]
    assert down[0] == down[2] == first.traffic.clients["0"][0] > down[1]
    assert again.traffic.broadcast_bytes == sum(down)


def test_held_is_checked():
    """What clients hold must be given, and be of use."""
    with pytest.raises(ArgumentError, match=r"lacks those of \[7\]"):
        cached.run(VECTOR, [1.0], held={"0": 7})
    with pytest.raises(ArgumentError, match="has no broadcast with a since"):
        shifted.run(VECTOR, 1.0, [1.0], held={"0": 7}, earlier={7: VECTOR})
    with pytest.raises(PlacementError, match="2 broadcasts with a since"):

        @federated_computation(at_server(SCALAR))
        def wrong(x):
            return [federated_broadcast(x, since=jnp.subtract), federated_broadcast(x, since=jnp.add)]

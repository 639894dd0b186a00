"""Codecs with server-held state inside federated computations."""

import dataclasses
from typing import ClassVar

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
    federated_map,
    federated_sum,
)

X = np.linspace(-1, 1, 8, dtype=np.float32)


@codecs.register
@dataclasses.dataclass(frozen=True)
class LargestSeen(codecs.Stage):
    """Scales by the largest magnitude that any client reported in earlier rounds."""

    name: ClassVar[str] = "federated_test.largest_seen"
    merges: ClassVar = {"largest": codecs.Merge.MAX}

    @property
    def commutes_with_sum(self):
        return True

    def initial_state(self, spec):
        return jnp.float32(1)

    def parameters(self, state):
        return {"scale": state}, {"scale": state}

    def encode(self, key, x, parameters):
        return {"values": x / parameters["scale"]}

    def report(self, x, encoded, parameters):
        return {"largest": jnp.abs(x).max()}

    def decode(self, encoded, parameters, *, num_summands, spec):
        return encoded["values"] * parameters["scale"]

    def update_state(self, state, merged):
        return jnp.maximum(state, merged["largest"])


CODEC = codecs.chain(LargestSeen())
STATE = codecs.bind(CODEC, X).initial_state()


@federated_computation(at_server(X), at_server(STATE), at_server(STATE), at_clients(jnp.float32))
def there_and_back(x, down, up, factors):
    """Broadcasts x, lets clients scale it, and sums: adaptive in both directions."""
    received, down = federated_broadcast(x, codec=CODEC, state=down)
    total, up = federated_sum(federated_map(jnp.multiply, (received, factors)), codec=CODEC, state=up, label="update")
    return total, down, up


def test_state_follows_the_reports():
    """Each direction's state becomes the largest magnitude that crossed in it, over cohorts of any size."""
    down, up = STATE, STATE
    for factors in ([2.0], [1.0, -5.0, 3.0], [0.5, 0.25]):
        total, down, up = there_and_back(4 * X, down, up, [np.float32(f) for f in factors])
        np.testing.assert_allclose(total, sum(factors) * 4 * X, rtol=1e-6)
    assert np.asarray(down[0]["self"]) == 4
    assert np.asarray(up[0]["self"]) == 20


def test_parameters_travel_down_and_reports_up():
    """The traffic has a float down for each direction's parameters, and a float up for the report."""
    traffic = there_and_back.run(X, STATE, STATE, [np.float32(1)]).traffic
    side = {key: size for key, size in traffic.by("direction", "value", "kind").items() if "side_information" in key}
    assert side == {
        ("broadcast", "model", "side_information"): 4,
        ("broadcast", "update parameters", "side_information"): 4,
        ("aggregate", "update", "side_information"): 4,
    }


def test_an_adaptive_codec_needs_its_state():
    """Without the state all that was learned would be lost; with another type it cannot be."""
    with pytest.raises(ArgumentError, match="adaptive codec, which needs state="):
        federated_computation(at_server(X))(lambda x: federated_broadcast(x, codec=CODEC))
    with pytest.raises(PlacementError, match="needs a codec state of type .*, got float32@SERVER"):
        federated_computation(at_server(X), at_server(jnp.float32))(
            lambda x, state: federated_broadcast(x, codec=CODEC, state=state)[0]
        )


def test_the_broadcast_s_next_state_can_be_used_at_once():
    """The server may compute with a broadcast's new state in the same run."""

    @federated_computation(at_server(X), at_server(STATE), at_clients(jnp.float32))
    def doubled(x, state, factors):
        received, state = federated_broadcast(x, codec=CODEC, state=state)
        total = federated_sum(federated_map(jnp.multiply, (received, factors)))
        return total, federated_map(lambda s: 2 * s[0]["self"], state)

    assert doubled(4 * X, STATE, [np.float32(1)])[1] == 8


@codecs.register
@dataclasses.dataclass(frozen=True)
class Scaled(codecs.Stage):
    """Divides by a constant array, of which encoders and decoders are told."""

    name: ClassVar[str] = "federated_test.scaled"

    def parameters(self, state):
        return {"scale": jnp.float32(4)}, {"scale": jnp.float32(4)}

    def encode(self, key, x, parameters):
        return {"values": x / parameters["scale"]}

    def decode(self, encoded, parameters, *, num_summands, spec):
        return encoded["values"] * parameters["scale"]


def test_parameters_without_state_travel_too():
    """A codec that has parameters but keeps no state needs none, and what encoders are told is counted."""
    codec = codecs.chain(Scaled())
    total = federated_computation(at_clients(X))(lambda x: federated_sum(x, codec=codec))
    run = total.run([X, X])
    np.testing.assert_allclose(run.result, 2 * X)
    assert run.traffic.by("direction", "kind")["broadcast", "side_information"] == 2 * 4

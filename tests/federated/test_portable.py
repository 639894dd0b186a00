"""Passes as data."""

import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laconic import codecs
from laconic.codecs._merging import RunningSum
from laconic.errors import ArgumentError
from laconic.federated import (
    SERVER,
    PortableClient,
    PortablePass,
    ReferenceEngine,
    at_clients,
    at_server,
    federated_aggregate,
    federated_broadcast,
    federated_client_key,
    federated_computation,
    federated_map,
    federated_max,
    federated_mean,
    federated_sum,
    federated_value,
)
from laconic.federated._reduction import leaves

X = np.zeros(300, np.float32)


def several(model, values, unused):
    """Two passes with all that may belong to one: broadcasts, keys, constants, sums, other reductions, kept results."""
    received = federated_broadcast(model, codec=codecs.uniform_quantization(8))
    keys = federated_client_key()
    noisy = federated_map(lambda x, m, key: x + m + key.sum().astype(jnp.float32) * 1e-12, (values, received, keys))
    mean = federated_mean(noisy, codec=codecs.stochastic_grid(step_in_rms=2.0))
    again = federated_broadcast(federated_map(jnp.add, (mean, federated_value(np.float32(1), SERVER))))
    off = federated_map(lambda x, m: jnp.abs(x - m).max(), (values, again))
    far = federated_aggregate(off, np.float32(0), lambda t, x: t * 0.9 + x, lambda a, b: a * 0.9 + b, jnp.sqrt)
    return mean, federated_max(off), far, off


TYPES = at_server(X), at_clients(X), at_clients(jnp.int32)
computation = federated_computation(*TYPES)(several)


def values(count):
    """Of very different sizes, so that another order of summation gives other bits."""
    generator = np.random.default_rng(0)
    return [np.float32(10.0 ** generator.integers(-4, 4) * generator.standard_normal(300)) for _ in range(count)]


class Elsewhere:
    """Some clients in each of several passes, of programs of their own, all made of bytes; in no order."""

    def __init__(self, places):
        self.places = places

    def run(self, client_pass, clients):
        program = client_pass.program
        other = pickle.loads(pickle.dumps(program))
        portable = pickle.dumps(PortablePass.of(client_pass))
        bound = [pickle.loads(portable).bind(other) for _ in range(self.places)]
        there = [own.parts() for own in bound]
        extents = client_pass.extents(2)
        for number in np.random.default_rng(len(extents)).permutation(len(extents)):
            place, extent = number * self.places // len(extents), extents[number]
            sent = pickle.dumps([PortableClient.of(clients[position], program) for position in extent])
            own = [client.bind(other) for client in pickle.loads(sent)]
            there[place].reduce(extent, map(bound[place].run_client, own))
        parts = client_pass.parts()
        for own in reversed(there):
            taken = own.taken()
            assert len(taken) <= 2 * np.log2(len(clients) + 1)
            for extent, part in pickle.loads(pickle.dumps(taken)).items():
                parts.add(extent, part)
        return client_pass.total(parts)


@pytest.mark.parametrize("places", [1, 3])
@pytest.mark.parametrize("count", [1, 2, 11, 64, 65, 150])
def test_a_pass_that_was_sent_has_the_same_bits(count, places):
    """Results and traffic, whoever has run which clients, and whenever."""
    arguments = np.linspace(0, 1, 300, dtype=np.float32), values(count), list(np.arange(count, dtype=np.int32))
    expected = computation.run(*arguments, key=5, engine=ReferenceEngine())
    found = computation.run(*arguments, key=5, engine=Elsewhere(places))
    jax.tree.map(np.testing.assert_array_equal, found.result, expected.result)
    assert found.traffic == expected.traffic


def test_parts_of_some_clients_are_no_result():
    """The error says whose are there."""

    class Half:
        def run(self, client_pass, clients):
            parts = client_pass.parts()
            for extent in client_pass.extents(2)[1:]:
                parts.reduce(extent, map(client_pass.run_client, clients[extent.start : extent.stop]))
            return client_pass.total(parts)

    with pytest.raises(
        ArgumentError, match=r"of all 6 clients, each once, got those of positions \[\(1, 3\), \(3, 6\)\]"
    ):
        example.run([float(i) for i in range(6)], engine=Half())


def test_a_computation_is_built_again_in_another_process():
    """From its function and types; the type that it has there is the same."""
    script = "import pickle, sys; print(pickle.load(sys.stdin.buffer).type_signature)"

    run = subprocess.run(
        [sys.executable, "-c", script], input=pickle.dumps(example), capture_output=True, check=True, timeout=120
    )
    assert run.stdout.decode().strip() == example.type_signature == "({float32}@CLIENTS -> float32@SERVER)"


example = federated_computation(at_clients(jnp.float32))(federated_sum)


@pytest.mark.parametrize("count", [1, 63, 64, 65, 128, 129, 1000, 10_000])
def test_extents(count):
    """They are the cohort, in order, of about one length; the shortest ones are at most 64, and make up longer ones."""
    shortest = leaves(count)
    assert len(shortest) <= 64
    for at_most in (1, 2, 7, count // 8, count):
        found = leaves(count, at_most=at_most)
        assert [position for extent in found for position in extent] == list(range(count))
        lengths = {len(extent) for extent in found}
        assert max(lengths) <= max(at_most, -(-count // 64))
        assert max(lengths) <= 2 * min(lengths) + 1
        assert [leaf for extent in found for leaf in leaves(count, extent)] == shortest


def test_sums_of_codes_travel_narrow():
    """A part of a sum of small integers takes few bytes, and is as wide as before when it arrives."""
    bound = codecs.bind(codecs.uniform_quantization(4, value_range=(-1, 1)), X)
    gather = bound.gather()
    for seed in range(3):
        gather.add(bound.encode_contribution(np.float32(np.linspace(-1, 1, 300)), key=codecs.random.key(seed)))
    sent = pickle.dumps(gather.totals)
    assert len(sent) < 300 * 2 + 1000
    other = bound.gather()
    other.absorb(pickle.loads(sent))
    other.absorb(bound.gather().totals)
    np.testing.assert_array_equal(other.result()[0], gather.result()[0])


@pytest.mark.parametrize("share", [0, 0.01, 0.1, 0.5, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, jnp.bfloat16])
def test_floats_arrive_exactly(share, dtype):
    """The signs of zeros, too; and mostly zeros in few bytes, all others in no more than as they are."""
    generator = np.random.default_rng(1)
    array = np.where(generator.random((100, 500)) < share, generator.standard_normal((100, 500)), 0).astype(dtype)
    array[0, :3] = [-0.0, np.inf, np.nan]
    sent = RunningSum()
    sent.add(array)
    blob = pickle.dumps(sent)
    assert len(blob) < 1000 + sent.total.nbytes * min(1, 3 * share)
    received = pickle.loads(blob)
    assert received.total.shape == array.shape
    assert received.total.tobytes() == sent.total.tobytes()
    received.add(np.ones_like(array))
    assert received.result().dtype == array.dtype


@pytest.mark.parametrize("values", [[-1, 2**60 + 1], [-(2**62) - 1, 3], [-5, 2**32 + 1], [0, 255], [-128, 127]])
def test_integers_arrive_exactly(values):
    """However far apart a sum's entries are, none is rounded on its way."""
    sent = RunningSum()
    sent.add(np.array(values, np.int64))
    found = pickle.loads(pickle.dumps(sent)).total
    assert found.dtype == np.int64
    assert found.tolist() == values

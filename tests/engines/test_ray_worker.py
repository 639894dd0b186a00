"""What an actor does, in this process: references are keys of a dictionary."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from laconic import data, engines, learning
from laconic.engines._ray_worker import Origin, Task, Worker
from laconic.errors import NonFiniteError
from laconic.federated import PortableClient, PortablePass, at_clients, federated_computation, federated_sum


class Store(dict):
    """Values by reference, counting how often each was asked for."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def put(self, value):
        self[len(self)] = value
        return len(self) - 1

    def get(self, reference):
        self.asked.append(reference)
        return self[reference]


class ThroughWorker:
    """An engine that sends tasks of so many clients to a worker, which gives up what it has after some of them."""

    def __init__(self, store, worker, grouped):
        self.store, self.worker, self.grouped = store, worker, grouped
        self.known = {}

    def run(self, client_pass, clients):
        store = self.store
        program = self.known.setdefault(client_pass.program, store.put(client_pass.program))
        portable = PortablePass.of(client_pass)
        received = {position: store.put(value) for position, value in portable.received.items()}
        inputs = store.put(PortablePass(**{**vars(portable), "received": received}))
        parts = client_pass.parts()
        for number, extent in enumerate(client_pass.extents(self.grouped)):
            sent = [self.sent(client, client_pass.program) for client in clients[extent.start : extent.stop]]
            self.worker.run(Task(program, inputs, extent, sent))
            if number % 3 == 1:
                self.give_up(parts)
        self.give_up(parts)
        return client_pass.total(parts)

    def give_up(self, parts):
        for extent, part in self.worker.give_up().items():
            parts.add(extent, part)

    def sent(self, client, program):
        portable = PortableClient.of(client, program)
        arguments = {}
        for position, value in portable.arguments.items():
            source, of_client = value.origin
            arguments[position] = Origin(self.known.setdefault(source, self.store.put(source)), of_client)
        return PortableClient(portable.id, arguments)


def trained(engine, count, rounds=2):
    """The weights after some rounds, and the last round's traffic."""
    generator = np.random.default_rng(0)
    clients = data.from_arrays(
        {
            f"client{i}": {"x": generator.standard_normal((5, 6)).astype(np.float32), "y": np.arange(5, dtype=np.int32)}
            for i in range(count)
        }
    ).batched(2, shuffle=True)
    process = learning.fed_avg(
        learning.models.perceptron(6, (8,), 5),
        optax.sgd(0.1),
        optax.adam(0.01),
        compression=learning.presets.balanced(),
        engine=engine,
    )
    state = process.initialize(seed=0)
    for round_number in range(rounds):
        state, result = process.next(state, clients.cohort(clients.client_ids, round_number))
    return state.weights, result


@pytest.fixture
def store():
    """An empty one."""
    return Store()


@pytest.fixture
def worker(store):
    """One thread, this process's settings."""
    return Worker(store.get, {}, None, 1)


@pytest.mark.parametrize(("count", "grouped"), [(7, 1), (7, 3), (130, 10)])
def test_the_bits_of_the_local_engine(store, worker, count, grouped):
    """Weights and traffic are the same, however many clients make a task, and whatever is given up together."""
    weights, result = trained(ThroughWorker(store, worker, grouped), count)
    expected, other = trained(engines.local(1), count)
    jax.tree.map(np.testing.assert_array_equal, weights, expected)
    assert result == other


def test_what_failed_is_not_held(store, worker):
    """A task whose client has an error leaves nothing, nor does what another pass has left."""

    @federated_computation(at_clients(jnp.float32))
    def total(values):
        return federated_sum(values)

    class Failing(ThroughWorker):
        def run(self, client_pass, clients):
            program, inputs = self.store.put(client_pass.program), self.store.put(PortablePass.of(client_pass))
            sent = [PortableClient.of(client, client_pass.program) for client in clients]
            self.worker.run(Task(program, inputs, range(2), sent[:2]))
            with pytest.raises(NonFiniteError):
                self.worker.run(Task(program, inputs, range(2, 5), sent[2:]))
            first = self.worker.give_up()
            assert list(first) == [range(2)]
            assert self.worker.give_up() == {}
            self.worker.run(Task(program, inputs, range(2), sent[:2]))
            again = self.store.put(PortablePass.of(client_pass))
            self.worker.run(Task(program, again, range(2, 3), sent[2:3]))
            assert list(self.worker.give_up()) == [range(2, 3)]
            raise InterruptedError

    with pytest.raises(InterruptedError):
        total([1.0, 2.0, 3.0, float("nan"), 5.0], engine=Failing(store, worker, 1))


def test_what_stays(store, worker):
    """Programs and data sets are asked for once, what clients receive once in a round."""
    trained(ThroughWorker(store, worker, 1), 3, rounds=3)
    asked = {reference: store.asked.count(reference) for reference in store.asked}
    kinds = {}
    for reference, times in asked.items():
        kinds.setdefault(type(store[reference]).__name__, []).append(times)
    assert kinds["Computation"] == [1]
    assert kinds["BatchedClientData"] == [1]
    assert kinds["PortablePass"] == [1, 1, 1]
    assert all(times == 1 for times in asked.values())


def test_only_a_few_things_stay(store, worker):
    """What was used longest ago is dropped, so that a worker's memory does not grow with the number of data sets."""
    references = [store.put(i) for i in range(20)]
    for reference in references:
        assert worker._held(reference) == reference
    for reference in references:
        worker._held(reference)
    assert store.asked.count(0) == 2
    assert len(worker._kept) == 8


def test_settings(store):
    """They are JAX's by name; a wrong one shows at once."""
    before = jax.config.jax_default_matmul_precision
    try:
        Worker(store.get, {"jax_default_matmul_precision": "float32"}, None, 1)
        assert jax.config.jax_default_matmul_precision == "float32"
    finally:
        jax.config.update("jax_default_matmul_precision", before)
    with pytest.raises(AttributeError):
        Worker(store.get, {"jax_no_such_setting": 1}, None, 1)
